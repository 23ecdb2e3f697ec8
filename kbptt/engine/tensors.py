"""Small operations on tensors and tuples of tensors that the loops share."""

import functools
from typing import Any

import tensorflow as tf

from kbptt import _tensorflow
from kbptt.cells.base import Tensors


def size(tensor: tf.Tensor, axis: int) -> int | tf.Tensor:
    """The static size of an axis if known, else the dynamic one."""
    static = tensor.shape[axis]
    return tf.shape(tensor)[axis] if static is None else static


def select(condition: tf.Tensor, yes: Tensors, no: Tensors) -> Tensors:
    """`tf.where` of two tuples."""
    return tuple(tf.where(condition, a, b) for a, b in zip(yes, no, strict=True))


def in_this_graph(structure: Any) -> Any:
    """The nested tensors as tensors of the graph that is being traced.

    The gradient of a `tf.cond` or `tf.while_loop` is a graph of its own, to which the tensors of
    the forward pass are foreign: a tape that watches one sees nothing.
    """
    if tf.executing_eagerly():
        return structure
    return tf.nest.map_structure(lambda v: tf.identity(v) if tf.is_tensor(v) else v, structure)


def write(buffer: tf.Tensor, value: tf.Tensor, index: list[Any], jit: bool) -> tf.Tensor:
    """`buffer` with `value` written at `index`, in place where it is carried by a loop.

    Args:
        buffer: Tensor.
        value: Tensor of the same rank.
        index: One integer or scalar tensor per axis: where the first element goes.
        jit: Whether the code is compiled by XLA.
    """
    if jit:
        return _tensorflow.dynamic_update_slice(
            buffer, value, tf.stack([tf.cast(i, tf.int32) for i in index])
        )
    shape = tf.shape(value)
    axes = [tf.cast(i, tf.int32) + tf.range(shape[axis]) for axis, i in enumerate(index[:2])]
    where = tf.stack(tf.meshgrid(*axes, indexing="ij"), axis=-1)
    return tf.tensor_scatter_nd_update(buffer, where, value)


def norm_per_sample(gradient: tf.Tensor) -> tf.Tensor:
    """‖·‖₂ over the last axis, as float32.

    Computed in float64, whose squares neither underflow nor overflow: a gradient that has vanished
    to 1e-30 must not be shown as an exact 0.
    """
    gradient = tf.cast(gradient, tf.float64)
    # A product with ones is a vectorized sum; XLA's own reduction over a row is not, on a CPU.
    ones = tf.ones([size(gradient, -1), 1], tf.float64)
    return tf.cast(tf.sqrt(tf.matmul(gradient * gradient, ones)[..., 0]), tf.float32)


def clip(gradient: Tensors, bound: float | tf.Tensor, by_norm: bool) -> Tensors:
    """The gradient of the states with every element in ±bound, or with every row's norm below it.

    Args:
        gradient: Each ``(rows, width)``. A row's norm is that of all its states together.
        bound: Number, or ``(rows, 1)``.
        by_norm: Whether norms are bounded.
    """
    if not by_norm:
        return tuple(tf.clip_by_value(d, -bound, bound) for d in gradient)
    # The norm relative to the largest element, whose square could overflow; one that is infinite
    # counts as the largest number there is.
    largest = gradient[0].dtype.max
    finite = [tf.clip_by_value(d, -largest, largest) for d in gradient]
    tops = [tf.reduce_max(tf.abs(d), axis=-1, keepdims=True) for d in finite]
    top = functools.reduce(tf.maximum, tops)
    safe = tf.where(top > 0, top, tf.ones_like(top))
    directions = [d / safe for d in finite]
    squares = [tf.reduce_sum(d * d, axis=-1, keepdims=True) for d in directions]
    norm = tf.sqrt(tf.add_n(squares))  # between 1 and the root of the number of elements
    clips = norm > bound / safe
    return tuple(
        tf.where(clips, direction * (bound / norm), d)
        for direction, d in zip(directions, gradient, strict=True)
    )


def diagonals(kernel: tf.Tensor) -> tf.Tensor:
    """The diagonals of the gates' blocks of a recurrent kernel ``(units, gates·units)``."""
    units = kernel.shape[0]
    blocks = tf.reshape(kernel, [units, -1, units])
    return tf.reshape(tf.linalg.diag_part(tf.transpose(blocks, [1, 0, 2])), [-1])


def sum_of_gates(values: tf.Tensor, units: int, masks: tf.Tensor | None = None) -> tf.Tensor:
    """``(rows, gates·units)``, times `masks` ``(gates, rows, units)``, summed over the gates."""
    by_gate = tf.reshape(values, [tf.shape(values)[0], -1, units])
    if masks is not None:
        by_gate *= tf.transpose(masks, [1, 0, 2])
    return tf.reduce_sum(by_gate, axis=1)
