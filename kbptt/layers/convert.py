"""Converts a Keras model to truncated backpropagation through time."""

import warnings
from typing import Any

import keras

from kbptt.layers import find
from kbptt.layers.gru import GRU
from kbptt.layers.lstm import LSTM
from kbptt.layers.rnn import RNN
from kbptt.layers.simple_rnn import SimpleRNN
from kbptt.truncation import get
from kbptt.truncation.policies import TruncationLike

_REPLACEMENTS = {
    getattr(keras.layers, layer.__name__): layer for layer in (SimpleRNN, GRU, LSTM, RNN)
}


def convert(model: keras.Model, truncation: TruncationLike = None) -> keras.Model:
    """Returns a copy of `model` with Keras RNN layers replaced by kbptt layers, keeping the
    weights.

    Layers inside `Bidirectional` and `TimeDistributed`, shared layers and nested models are
    converted as well. Outputs are unchanged. kbptt layers in the model, including those inside
    custom layers, get the new truncation.

    Args:
        model: A built `keras.Sequential` or functional model.
        truncation: See `kbptt.LSTM`. Defaults to `None`, full BPTT.

    Returns:
        A new, uncompiled model.

    Warns:
        UserWarning: If a layer is not converted because it subclasses a Keras RNN layer.

    Raises:
        ValueError: If the model is subclassed, not built, or has no recurrent layer to convert.
    """
    if not isinstance(model, (keras.Sequential, keras.Model)) or not (
        isinstance(model, keras.Sequential) or hasattr(model, "operations")
    ):
        raise ValueError(
            "kbptt.convert expected a Sequential or functional model, whose layers it can replace. "
            f"Received: {type(model).__name__}. In a subclassed model, replace keras.layers.LSTM "
            "by kbptt.LSTM yourself."
        )
    if not model.built:
        raise ValueError(
            "kbptt.convert expected a built model, since it copies the weights. Build it first, "
            "for instance by starting it with keras.Input(...)."
        )
    truncation = get(truncation)
    result = keras.models.clone_model(model, clone_function=_clone, recursive=False)
    converted = find.truncated_layers(result)
    if not converted:
        raise ValueError(
            "kbptt.convert found no SimpleRNN, GRU, LSTM or RNN layer in the model. "
            f"Received layers: {[layer.name for layer in model.layers]}."
        )
    for layer in converted:
        layer.truncation = truncation
    result.set_weights(model.get_weights())
    for source, target in zip(model.layers, result.layers, strict=True):
        target.trainable = source.trainable
    return result


def _clone(layer: Any) -> Any:
    kind = _REPLACEMENTS.get(type(layer), type(layer))
    if isinstance(layer, keras.Model):
        return keras.models.clone_model(layer, clone_function=_clone)
    config = layer.get_config()
    if isinstance(layer, keras.layers.Bidirectional):  # which is no `Wrapper`
        config.pop("layer", None)
        config["backward_layer"] = _clone(layer.backward_layer)
        return kind(_clone(layer.forward_layer), **config)
    if isinstance(layer, keras.layers.Wrapper):
        config.pop("layer", None)
        return kind(_clone(layer.layer), **config)
    if isinstance(layer, keras.layers.RNN) and not hasattr(kind, "gradient_norms"):
        warnings.warn(
            f"kbptt.convert did not convert '{layer.name}': {kind.__name__} subclasses "
            "keras.layers.RNN and may override its behaviour.",
            stacklevel=2,
        )
    return kind.from_config(config)
