"""Which compiled models were traced with the options of a layer, to be traced again."""

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

    def retrace(self, layer: keras.layers.Layer) -> None:
        """Makes the next training step of every model with `layer` trace it again."""
        models = set(filter(_is_trained, self._entries))
        if len(models) < len(self._entries):
            # Called by a `train_step` of the user's own, which Keras does not show: from the model
            # on, not from the layer. Slow, but options change rarely.
            models |= {m for m in gc.get_objects() if _is_trained(m) and find.contains(m, layer)}
        for model in models:
            model.make_train_function(force=True)


def _is_trained(model: Any) -> bool:
    # Not by `isinstance`, which would wake up the lazy ones among all objects.
    return issubclass(type(model), keras.Model) and model.train_function is not None
