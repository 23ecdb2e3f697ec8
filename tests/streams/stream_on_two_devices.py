"""Run by test_stream_running.py in a process of its own, which gets two logical CPUs.

Prints one JSON object: weights and losses after training under MirroredStrategy over two devices
and on one device with the same rows.
"""

import json
import sys

import keras
import tensorflow as tf
from stream_loop import build, sequences

import kbptt
from kbptt.callbacks import StreamState
from kbptt.data import Streams


def train(model, data):
    # Sequences of unequal lengths: the replicas have different numbers of real steps.
    callbacks = [StreamState(data), kbptt.callbacks.ClipByGlobalNorm(0.05)]
    validation = Streams(data.sequences.x, data.sequences.y, target=None, length=6, batch_size=2)
    history = model.fit(data, epochs=2, verbose=0, callbacks=callbacks, validation_data=validation)
    return {
        "weights": [w.tolist() for w in model.get_weights()],
        "history": history.history,
        "states": [s.tolist() for s in callbacks[0].states()],
        "evaluated": kbptt.evaluate_stream(model, data),
    }


def main():
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    keras.config.set_floatx("float64")
    x, y = sequences(17, 5, 9, 1, 12, 8)

    def data():
        return Streams(x, y, target=None, length=4, batch_size=4, context=2)

    one = train(build("stack", timesteps=6), data())
    with tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]).scope():
        model = build("stack", timesteps=6)
    json.dump({"one": one, "two": train(model, data())}, sys.stdout)


if __name__ == "__main__":
    main()
