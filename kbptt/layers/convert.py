"""Turning a Keras model into one with truncated backpropagation through time."""

import warnings
from typing import Any

import keras

from kbptt._typing import TruncationLike
from kbptt.layers.gru import GRU
from kbptt.layers.lstm import LSTM
from kbptt.layers.rnn import RNN
from kbptt.layers.simple_rnn import SimpleRNN
from kbptt.layers.truncated import TruncatedLayer

_REPLACEMENTS = {
    keras.layers.GRU: GRU,
    keras.layers.LSTM: LSTM,
    keras.layers.RNN: RNN,
    keras.layers.SimpleRNN: SimpleRNN,
}


def convert(model: keras.Model, truncation: TruncationLike = None) -> keras.Model:
    """A copy of `model` whose Keras RNN layers are kbptt layers with the same weights.

    Layers inside `Bidirectional` and `TimeDistributed`, shared layers and nested models are
    converted as well. Outputs are unchanged. kbptt layers in the model get the new truncation.

    Args:
        model: A built `keras.Sequential` or functional model.
        truncation: See `kbptt.LSTM`. Defaults to `None`, full BPTT.

    Returns:
        A new, uncompiled model.

    Warns:
        UserWarning: If a subclass of a Keras RNN layer, which may do anything, is left as it is.

    Raises:
        ValueError: If the model is subclassed, not built, or has no recurrent layer to convert.
    """
    if not isinstance(model, (keras.Sequential, keras.Model)) or not (
        isinstance(model, keras.Sequential) or hasattr(model, "operations")
    ):
        raise ValueError(
            "kbptt.convert expected a Sequential or functional model, whose layers it can replace. "
            f"Received: {type(model).__name__}. In a subclassed model write kbptt.LSTM for "
            "keras.layers.LSTM yourself."
        )
    if not model.built:
        raise ValueError(
            "kbptt.convert expected a built model, since it copies the weights. Build it first, "
            "for instance by starting it with keras.Input(...)."
        )
    converted = []

    def clone(layer: keras.layers.Layer) -> keras.layers.Layer:
        return _clone(layer, truncation, converted)

    result = keras.models.clone_model(model, clone_function=clone, recursive=False)
    if not converted:
        raise ValueError(
            "kbptt.convert found no SimpleRNN, GRU, LSTM or RNN layer in the model. "
            f"Received layers: {[layer.name for layer in model.layers]}."
        )
    result.set_weights(model.get_weights())
    for source, target in zip(model.layers, result.layers, strict=True):
        target.trainable = source.trainable
    return result


def _clone(layer: Any, truncation: Any, converted: list) -> Any:
    kind = type(layer)
    if isinstance(layer, TruncatedLayer):
        converted.append(layer.name)
        config = layer.get_config()
        config["truncation"] = truncation
        return kind.from_config(config)
    if kind in _REPLACEMENTS:
        converted.append(layer.name)
        copy = _REPLACEMENTS[kind].from_config(layer.get_config())
        copy.truncation = truncation
        return copy
    if isinstance(layer, keras.layers.Bidirectional):
        config = layer.get_config()
        config.pop("layer", None)
        config.pop("backward_layer", None)
        return kind(
            _clone(layer.forward_layer, truncation, converted),
            backward_layer=_clone(layer.backward_layer, truncation, converted),
            **config,
        )
    if isinstance(layer, keras.layers.Wrapper):
        config = layer.get_config()
        config.pop("layer", None)
        return kind(_clone(layer.layer, truncation, converted), **config)
    if isinstance(layer, keras.Model):
        return keras.models.clone_model(
            layer, clone_function=lambda inner: _clone(inner, truncation, converted)
        )
    if isinstance(layer, keras.layers.RNN):
        warnings.warn(
            f"kbptt.convert left layer '{layer.name}' as it is: it knows what a keras.layers.RNN "
            f"does, and not what its subclass {kind.__name__} does.",
            stacklevel=2,
        )
    return kind.from_config(layer.get_config())
