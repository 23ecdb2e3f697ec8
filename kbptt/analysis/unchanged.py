"""Measuring on a model that goes on training as if nothing had been measured."""

import contextlib
from collections.abc import Iterator

import keras
import numpy as np

from kbptt.layers import find


@contextlib.contextmanager
def unchanged(model: keras.Model) -> Iterator[None]:
    """A scope after which what forward passes change is as before: states, metrics, seeds."""
    variables = [*model.non_trainable_variables, *model.metrics_variables]
    # The states of stateful layers are not among them.
    for one in find.recurrent_layers(model):
        if hasattr(one, "carried_variables"):
            variables += [*one.carried_variables(), *one.random_states()]
        elif one.stateful:
            variables += [v for v in keras.tree.flatten(one.states) if v is not None]
    saved = [np.array(keras.ops.convert_to_numpy(v)) for v in variables]
    try:
        yield
    finally:
        for variable, value in zip(variables, saved, strict=True):
            variable.assign(value)
