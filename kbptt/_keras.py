"""What kbptt uses of Keras without a public name, each with its reason.

Checked on Keras 3.15.
"""

import contextlib
from collections.abc import Iterator
from typing import Any

import keras
from keras.src.backend.common import global_state
from keras.src.backend.common.stateless_scope import in_stateless_scope


def entry_layer() -> keras.layers.Layer | None:
    """The outermost layer or model whose call is running, or None.

    A layer whose options change has to find the models that were traced with the old ones.
    """
    context = global_state.get_global_attribute("current_call_ctx")
    return None if context is None else context.entry_layer


def is_symbolic() -> bool:
    """Whether a call only finds out shapes and dtypes."""
    return in_stateless_scope()


def autocast_scope() -> Any:
    """The scope that casts variables when they are read, or None."""
    return global_state.get_global_attribute("autocast_scope")


@contextlib.contextmanager
def autocast(scope: Any) -> Iterator[None]:
    """A scope in which variables are read as inside `scope`; None: as they are.

    A cell is called again in the backward pass, where the scope of its layer is long gone, and its
    weights are to reach the loop unrounded.
    """
    before = autocast_scope()
    global_state.set_global_attribute("autocast_scope", scope)
    try:
        yield
    finally:
        global_state.set_global_attribute("autocast_scope", before)
