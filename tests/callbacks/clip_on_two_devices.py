"""Run by test_clip_distributed.py in a process of its own, which gets two logical CPUs.

Prints one JSON object: for each case the weights and statistics under MirroredStrategy over two
devices and on one device with the same global batch.
"""

import json
import sys

import keras
import numpy as np
import tensorflow as tf

from kbptt.callbacks import AutoClip, ClipByGlobalNorm, ClipByNorm, ClipByValue, GradientNorm

CHAINS = {
    "chain": lambda: [GradientNorm(), ClipByNorm(0.5), ClipByGlobalNorm(0.3), ClipByValue(0.2)],
    "schedule": lambda: [ClipByGlobalNorm(lambda i: 0.3 / (1.0 + tf.cast(i, tf.float32)))],
    "auto": lambda: [AutoClip(50, history=4)],
    "observer": lambda: [GradientNorm()],
}


def recurrent(optimizer, dtype=None):
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((5,), dtype="int32"),
            keras.layers.Embedding(7, 3, dtype=dtype),  # its gradient is sparse
            keras.layers.SimpleRNN(4, dtype=dtype),
            keras.layers.Dense(1, dtype="float32"),
        ]
    )
    model.compile(optimizer(), "mse")
    return model


def train(model, callbacks, bad=None):
    random = np.random.default_rng(0)
    x, y = random.integers(0, 7, size=(12, 5)), random.normal(size=(12, 1)).astype("float32")
    if bad is not None:
        y[bad] = np.nan
    for _ in range(2):
        model.fit(x, y, batch_size=4, shuffle=False, verbose=0, callbacks=callbacks)
    return {
        "weights": [w.tolist() for w in model.get_weights()],
        "statistics": [callback.statistics() for callback in callbacks],
        "steps": [int(callback.step_count.numpy()) for callback in callbacks],
        "iterations": int(model.optimizer.iterations.numpy()),
        "clean": "apply" not in vars(model.optimizer),
    }


def cases():
    def adam():
        return keras.optimizers.Adam(0.05)

    def scaled():
        return keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam(0.05), initial_scale=64.0)

    for name, chain in CHAINS.items():
        yield name, adam, chain, {}
    for name, bad in [("nan on the first device", 4), ("nan on the second device", 7)]:
        yield name, adam, CHAINS["chain"], {"bad": bad}
    yield "loss scale", scaled, CHAINS["chain"], {}
    yield "loss scale, nan", scaled, CHAINS["chain"], {"bad": 4}


def main():
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    results = {}
    for name, optimizer, chain, arguments in cases():
        one = train(recurrent(optimizer), chain(), **arguments)
        with strategy.scope():
            model = recurrent(optimizer)
        results[name] = {"one": one, "two": train(model, chain(), **arguments)}
    json.dump(results, sys.stdout)


if __name__ == "__main__":
    main()
