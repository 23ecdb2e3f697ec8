"""Run by test_clip_distributed.py in a process of its own, which gets two logical CPUs.

Prints one JSON object: for each case the weights and statistics under MirroredStrategy over two
devices and on one device with the same global batch; at the end twice on one device under op
determinism, which holds for the rest of the process.
"""

import json
import sys

import keras
import numpy as np
import tensorflow as tf

import kbptt
from kbptt import callbacks, optimizers
from kbptt.optimizers import Clipped


def clips(kind=callbacks):
    def falling(iterations):
        return 0.3 / (1.0 + tf.cast(iterations, tf.float32))

    chain = [kind.GradientNorm(), kind.ClipByNorm(0.5), kind.AutoClip(50, history=4)]
    chain += [kind.AdaGC(warmup_steps=1), kind.AdaClip(0.5), kind.GradientStabilizer()]
    return [*chain, kind.ClipByGlobalNorm(falling), kind.ClipByValue(0.05)]


def observer():
    return [callbacks.GradientNorm()]


def small(optimizer):
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((5,), dtype="int32"),
            keras.layers.Embedding(7, 3),  # its gradient is sparse
            keras.layers.GlobalAveragePooling1D(),
            keras.layers.Dense(1),
        ]
    )
    model.compile(optimizer(), "mse")
    return model


def recurrent(optimizer):
    keras.utils.set_random_seed(0)
    layer = kbptt.SimpleRNN(3, gradient_regularizer="vanishing_gradient")
    layers = [keras.layers.Embedding(7, 3), layer, keras.layers.Dense(1)]
    model = keras.Sequential([keras.Input((5,), dtype="int32"), *layers])
    model.compile(optimizer(), "mse")
    return model


def train(model, given, bad=None):
    own = model.optimizer
    random = np.random.default_rng(0)
    x, y = random.integers(0, 7, size=(12, 5)), random.normal(size=(12, 1)).astype("float32")
    if bad is not None:
        y[bad] = np.nan
    for _ in range(2):
        model.fit(x, y, batch_size=4, shuffle=False, verbose=0, callbacks=given)
    if not given:  # the transforms are the optimizer's
        inner = getattr(own, "inner_optimizer", own)
        given = (own if isinstance(own, Clipped) else inner).transforms
    return {
        "weights": [w.tolist() for w in model.get_weights()],
        "statistics": [one.statistics() for one in given],
        "steps": [int(one.step_count.numpy()) for one in given],
        "iterations": int(model.optimizer.iterations.numpy()),
        "clean": model.optimizer is own,
        "penalties": [getattr(layer, "gradient_penalty", 0.0) for layer in model.layers],
    }


def cases():
    def adam():
        return keras.optimizers.Adam(0.05)

    def scaled():
        return keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam(0.05), initial_scale=64.0)

    yield "clips", small, adam, clips, {}
    yield "observer", small, adam, observer, {}
    yield "nan on the second device", small, adam, clips, {"bad": 7}
    yield "loss scale, nan", small, scaled, clips, {"bad": 4}

    def clipped():
        return Clipped(keras.optimizers.Adam(0.05), clips(optimizers))

    def clipped_scaled():
        return Clipped(scaled(), clips(optimizers))

    def scaled_clipped():
        return keras.optimizers.LossScaleOptimizer(clipped(), initial_scale=64.0)

    yield "Clipped, nan", small, clipped, list, {"bad": 7}
    yield "Clipped around loss scale, nan", small, clipped_scaled, list, {"bad": 7}
    yield "loss scale around Clipped, nan", small, scaled_clipped, list, {"bad": 4}
    yield "omega", recurrent, adam, observer, {}
    yield "omega, loss scale", recurrent, scaled, observer, {}


def main():
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    results = {}
    for name, build, optimizer, chain, arguments in cases():
        one = train(build(optimizer), chain(), **arguments)
        with strategy.scope():
            model = build(optimizer)
        results[name] = {"one": one, "two": train(model, chain(), **arguments)}
    tf.config.experimental.enable_op_determinism()
    runs = [train(small(keras.optimizers.Adam), clips()) for _ in range(2)]
    results["op determinism"] = dict(zip(["one", "two"], runs, strict=True))
    json.dump(results, sys.stdout)


if __name__ == "__main__":
    main()
