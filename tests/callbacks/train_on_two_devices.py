"""Run by test_on_two_devices.py in a process of its own, which gets two logical CPUs.

Prints one JSON object: what the callbacks recorded and the weights they led to, under
MirroredStrategy over two devices and on one device with the same global batch; and how a callback
refused the strategy.
"""

import json
import pathlib
import sys
import tempfile

import keras
import numpy as np
import tensorflow as tf
from tensorboard.backend.event_processing import event_accumulator

import kbptt
from kbptt.callbacks import (
    AdaptiveTruncation,
    ClipByGlobalNorm,
    GradientFlow,
    GradientNormPenalty,
    SpectralMonitor,
)

TIMESTEPS = 12
RNG = np.random.default_rng(0)
X = RNG.normal(size=(24, TIMESTEPS, 2)).astype("float32")
Y = np.cumsum(X.sum(axis=-1, keepdims=True), axis=1)


def build(policy):
    keras.utils.set_random_seed(1)
    model = keras.Sequential(
        [
            keras.Input((TIMESTEPS, 2)),
            kbptt.GRU(4, return_sequences=True, truncation=5, dtype=policy, name="below"),
            kbptt.SimpleRNN(3, return_sequences=True, truncation=5, dtype=policy, name="above"),
            keras.layers.Dense(1),
        ]
    )
    optimizer = keras.optimizers.SGD(0.05)
    if policy == "mixed_float16":
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer, initial_scale=64.0)
    model.compile(optimizer, "mse")
    return model


def fit(model, *callbacks, **arguments):
    arguments = {"batch_size": 6, "epochs": 3, "shuffle": False, "verbose": 0, **arguments}
    model.fit(X, Y, callbacks=list(callbacks), **arguments)


def gradient_flow(model):
    with tempfile.TemporaryDirectory() as directory:
        flow = GradientFlow(directory, log_freq=1, heatmap_freq=None)
        fit(model, ClipByGlobalNorm(0.5), SpectralMonitor(directory), flow)
        events = event_accumulator.EventAccumulator(directory, size_guidance={"tensors": 0})
        events.Reload()
        written = {
            tag: [
                [e.step, *tf.make_ndarray(e.tensor_proto).ravel().tolist()]
                for e in events.Tensors(tag)
            ]
            for tag in events.Tags()["tensors"]
            if tag.startswith("gradient_flow")
        }
        same = flow.log_dir == str(pathlib.Path(directory))
    recorded = {name: norms.tolist() for name, (_, norms) in flow.history.items()}
    return {"recorded": recorded, "written": written, "same directory": same}


def adaptive_truncation(model):
    adapt = AdaptiveTruncation(0.9, 2, 12, data=(X[:6], Y[:6]), warmup=1)
    fit(model, adapt, epochs=5)
    lengths = [model.get_layer(name).truncation.length for name in ("below", "above")]
    return {"recorded": adapt.history, "lengths": lengths}


def refused(model):
    try:
        fit(model, GradientNormPenalty())
    except ValueError as error:
        return str(error)
    return "not refused"


def main():
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])

    policy = sys.argv[1]

    def both(train):
        one = build(policy)
        with strategy.scope():
            two = build(policy)
        return {
            name: {**train(model), "weights": [w.tolist() for w in model.get_weights()]}
            for name, model in (("one", one), ("two", two))
        }

    results = {train.__name__: both(train) for train in (gradient_flow, adaptive_truncation)}
    with strategy.scope():
        results["refused"] = refused(build("float32"))
    json.dump(results, sys.stdout)


if __name__ == "__main__":
    main()
