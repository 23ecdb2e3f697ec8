"""Which layers can carry their states from call to call."""

from typing import Any

import keras
import tensorflow as tf
from keras import tree

from kbptt.layers import find


def carrying_layers(who: str, model: keras.Model) -> list[Any]:
    """The recurrent layers of a model, all of which carry their states on.

    Args:
        who: What carries the states, for the errors.
        model: The model.

    Raises:
        ValueError: If a recurrent layer cannot carry its state on, or there is none.
    """
    found = find.recurrent_layers(model)
    carrying = find.truncated_layers(model)
    backwards = [layer.name for layer in found if layer.go_backwards]
    others = [layer.name for layer in found if layer not in carrying]
    if backwards:
        raise ValueError(
            f"Layer '{backwards[0]}' reads a window from its end (`Bidirectional` or "
            "`go_backwards`) and would need the state of a later window. A stream "
            "needs layers that read forwards."
        )
    if others:
        raise ValueError(
            f"Layer '{others[0]}' is one of Keras's, whose state {who} cannot carry. Replace it "
            "by a layer of kbptt, or convert the model with kbptt.convert(model)."
        )
    return find.choose_layers(model)  # says so if there are none


def check_called_once(who: str, layer: Any, called: bool) -> None:
    """Raises `ValueError` if the step that is running has called `layer` before."""
    if called:
        raise ValueError(
            f"{who} carries one state per row, but layer '{layer.name}' is called "
            "twice by the model. Use two layers, or call the model once per step."
        )


def repeat_before(
    layer: Any, before: tf.Tensor, last: tf.Tensor, outputs: tf.Tensor, mask: Any
) -> tuple[tf.Tensor, tf.Tensor]:
    """What `kbptt.layers.call.Carry.show` returns where `before` is the output before the call."""
    mask = mask[0] if isinstance(mask, (list, tuple)) else mask
    begun = tf.cumsum(tf.cast(mask, tf.int32), axis=1) > 0
    last = tf.where(begun[:, -1:], last, before)
    if layer.return_sequences:
        return last, tf.where(begun[:, :, None], outputs, before[:, None])
    return last, last[:, None]


def output_width(layer: Any) -> int:
    """Units of a layer's output."""
    size = getattr(layer.cell, "output_size", None)
    return tree.flatten(layer.cell.state_size if size is None else size)[0]
