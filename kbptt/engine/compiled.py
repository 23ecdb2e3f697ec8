"""Compiling the loops with XLA.

A time loop of small operations spends its time in dispatching them. XLA turns the body of the loop
into a handful of kernels and updates the stored history in place. On a CPU Keras leaves XLA off for
the train step; a compiled function inside an ordinary train function works, and is what makes the
engine fast.
"""

import contextlib
import functools
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any

import tensorflow as tf

from kbptt import _tensorflow

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


# TensorFlow shows the name of a resource that it cannot save, and TFLite that of an operation that
# it does not know; both allow letters, digits and a few signs.
UNSAVABLE = (
    "kbptt_traced_its_C_loops__which_no_saved_model_can_hold__"
    "Trace_this_function_inside_kbptt.engine.native.disabled"
)


def refuse_saving() -> None:
    """Makes `tf.saved_model.save` of the graph that is being traced fail, naming `UNSAVABLE`.

    A call into Python would be written down without a word and run in no other process. A graph
    that has captured a resource which belongs to no object is refused by TensorFlow.
    """
    graph = _tensorflow.traced_graph()
    if isinstance(graph, _tensorflow.FuncGraph):
        graph.capture(_unsaved_resource())


@functools.cache
def _unsaved_resource() -> tf.Tensor:
    with tf.init_scope(), tf.device("CPU:0"):
        return tf.raw_ops.VarHandleOp(dtype=tf.int32, shape=[], shared_name=UNSAVABLE)


class Compiled:
    """`function` as a graph, compiled by XLA if `jit`.

    Without XLA the same graph runs operation by operation: for cells whose operations XLA does not
    know.

    Attributes:
        traced: The `tf.function`.
    """

    def __init__(self, function: Callable, jit: bool) -> None:
        # TensorFlow counts traces by code object and would warn of too many where there are many
        # layers. A partial has no code object of its own.
        function = functools.partial(function)
        self.traced = tf.function(
            function, jit_compile=jit or None, autograph=False, reduce_retracing=True
        )

    def __call__(self, *arguments: Any) -> Any:
        # Arguments are captured outside of XLA: inside, the gradient of a `tf.cond` or
        # `tf.while_loop` would capture tensors of its forward pass in another way, and wrongly.
        return self.traced(*in_this_graph(arguments))


def in_this_graph(structure: Any) -> Any:
    """The nested tensors as tensors of the graph that is being traced.

    The gradient of a `tf.cond` or `tf.while_loop` is a graph of its own, to which the tensors of
    the forward pass are foreign: a tape that watches one sees nothing.
    """
    if tf.executing_eagerly():
        return structure
    return tf.nest.map_structure(lambda v: tf.identity(v) if tf.is_tensor(v) else v, structure)


def write(buffer: tf.Tensor, value: tf.Tensor, index: list, jit: bool) -> tf.Tensor:
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
