"""What kbptt needs of TensorFlow that has no public name, each with its reason. Checked on 2.21."""

import tensorflow as tf

# `tf.raw_ops` leaves XLA's operations out, and the public ways to write one slice of a tensor
# inside a loop (`tf.TensorArray`, `tf.tensor_scatter_nd_update`) either fix the layout of the
# history or compile to a loop of their own. This module has been in TensorFlow since 1.14.
from tensorflow.compiler.tf2xla.python.xla import dynamic_update_slice as dynamic_update_slice

# What a `tf.function` is traced into.
from tensorflow.python.framework.func_graph import FuncGraph as FuncGraph

# Says whether XLA compiles what is being traced.
from tensorflow.python.ops import control_flow_util

# What graph a branch or a loop body is traced into.
from tensorflow.python.ops.control_flow_v2_func_graphs import (
    CondBranchFuncGraph,
    WhileBodyFuncGraph,
)

# Says whether what is being traced goes into a SavedModel.
from tensorflow.python.saved_model import save_context


def is_being_exported() -> bool:
    """Whether `function`s are being traced for a SavedModel, which can hold no side effects."""
    return save_context.in_save_context()


def is_being_compiled() -> bool:
    """Whether XLA is to compile the graph that is being traced."""
    graph = traced_graph()
    return graph is not None and control_flow_util.GraphOrParentsInXlaContext(graph)


def traced_graph() -> tf.Graph | None:
    """The graph that is being traced, None when run eagerly."""
    return None if tf.executing_eagerly() else tf.compat.v1.get_default_graph()


def is_branch_or_body(graph: tf.Graph | None) -> bool:
    """Whether a graph is that of a branch or of a loop body."""
    return isinstance(graph, (CondBranchFuncGraph, WhileBodyFuncGraph))


def is_body(graph: tf.Graph) -> bool:
    """Whether a graph is that of a loop body."""
    return isinstance(graph, WhileBodyFuncGraph)
