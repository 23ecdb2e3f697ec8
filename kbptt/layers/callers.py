"""Which compiled models were traced with the options of a layer, to be traced again."""

import functools
import gc
import weakref
from typing import Any

import keras
import tensorflow as tf

from kbptt import _keras
from kbptt.layers import find


class Callers:
    """Keeps what has called a layer: Keras has no reference from a layer to its models."""

    def __init__(self) -> None:
        self._entries: weakref.WeakSet[keras.layers.Layer] = weakref.WeakSet()

    def note(self) -> None:
        """Called in every call of the layer."""
        if not tf.executing_eagerly() and not _keras.is_symbolic():
            entry = _keras.entry_layer()
            if entry is not None:  # not by the way of `call` alone
                self._entries.add(entry)

    def retrace(self, layer: keras.layers.Layer, forward: bool = False) -> None:
        """Makes the next training step of every model with `layer` trace it again.

        Args:
            layer: The layer, whose options have changed.
            forward: Whether its outputs are others too, so that those of `evaluate` and `predict`
                have to be traced again as well.
        """
        kinds = ("train", "test", "predict") if forward else ("train",)
        is_traced = functools.partial(_is_traced, kinds=kinds)
        models = set(filter(is_traced, self._entries))
        if len(models) < len(self._entries):
            # Called by a `train_step` of the user's own, which Keras does not show: from the model
            # on, not from the layer. Slow, but options change rarely.
            models |= {m for m in gc.get_objects() if is_traced(m) and find.contains(m, layer)}
        for model in models:
            for kind in kinds:
                if getattr(model, f"{kind}_function") is not None:
                    getattr(model, f"make_{kind}_function")(force=True)


def _is_traced(model: Any, kinds: tuple[str, ...]) -> bool:
    # Not by `isinstance`, which would wake up the lazy ones among all objects.
    if not issubclass(type(model), keras.Model):
        return False
    return any(getattr(model, f"{kind}_function") is not None for kind in kinds)
