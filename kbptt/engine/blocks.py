"""Time seen as blocks: what lets all windows of a truncated backward pass run side by side.

A window of TBPTT(k1 = stride, k2 = length) ends every `stride` steps. Cut time into blocks of
`stride` steps, counted from the end (or the start). The window that ends with block b begins in
that block, where the losses enter, and goes back through the ``ceil(length / stride)`` blocks
b, b−1, … Gradients do not cross windows, so all windows take their j-th step at once: rows of one
batch. Full BPTT is one block of all timesteps; chunks are windows of one block each.

Time that does not divide into blocks is padded in front or behind. A padded timestep behaves like a
masked one: it passes the carried gradient through and contributes nothing.
"""

from dataclasses import dataclass

import tensorflow as tf

Size = int | tf.Tensor


@dataclass(frozen=True)
class Blocks:
    """The division of `timesteps` into `count` blocks of `stride` steps.

    Attributes:
        timesteps: Number of real timesteps, T.
        stride: Timesteps of a block.
        length: Timesteps that a window reaches back.
        reach: Blocks that a window touches, ``ceil(length / stride)`` where there are so many.
        count: Number of blocks, n.
        front: Padded timesteps before the first real one.
        back: Padded timesteps after the last real one.
        overlapping: Whether a window reaches into the block before its own.
    """

    timesteps: Size
    stride: Size
    length: Size
    reach: Size
    count: Size
    front: Size
    back: Size
    overlapping: bool = False

    @classmethod
    def of(cls, timesteps: Size, length: int | None, stride: int | None, align: str) -> "Blocks":
        if length is None:
            return cls(timesteps, timesteps, timesteps, 1, 1, 0, 0)
        if isinstance(timesteps, int) and length >= timesteps and stride >= timesteps:
            return cls(timesteps, timesteps, timesteps, 1, 1, 0, 0)
        reach = -(-length // stride)
        overlapping = reach > 1
        if not isinstance(timesteps, int):
            # A window may be much longer than a sequence turns out to be.
            stride = tf.minimum(min(stride, tf.int32.max), timesteps)
        count = -(-timesteps // stride)
        padding = count * stride - timesteps
        front, back = (padding, 0) if align == "end" else (0, padding)
        if isinstance(timesteps, int):
            reach = min(reach, count)
            length = min(length, reach * stride)
        else:
            if overlapping:
                reach = tf.minimum(min(reach, tf.int32.max), count)
            length = tf.minimum(min(length, tf.int32.max), reach * stride)
        return cls(timesteps, stride, length, reach, count, front, back, overlapping)

    @property
    def padded(self) -> bool:
        """Whether padding can occur (always assumed where T is only known at run time)."""
        return not (isinstance(self.front, int) and isinstance(self.back, int)) or bool(
            self.front or self.back
        )

    def split(self, x: tf.Tensor, before: int = 0) -> tf.Tensor:
        """``(T, ...)`` as ``(before + n, stride, ...)``, with `before` extra zero blocks in front.

        The extra blocks let a window that reaches over the start of the sequence read zeros.
        """
        front = self.front + before * self.stride
        if self.padded or before:
            x = tf.pad(x, [[front, self.back]] + [[0, 0]] * (len(x.shape) - 1))
        shape = tf.shape(x)
        return tf.reshape(x, tf.concat([[before + self.count, self.stride], shape[1:]], 0))

    def join(self, x: tf.Tensor, before: int = 0) -> tf.Tensor:
        """The inverse of `split`: ``(before + n, stride, ...)`` as ``(T, ...)``."""
        shape = tf.shape(x)
        x = tf.reshape(x, tf.concat([[shape[0] * shape[1]], shape[2:]], 0))
        if self.padded or before:
            front = self.front + before * self.stride
            x = x[front : front + self.timesteps]
        return x

    def real(self, before: int = 0) -> tf.Tensor:
        """Boolean ``(before + n, stride)``: False at padded timesteps."""
        return self.split(tf.ones([self.timesteps], tf.bool), before)
