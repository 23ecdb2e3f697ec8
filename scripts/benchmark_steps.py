"""One training step of each variant that `benchmark.py` measures.

A variant is a library and its options: `keras`, `kbptt windowed layernorm`, `torch detach`,
`floor`.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Config:
    """One size of the problem."""

    batch: int
    timesteps: int
    features: int
    units: int
    window: int

    def __str__(self) -> str:
        return f"({self.batch}, {self.timesteps}, {self.features}, {self.units}, {self.window})"


CONFIGS = [
    Config(2, 4096, 16, 64, 64),
    Config(8, 1024, 32, 64, 32),
    Config(32, 512, 32, 128, 64),
    Config(64, 784, 1, 128, 49),
]
CELLS = ["SimpleRNN", "GRU", "LSTM"]


def keras_step(variant: str, cell: str, c: Config) -> Callable[[], object]:
    """A function that does one step of `fit`: forward, backward, Adam."""
    import keras
    import numpy as np
    import tensorflow as tf

    import kbptt

    library, _, options = variant.partition(" ")
    module = keras.layers if library == "keras" else kbptt
    arguments: dict[str, Any] = {"return_sequences": True}
    for option in options.split():
        if option == "windowed":
            arguments["truncation"] = c.window
        elif option.startswith("stride="):
            stride = int(option.removeprefix("stride="))
            arguments["truncation"] = kbptt.truncation.Windowed(c.window, stride)
        elif option == "layernorm":
            arguments["normalization"] = "layer"
        elif option == "omega":
            arguments["gradient_regularizer"] = "vanishing_gradient"
    keras.utils.set_random_seed(0)
    layer = getattr(module, cell)(c.units, **arguments)
    if "unrecorded" in options:
        layer.record_gradient_norms = False
    model = keras.Sequential([keras.Input((c.timesteps, c.features)), layer, keras.layers.Dense(1)])
    model.compile("adam", "mse", jit_compile=False)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(c.batch, c.timesteps, c.features)).astype("float32")
    y = rng.normal(size=(c.batch, c.timesteps, 1)).astype("float32")
    data = tf.data.Dataset.from_tensors((x, y)).repeat()
    model.fit(data, steps_per_epoch=1, shuffle=False, verbose=0)
    batches = iter(data)
    return lambda: model.train_function(batches)


def torch_step(variant: str, cell: str, c: Config) -> Callable[[], object]:
    """The same step in PyTorch: at once, or chunk by chunk with `detach`."""
    import torch

    torch.set_num_threads(os.cpu_count())
    torch.manual_seed(0)
    kind = {"SimpleRNN": torch.nn.RNN, "GRU": torch.nn.GRU, "LSTM": torch.nn.LSTM}[cell]
    rnn = kind(c.features, c.units, batch_first=True)
    head = torch.nn.Linear(c.units, 1)
    optimizer = torch.optim.Adam([*rnn.parameters(), *head.parameters()])
    x = torch.randn(c.batch, c.timesteps, c.features)
    y = torch.randn(c.batch, c.timesteps, 1)
    length = c.timesteps if variant == "torch" else c.window

    def step():
        optimizer.zero_grad()
        state = None
        for start in range(0, c.timesteps, length):
            part = slice(start, start + length)
            output, state = rnn(x[:, part], state)
            error = ((head(output) - y[:, part]) ** 2).sum() / y.numel()
            error.backward()
            state = tuple(s.detach() for s in state) if cell == "LSTM" else state.detach()
        optimizer.step()

    step()
    return step


def floor_step(variant: str, cell: str, c: Config) -> Callable[[], object]:
    """The matrix products of a windowed step alone: what no implementation can go below."""
    import tensorflow as tf

    gates = {"SimpleRNN": 1, "GRU": 3, "LSTM": 4}[cell]
    width, everything = gates * c.units, c.batch * c.timesteps
    state = tf.random.normal([c.batch, c.units])
    rows = tf.random.normal([everything // c.window, width])
    kernel = tf.random.normal([c.units, width])
    history, dz = tf.random.normal([everything, c.units]), tf.random.normal([everything, width])
    x = tf.random.normal([everything, c.features])
    input_kernel = tf.random.normal([c.features, width])

    @tf.function(jit_compile=True)
    def loops(state, rows):
        forward = tf.while_loop(
            lambda t, _: t < c.timesteps,
            lambda t, z: (t + 1, tf.matmul(z[:, : c.units], kernel)),
            (0, tf.matmul(state, kernel)),
        )[1]
        backward = tf.while_loop(
            lambda t, _: t < c.window,
            lambda t, d: (t + 1, tf.tile(tf.matmul(d, kernel, transpose_b=True), [1, gates])),
            (0, rows),
        )[1]
        return forward, backward

    @tf.function
    def products():
        return (
            tf.matmul(x, input_kernel),  # projection
            *loops(state, rows),
            tf.matmul(history, dz, transpose_a=True),  # recurrent kernel
            tf.matmul(x, dz, transpose_a=True),  # input kernel
        )

    products()
    return products


def make_step(variant: str, cell: str, c: Config) -> Callable[[], object]:
    maker = {"torch": torch_step, "floor": floor_step}.get(variant.split()[0], keras_step)
    return maker(variant, cell, c)
