"""Compiling the loops with XLA.

A time loop of small operations spends its time in dispatching them. XLA turns the body of the loop
into a handful of kernels and updates the stored history in place. On a CPU Keras leaves XLA off for
the train step; a compiled function inside an ordinary train function works, and is what makes the
engine fast.
"""

import functools
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from kbptt import _tensorflow
from kbptt.engine.tensors import in_this_graph

# TensorFlow shows the name of a resource that it cannot save, and TFLite that of an operation that
# it lacks; both allow letters, digits and a few signs.
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

    Without XLA the same graph runs operation by operation: for cells whose operations XLA lacks.

    Attributes:
        traced: The `tf.function`.
    """

    def __init__(self, function: Callable[..., Any], jit: bool) -> None:
        # TensorFlow counts traces by code object and would warn of too many where there are many
        # layers. A partial has no code object of its own.
        function = functools.partial(function)
        self.traced: Any = tf.function(
            function, jit_compile=jit or None, autograph=False, reduce_retracing=True
        )

    def __call__(self, *arguments: Any) -> Any:
        # Arguments are captured outside of XLA: inside, the gradient of a `tf.cond` or
        # `tf.while_loop` would capture tensors of its forward pass differently, and wrongly.
        return self.traced(*in_this_graph(arguments))
