"""Models that run step by step, and their data."""

import contextlib

import keras
import numpy as np
from keras import layers

import kbptt

T, BATCH = 12, 3
CALLS = [(0, 1), (1, 2), (2, 9), (9, T)]
RNG = np.random.default_rng(0)
X = RNG.normal(size=(BATCH, T, 4)).astype("float32")
TOKENS = np.where(RNG.random((BATCH, T)) < 0.5, 0, RNG.integers(1, 7, (BATCH, T)))
TOKENS[0, 0], TOKENS[1, :3], TOKENS[2, 9:] = 1, 0, 0


class Decay(layers.Layer):
    """A cell whose output is none of its two states."""

    state_size = (3, 2)

    def build(self, shape):
        self.kernel = self.add_weight((shape[-1], 3), "glorot_uniform")

    def call(self, x, states, training=False):
        a = 0.5 * states[0] + x @ keras.ops.cast(self.kernel, x.dtype)
        b = 0.9 * states[1] + a[:, :2]
        return keras.ops.tanh(a) * keras.ops.sum(b, axis=-1, keepdims=True), [a, b]


CELLS = {
    "LSTM": lambda **o: kbptt.LSTM(5, **o),
    "GRU": lambda **o: kbptt.GRU(5, **o),
    "GRU of Keras 1": lambda **o: kbptt.GRU(5, reset_after=False, **o),
    "SimpleRNN": lambda **o: kbptt.SimpleRNN(5, **o),
    "normalized": lambda **o: kbptt.LSTM(5, normalization="layer", **o),
    "own activation": lambda **o: kbptt.SimpleRNN(5, activation=keras.ops.sin, **o),
    "RNN": lambda **o: kbptt.RNN(layers.GRUCell(5), **o),
    "stack": lambda **o: kbptt.RNN([layers.LSTMCell(5), layers.GRUCell(6)], **o),
    "own cell": lambda **o: kbptt.RNN(Decay(dtype=o.get("dtype")), **o),
    "own stack": lambda **o: kbptt.RNN([layers.GRUCell(5), Decay()], **o),
    "learned": lambda **o: kbptt.LSTM(5, trainable_initial_state=True, **o),
    "zeros": lambda **o: kbptt.GRU(5, trainable_initial_state=True, zero_output_for_mask=True, **o),
}


def randomize(model):
    """Large weights, initial states and biases included."""
    rng = np.random.default_rng(5)
    model.set_weights([0.5 * rng.normal(size=w.shape) for w in model.get_weights()])
    return model


def sequential(*inner, shape=(None, 4)):
    return randomize(keras.Sequential([keras.Input(shape), *inner]))


def stepped(stepper, x, calls=CALLS, states=None):
    """Outputs of all calls and the states after the last one."""
    found = []
    if states is None:
        states = stepper.initial_states(len(x))
    for first, stop in calls:
        outputs, states = stepper(x[:, first:stop], states)
        found.append(np.asarray(outputs))
    return np.concatenate(found, axis=1), states


@contextlib.contextmanager
def policy(name):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(name)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


class Subclassed(keras.Model):
    def __init__(self, **options):
        super().__init__(**options)
        self.first = kbptt.LSTM(5, return_sequences=True, name="first")
        self.block = keras.Sequential([kbptt.GRU(4, return_sequences=True, name="second")])
        self.head = layers.Dense(2)

    def call(self, x, training=False):
        hidden = self.first(x)
        return {"head": self.head(self.block(hidden, training=training)), "hidden": hidden}
