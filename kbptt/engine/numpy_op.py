"""A NumPy function as an operation that knows which of its results are read."""

import functools
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from kbptt._tensorflow import FuncGraph


def numpy_op(
    function: Callable[..., list[np.ndarray]],
    inputs: Sequence[tf.Tensor],
    kinds: Sequence[tf.DType],
    read: Sequence[bool],
    name: str,
) -> list[tf.Tensor]:
    """Calls `function` with arrays, now or whenever the graph that is being traced runs.

    A graph is complete when it runs for the first time: only then is it known which results lead
    anywhere. A gradient function gives every gradient, and most models have no use for that of
    their data.

    Args:
        function: Called with a tuple of booleans, whether each result is read, and the arrays.
            Returns the results; those that are not read may be of any shape.
        inputs: Tensors.
        kinds: Dtypes of the results.
        read: Which results are read when run eagerly.
        name: Of the operation in a graph.
    """
    if tf.executing_eagerly():
        # As `tf.numpy_function` does, but without copies.
        buffers: Sequence[Any] = inputs
        results = function(tuple(read), *(np.asarray(memoryview(b)) for b in buffers))
        return [tf.convert_to_tensor(r) for r in results]
    place = _Place()
    results = tf.numpy_function(
        functools.partial(_call, place, function), inputs, kinds, stateful=False, name=name
    )
    place.set(results)
    return results


class _Place:
    """Where an operation stands in a graph. It must not keep the graph, which keeps it."""

    def set(self, results: Sequence[tf.Tensor]) -> None:
        self.graph = weakref.ref(results[0].graph)
        self.operation: str = results[0].op.name
        self.count = len(results)
        self.found: dict[tuple[int, int], tuple[bool, ...]] = {}

    def read(self) -> tuple[bool, ...]:
        """Whether each result is read. A function that has run gets more outputs when it is called
        under a tape for the first time: what its gradient reads."""
        graph = self.graph()
        if not isinstance(graph, FuncGraph):  # it may still grow; or it is gone, and this is a copy
            return (True,) * self.count
        known = len(graph.outputs), len(graph.control_outputs)
        if known not in self.found:
            outputs = graph.get_operation_by_name(self.operation).outputs
            ends = {id(t) for t in graph.outputs} | {id(op) for op in graph.control_outputs}
            self.found[known] = tuple(_is_read(output, ends) for output in outputs)
        return self.found[known]


def _call(place: _Place, function: Callable[..., list[np.ndarray]], *arrays: np.ndarray):
    return function(place.read(), *arrays)


def _is_read(tensor: tf.Tensor, ends: set[int]) -> bool:
    """Whether a tensor leads to an output of its graph or to an operation with an effect."""
    seen, ahead = set(), [tensor]
    while ahead:
        tensor = ahead.pop()
        if id(tensor) in ends:
            return True
        for op in tensor.consumers():
            if id(op) in ends or op.op_def.is_stateful or not op.outputs:
                return True
            through = op.outputs
            if op.type == "IdentityN":
                # Of `tf.custom_gradient`: each result is that of one input.
                through = [o for i, o in zip(op.inputs, op.outputs, strict=True) if i is tensor]
            ahead += [o for o in through if id(o) not in seen]
            seen |= {id(o) for o in through}
    return False
