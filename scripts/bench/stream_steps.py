"""Epochs of training on one long sequence, window after window with the state carried on.

An epoch is `WINDOWS` windows of `timesteps` steps, in all variants; `make` of a library names them.
"""

# PyTorch is an optional peer: the types are checked with it or without.
# pyright: reportMissingImports=false

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from .cores import cores
from .pacing import paced
from .sizes import Size

WINDOWS = 20
FOREVER = 1_000_000  # epochs
Options = dict[str, str]


def sequence(size: Size) -> tuple[Any, Any]:
    """Inputs and targets of all rows, one row after the other: an epoch, but for half a window.

    So that random offsets take as many windows as none.
    """
    rng = np.random.default_rng(0)
    steps = size.batch * (size.timesteps * WINDOWS - size.timesteps // 2)
    if size.words:
        words = rng.integers(size.words, size=steps + 1, dtype="int32")
        return words[:-1], words[1:]
    x = rng.normal(size=(steps, size.features)).astype("float32")
    return x, rng.normal(size=(steps, 1)).astype("float32")


def by_hand(size: Size) -> tuple[Any, Any]:
    """The same, divided into rows and windows: two arrays ``(windows, rows, timesteps, …)``."""

    def divide(array: Any) -> Any:
        rows = array.reshape(size.batch, -1, *array.shape[1:])
        padding = WINDOWS * size.timesteps - rows.shape[1]
        rows = np.concatenate([rows, rows[:, :padding]], axis=1)
        shape = (size.batch, WINDOWS, size.timesteps, *array.shape[1:])
        return np.ascontiguousarray(rows.reshape(shape).swapaxes(0, 1))

    x, y = map(divide, sequence(size))
    return x, y


# Keras and kbptt ----------------------------------------------------------------------------------


def stateful(options: Options, size: Size, model: Any) -> Callable[[], object]:
    """An epoch of `fit` as users write it without kbptt: windows in order, a reset before each."""
    import keras

    x, y = (array.reshape(-1, *array.shape[2:]) for array in by_hand(size))
    layers = [layer for layer in model.layers if getattr(layer, "stateful", False)]

    def reset(epoch: int, logs: Any = None) -> None:
        for layer in layers:
            layer.reset_state()

    def fit(gate: Any) -> None:
        callbacks = [gate, keras.callbacks.LambdaCallback(on_epoch_begin=reset)]
        arguments = {"batch_size": size.batch, "shuffle": False, "epochs": FOREVER}
        with warnings.catch_warnings():
            # kbptt's layers warn of epochs without a reset, and do not see the callback.
            warnings.filterwarnings("ignore", message="Layer .* is stateful, and `fit`")
            model.fit(x, y, verbose=0, callbacks=callbacks, **arguments)

    return paced(fit, "on_epoch_begin")


def streams(size: Size) -> Any:
    """The sequence as `kbptt.data.Streams`."""
    import kbptt

    x, y = sequence(size)
    data = kbptt.data.Streams(x, y, size.timesteps, size.batch, target=None)
    if len(data) != WINDOWS:
        raise SystemExit(f"An epoch has {len(data)} windows, not {WINDOWS}.")
    return data


def stream(options: Options, size: Size, model: Any) -> Callable[[], object]:
    """An epoch of `fit` on `Streams` with `StreamState`."""
    import kbptt

    data = streams(size)

    def fit(gate: Any) -> None:
        callbacks = [gate, kbptt.callbacks.StreamState(data)]
        model.fit(data, epochs=FOREVER, verbose=0, callbacks=callbacks)

    return paced(fit, "on_epoch_begin")


def windows(options: Options, size: Size, model: Any) -> Callable[[], object]:
    """The windows of an epoch alone, drawn and sliced."""
    data = streams(size)

    def step() -> None:
        for _ in data.get_numpy_iterator():
            pass

    step()
    return step


MODES = {"stateful": stateful, "stream": stream, "windows": windows}

# PyTorch ------------------------------------------------------------------------------------------


def torch_epoch(
    size: Size, major: bool, forward: Callable[..., Any], loss: Callable[..., Any], optimizer: Any
) -> Callable[[], object]:
    """An epoch in PyTorch: the state detached, and an update after every window.

    Args:
        size: The model and its batch.
        major: Whether time comes before the rows.
        forward: Inputs and a state (None: zeros) to outputs and the detached state.
        loss: Outputs and targets to the mean loss.
        optimizer: Its optimizer.
    """
    import torch

    def tensors(array: Any) -> list[Any]:
        array = array.swapaxes(1, 2) if major else array
        array = array.astype("int64") if size.words else array
        return [torch.from_numpy(np.ascontiguousarray(window)) for window in array]

    torch.set_num_threads(cores())
    pairs = list(zip(*map(tensors, by_hand(size)), strict=True))

    def epoch() -> float:
        state, total = None, torch.zeros([])
        for x, y in pairs:
            optimizer.zero_grad()
            outputs, state = forward(x, state)
            mean = loss(outputs, y)
            mean.backward()
            optimizer.step()
            total += mean.detach()
        return float(total)

    epoch()
    return epoch
