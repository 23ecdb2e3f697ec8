"""Run by test_devices.py in a process of its own, which gets two logical CPUs.

Prints one JSON object: weights and gradient norms after training under MirroredStrategy over two
devices and on one device with the same global batch.
"""

import json
import sys

import keras
import numpy as np
import tensorflow as tf

import kbptt
from kbptt.truncation import Windowed


def build():
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((6, 3)), kbptt.LSTM(4, truncation=Windowed(4, 2))])
    model.compile(keras.optimizers.SGD(0.5), "mse")
    return model


def train(model):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(16, 6, 3)), rng.normal(size=(16, 4))
    model.fit(x, y, batch_size=8, shuffle=False, verbose=0)
    return {
        "weights": [w.tolist() for w in model.get_weights()],
        "norms": [layer.gradient_norms.tolist() for layer in model.layers],
    }


def main():
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    one = train(build())
    with tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]).scope():
        model = build()
    json.dump({"one": one, "two": train(model)}, sys.stdout)


if __name__ == "__main__":
    main()
