"""Trains on a stream in a process of its own: for test_stream_running.py.

Arguments: a directory, and what to do. ``killed`` ends the process by SIGKILL in the middle of the
second epoch; ``whole`` and ``resumed`` train to the end and print one JSON object.
"""

import json
import os
import pathlib
import signal
import sys

import keras
import numpy as np
import tensorflow as tf

import kbptt
from kbptt.callbacks import AutoClip, StreamState
from kbptt.data import Streams

WINDOWS_BEFORE = 17


class Kill(keras.callbacks.Callback):
    def __init__(self, after):
        super().__init__()
        self.left = after

    def on_train_batch_end(self, batch, logs=None):
        self.left -= 1
        if not self.left:
            os.kill(os.getpid(), signal.SIGKILL)


def build():
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((7,), dtype="int32"),
            keras.layers.Embedding(6, 5),
            kbptt.LSTM(
                8,
                return_sequences=True,
                dropout=0.2,
                truncation=kbptt.truncation.Randomized(0.7, seed=1),
                gradient_regularizer=kbptt.regularizers.VanishingGradient(0.1),
            ),
            kbptt.GRU(8, return_sequences=True, trainable_initial_state=True, truncation="snap1"),
            keras.layers.Dense(6),
        ]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(0.01), loss, metrics=["accuracy"])
    return model


def main(directory, what):
    tf.config.experimental.enable_op_determinism()
    tokens = np.random.default_rng(0).integers(0, 6, 300)
    data = Streams(tokens, length=7, batch_size=4)
    model, path = build(), pathlib.Path(directory) / "state.npz"
    state = StreamState(data, None if what == "whole" else path, save_freq=3)
    kill = [Kill(WINDOWS_BEFORE)] if what == "killed" else []
    # What clips remember goes on too, whether they stand before StreamState or after it.
    callbacks = [AutoClip(50), state, *kill]
    history = model.fit(data, epochs=3, verbose=0, callbacks=callbacks).history
    variables = [*model.variables, *model.optimizer.variables]
    result = {
        "windows": len(data),
        "position": data.position,
        "left": sorted(os.listdir(directory)),
        "weights": [np.asarray(v).tolist() for v in variables],
        "states": [np.asarray(s).tolist() for s in state.states()],
        "history": history,
    }
    json.dump(result, sys.stdout)


if __name__ == "__main__":
    main(*sys.argv[1:])
