"""Variables that a backward pass reads and writes, wherever the layer is in a graph.

The gradient of a `tf.cond` or `tf.while_loop` is a graph of its own, in which a variable cannot be
touched that the forward graph has not captured, and in which an operation runs only if a result
depends on it. So variables are captured in the forward pass, and the gradients are made to wait for
what is assigned.
"""

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from kbptt import _tensorflow


class Captured:
    """A variable for the backward pass to use, captured in the forward pass where it has to be."""

    def __init__(self, variable: tf.Variable, pending: list[tf.Operation]) -> None:
        self.dtype: tf.DType = variable.dtype
        self._variable = variable
        self._pending = pending
        self._captured = None
        # Not elsewhere: a captured variable would be a part of every SavedModel of the graph.
        if _flow():
            self._captured = _tensorflow.traced_graph().capture(variable.handle)

    @property
    def _handle(self) -> tf.Tensor:
        return self._variable.handle if self._captured is None else self._captured

    def read(self) -> tf.Tensor:
        # Not before what was assigned: a gradient graph does not order its operations.
        with tf.control_dependencies(self._pending):
            return tf.raw_ops.ReadVariableOp(resource=self._handle, dtype=self.dtype)

    def assign(self, value: tf.Tensor) -> None:
        value = tf.cast(value, self.dtype)
        operation = tf.raw_ops.AssignVariableOp(resource=self._handle, value=value)
        if operation is not None:  # None when run eagerly
            self._pending.append(operation)

    def check(self, right: Callable[[tf.Tensor], tf.Tensor], message: str) -> None:
        """Lets the backward pass fail with `message` unless `right` is true of the value."""
        self._pending.append(tf.debugging.Assert(tf.reduce_all(right(self.read())), [message]))


class Effects:
    """What the backward pass of one call reads and writes.

    Made in the forward pass.
    """

    def __init__(self) -> None:
        self._pending: list[tf.Operation] = []

    def capture(self, variable: tf.Variable) -> Captured:
        return Captured(variable, self._pending)

    def before(self, tensors: tuple[Any, ...]) -> tuple[Any, ...]:
        """`tensors`, which now come after everything that the backward pass has assigned."""
        if not self._pending:
            return tensors
        with tf.control_dependencies(self._pending):
            tensors = tuple(map(tf.identity, tensors))
        self._pending.clear()
        return tensors


def are_possible() -> bool:
    """Whether a backward pass of what is being traced can use variables.

    TensorFlow cannot differentiate a loop inside a branch or a second loop if the gradient of its
    body uses a variable.
    """
    return not any(map(_tensorflow.is_body, _flow()[:-1]))


def in_control_flow() -> bool:
    """Whether the code is traced into a branch or a loop body, up to the nearest `tf.function`."""
    return _tensorflow.is_branch_or_body(_tensorflow.traced_graph())


def _flow() -> list[Any]:
    """The branches and loop bodies that are being traced, from the innermost on."""
    flow = []
    graph = _tensorflow.traced_graph()
    while graph is not None:
        if _tensorflow.is_branch_or_body(graph):
            flow.append(graph)
        graph = getattr(graph, "outer_graph", None)
    return flow
