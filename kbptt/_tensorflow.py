"""What kbptt uses of TensorFlow without a public name, each with its reason."""

import tensorflow as tf

from kbptt._fence import Fence

_fence = Fence("tensorflow", checked="2.21.0")

with _fence.importing():
    # `tf.raw_ops` leaves XLA's operations out, and the public ways to write one slice of a tensor
    # inside a loop (`tf.TensorArray`, `tf.tensor_scatter_nd_update`) either fix the layout of the
    # history or compile to a loop of their own. This module has been in TensorFlow since 1.14.
    from tensorflow.compiler.tf2xla.python.xla import (
        dynamic_update_slice as dynamic_update_slice,
    )

    # Whether a tape watches a tensor. `tf.GradientTape` tells what it watches of variables alone.
    from tensorflow.python.eager.record import should_record_backprop

    # The graph that a `tf.function` is traced into.
    from tensorflow.python.framework.func_graph import FuncGraph as FuncGraph

    # Whether XLA compiles what is being traced.
    from tensorflow.python.ops.control_flow_util import GraphOrParentsInXlaContext

    # The graphs that a branch and a loop body are traced into.
    from tensorflow.python.ops.control_flow_v2_func_graphs import (
        CondBranchFuncGraph,
        WhileBodyFuncGraph,
    )

    # Whether what is being traced goes into a SavedModel.
    from tensorflow.python.saved_model.save_context import in_save_context


def is_being_exported() -> bool:
    """Whether `function`s are being traced for a SavedModel, which can hold no side effects."""
    return in_save_context()


def is_being_compiled() -> bool:
    """Whether XLA is to compile the graph that is being traced."""
    graph = traced_graph()
    return graph is not None and GraphOrParentsInXlaContext(graph)


def is_watched(tensors: list[tf.Tensor]) -> bool:
    """Whether a tape that records at present watches one of them, when run eagerly."""
    return should_record_backprop(tensors)


def traced_graph() -> tf.Graph | None:
    """The graph that is being traced, None when run eagerly."""
    return None if tf.executing_eagerly() else tf.compat.v1.get_default_graph()


def is_branch_or_body(graph: tf.Graph | None) -> bool:
    """Whether a graph is that of a branch or of a loop body."""
    return isinstance(graph, (CondBranchFuncGraph, WhileBodyFuncGraph))


def is_body(graph: tf.Graph) -> bool:
    """Whether a graph is that of a loop body."""
    return isinstance(graph, WhileBodyFuncGraph)


def _no_merge_call() -> bool:
    distribute = _fence.get(_fence.get(tf, "__internal__"), "distribute")
    return _fence.get(distribute, "strategy_supports_no_merge_call")()


def replicas_merge() -> bool:
    """Whether replicas run in threads that must meet before they update a variable.

    The public `ReplicaContext.merge_call` fails under a strategy that has no such threads.
    """
    return tf.distribute.has_strategy() and not _no_merge_call()
