"""Finds recurrent layers in a model: the only walk over a model that looks for them."""

from typing import Any

import keras

from kbptt import _keras


def recurrent_layers(model: keras.Layer) -> list[keras.layers.RNN]:
    """All recurrent layers of a model at any depth, those inside wrappers included."""
    return [one for one in _keras.flatten_layers(model) if isinstance(one, keras.layers.RNN)]


def layers_with_norms(model: keras.Layer) -> list[keras.Layer]:
    """The layers that have `gradient_norms`: kbptt's, and a user's own."""
    return [one for one in _keras.flatten_layers(model) if hasattr(type(one), "gradient_norms")]


def top_level_layers(model: keras.Model) -> list[keras.layers.RNN]:
    """The recurrent layers that a functional or Sequential model calls itself."""
    return [one for one in model.layers if isinstance(one, keras.layers.RNN)]


def truncated_layers(model: keras.Layer) -> list[Any]:
    """The recurrent kbptt layers."""
    return [one for one in recurrent_layers(model) if hasattr(one, "recording_lags")]


def choose_layers(model: keras.Model, layer: Any = None) -> list[Any]:
    """The recurrent kbptt layer of that name, or that layer; all of them for None.

    Raises:
        ValueError: If the model has none, or has none of that name.
    """
    layers = truncated_layers(model)
    if not layers:
        raise ValueError(
            f"Model {model.name!r} has no recurrent kbptt layer. Use kbptt.LSTM, kbptt.GRU, "
            "kbptt.SimpleRNN or kbptt.RNN, or kbptt.convert(model)."
        )
    if layer is None:
        return layers
    chosen = [one for one in layers if one is layer or one.name == layer]
    if not chosen:
        names = ", ".join(repr(one.name) for one in layers)
        raise ValueError(
            f"Invalid value for argument `layer`. Expected one of {names}, or the layer itself. "
            f"Received: layer={layer!r}."
        )
    return chosen


def all_layers(model: keras.Layer) -> list[keras.Layer]:
    """The model and all layers in it, at any depth."""
    return _keras.flatten_layers(model)


def contains(model: keras.Layer, layer: keras.Layer) -> bool:
    """Whether `layer` is the model or somewhere inside it."""
    return any(one is layer for one in _keras.flatten_layers(model))
