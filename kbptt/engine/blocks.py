"""Time seen as blocks: what lets all windows of a truncated backward pass run side by side.

The window that ends with block b begins in that block, where the losses enter, and goes back
through the `reach` blocks b, b−1, … (see `kbptt.truncation.windows`). Gradients do not cross
windows, so all windows take their j-th step at once: rows of one batch. Full BPTT is one block of
all timesteps; chunks are windows of one block each.

Time that does not divide into blocks is padded in front or behind. A padded timestep behaves like a
masked one: it passes the carried gradient through and contributes nothing.
"""

from typing import Any

import tensorflow as tf

from kbptt.truncation import windows
from kbptt.truncation.windows import Division, Windows


def divide(timesteps: int | tf.Tensor, division: Division) -> Windows:
    """`kbptt.truncation.windows.of`, for a number of timesteps that may be a tensor."""
    if isinstance(timesteps, int):
        return windows.of(timesteps, division)
    return windows.of(timesteps, division, tf.minimum)


class Blocks:
    """Tensors over time as tensors over blocks.

    Args:
        windows: The `Windows`.

    Attributes:
        before: Zero blocks put in front, so that a window that reaches over the start of the
            sequence reads zeros.
        padded: Whether padding can occur (always assumed where T is only known at run time).
    """

    def __init__(self, windows: Windows) -> None:
        self.windows = windows
        self.before: Any = windows.reach - 1
        self._front = windows.front + self.before * windows.stride
        known = isinstance(windows.front, int) and isinstance(windows.back, int)
        self.padded: bool = not known or bool(windows.front or windows.back)
        self._whole = not self.padded and not windows.overlapping

    def split(self, x: tf.Tensor) -> tf.Tensor:
        """``(T, ...)`` as ``(before + count, stride, ...)``."""
        if not self._whole:
            x = tf.pad(x, [[self._front, self.windows.back]] + [[0, 0]] * (len(x.shape) - 1))
        blocks = self.before + self.windows.count
        return tf.reshape(x, tf.concat([[blocks, self.windows.stride], tf.shape(x)[1:]], 0))

    def join(self, x: tf.Tensor) -> tf.Tensor:
        """The inverse of `split`: ``(before + count, stride, ...)`` as ``(T, ...)``."""
        shape = tf.shape(x)
        x = tf.reshape(x, tf.concat([[shape[0] * shape[1]], shape[2:]], 0))
        return x if self._whole else x[self._front : self._front + self.windows.timesteps]

    def real(self) -> tf.Tensor:
        """Boolean ``(before + count, stride)``: False at padded timesteps."""
        return self.split(tf.ones([self.windows.timesteps], tf.bool))
