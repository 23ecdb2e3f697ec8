"""Compiling the loops with XLA, and the one operation that has no public TensorFlow name.

A time loop of small operations spends its time in dispatching them. XLA turns the body of the loop
into a handful of kernels and updates the stored history in place. On a CPU Keras leaves XLA off for
the train step; a compiled function inside an ordinary train function works, and is what makes the
engine fast.
"""

import contextlib
import functools
from collections.abc import Callable, Iterator
from contextvars import ContextVar

import tensorflow as tf

# `tf.raw_ops` leaves XLA's operations out, and the public ways to write one slice of a tensor
# inside a loop (`tf.TensorArray`, `tf.tensor_scatter_nd_update`) either fix the layout of the
# history or compile to a loop of their own. This module has been in TensorFlow since 1.14.
from tensorflow.compiler.tf2xla.python import xla

# Say whether XLA compiles what is being traced, and whether it goes into a SavedModel; they have no
# public names either.
from tensorflow.python.ops import control_flow_util
from tensorflow.python.saved_model import save_context

_differentiable: ContextVar[bool] = ContextVar("kbptt_differentiable", default=False)


@contextlib.contextmanager
def differentiable() -> Iterator[None]:
    """A scope in which layers run a loop that TensorFlow differentiates itself.

    The engine's gradient is hand-made and has no gradient of its own. Inside this scope layers give
    the same numbers by an ordinary loop, slower and with more memory, of which gradients of any
    order can be taken: what an exact gradient-norm penalty needs. Sliding windows, which no
    ordinary loop expresses, are refused there.
    """
    token = _differentiable.set(True)
    try:
        yield
    finally:
        _differentiable.reset(token)


def is_differentiable() -> bool:
    """Whether the code runs inside a `differentiable` scope."""
    return _differentiable.get()


def is_being_exported() -> bool:
    """Whether `function`s are being traced for a SavedModel, which can hold no side effects."""
    return save_context.in_save_context()


def is_being_compiled() -> bool:
    """Whether XLA is to compile the graph that is being traced."""
    if tf.executing_eagerly():
        return False
    return control_flow_util.GraphOrParentsInXlaContext(tf.compat.v1.get_default_graph())


def compiled(function: Callable, jit: bool) -> Callable:
    """`function` as a graph, compiled by XLA if `jit`.

    Without XLA the same graph runs operation by operation: for cells whose operations XLA does not
    know.
    """
    # TensorFlow counts traces by code object and would warn of too many where there are many
    # layers. A partial has no code object of its own.
    function = functools.partial(function)
    return tf.function(function, jit_compile=jit or None, autograph=False, reduce_retracing=True)


def write(buffer: tf.Tensor, value: tf.Tensor, index: list, jit: bool) -> tf.Tensor:
    """`buffer` with `value` written at `index`, in place where it is carried by a loop.

    Args:
        buffer: Tensor.
        value: Tensor of the same rank.
        index: One integer or scalar tensor per axis: where the first element goes.
        jit: Whether the code is compiled by XLA.
    """
    if jit:
        return xla.dynamic_update_slice(
            buffer, value, tf.stack([tf.cast(i, tf.int32) for i in index])
        )
    shape = tf.shape(value)
    axes = [tf.cast(i, tf.int32) + tf.range(shape[axis]) for axis, i in enumerate(index[:2])]
    where = tf.stack(tf.meshgrid(*axes, indexing="ij"), axis=-1)
    return tf.tensor_scatter_nd_update(buffer, where, value)
