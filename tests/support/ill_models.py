"""Models that are ill by construction, one for each finding, and healthy ones."""

import keras
import numpy as np

import kbptt

TIMESTEPS = 40


def data(per_timestep=False, scale=1.0, samples=32):
    rng = np.random.default_rng(0)
    x = (scale * rng.normal(size=(samples, TIMESTEPS, 2))).astype("float32")
    y = rng.normal(size=(samples, TIMESTEPS, 1) if per_timestep else (samples, 1))
    return x, y.astype("float32")


def network(*layers, optimizer=None):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((TIMESTEPS, 2)), *layers, keras.layers.Dense(1)])
    model.compile(optimizer or keras.optimizers.SGD(1e-12), "mse")
    return model


def scaled_identity(factor):
    return lambda shape, dtype=None: factor * keras.ops.eye(*shape, dtype=dtype)


def linear(factor, **options):
    """A linear network whose gradient changes by exactly `factor` at each timestep."""
    initializer = scaled_identity(factor)
    return kbptt.SimpleRNN(
        6, activation="linear", recurrent_initializer=initializer, name="rnn", **options
    )


def biased_gates(closed):
    """An LSTM whose gates are driven to their bounds by its bias, in Keras's order i, f, g, o."""
    bias = np.repeat({"i": [-9, 0, 0, 0], "f": [0, -9, 0, 0], "o": [0, 0, 0, 9]}[closed], 6)
    return kbptt.LSTM(
        6,
        unit_forget_bias=False,
        bias_initializer=lambda shape, dtype=None: keras.ops.cast(bias, dtype),
        name="rnn",
    )


def ill():
    """By name of the finding: model, data, further callbacks."""
    clip = kbptt.callbacks.ClipByGlobalNorm(1e-6)
    not_a_number = data()
    not_a_number[0][0, 0, 0] = np.nan
    return {
        "vanishing": (network(linear(0.8)), data(), []),
        "exploding": (network(linear(1.25)), data(), []),
        "cut-too-short": (network(linear(0.99, truncation=10)), data(), []),
        "window-too-long": (network(linear(0.4, truncation=30)), data(), []),
        "saturated-gates": (network(biased_gates("o")), data(), []),
        "dead-units": (network(kbptt.SimpleRNN(6, name="rnn")), data(scale=100.0), []),
        "clip-always": (network(linear(0.98)), data(), [clip]),
        "non-finite": (network(linear(0.98)), not_a_number, []),
    }


def healthy():
    """By a name: model, data, further callbacks."""
    clip = kbptt.callbacks.ClipByGlobalNorm(1e6)
    lstm = kbptt.LSTM(12, return_sequences=True, name="rnn", truncation=24)
    chrono = {"bias_initializer": kbptt.initializers.Chrono(40), "unit_forget_bias": False}
    return {
        "linear": (network(linear(0.98)), data(), []),
        "window": (network(linear(0.8, truncation=16)), data(), []),
        "lstm": (network(kbptt.LSTM(12, **chrono, name="rnn")), data(), [clip]),
        "per timestep": (network(lstm), data(per_timestep=True), []),
    }
