"""Which layers can carry their states from call to call."""

from typing import Any

import keras

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
            "`go_backwards`) and would need the state of a window that comes later. A stream "
            "needs layers that read forwards."
        )
    if others:
        raise ValueError(
            f"Layer '{others[0]}' is one of Keras's, which {who} cannot carry on. Write it "
            "as a layer of kbptt, or convert the model with kbptt.convert(model)."
        )
    return find.choose_layers(model)  # says so if there are none


def check_called_once(who: str, layer: Any, called: bool) -> None:
    """Raises `ValueError` if the step that is running has called `layer` before."""
    if called:
        raise ValueError(
            f"{who} carries one state for each row on, and layer '{layer.name}' is called "
            "twice by the model. Use two layers."
        )
