"""Training steps of Keras models, with the layers of `keras.layers` or of kbptt."""

from collections.abc import Callable
from typing import Any

from .sizes import Size

# What is no argument of a layer.
FLAGS = ("jit", "unrecorded")


def make(
    options: dict[str, str], cell: str, size: Size, library: str = "keras"
) -> Callable[[], object]:
    """Forward, backward, Adam: one step of `fit`.

    Args:
        options: `jit`: `compile(jit_compile=True)`. `windowed`, `stride=…`, `layernorm`, `omega`,
            `unrecorded`: options of kbptt. Anything else is an argument of the layer.
        cell: "SimpleRNN", "GRU" or "LSTM".
        size: The model and its batch.
        library: "keras" for `keras.layers`; else kbptt.
    """
    import tensorflow as tf

    model = build(options, cell, size, library)
    data = tf.data.Dataset.from_tensors(batch(size)).repeat()
    model.fit(data, steps_per_epoch=1, shuffle=False, verbose=0)
    batches = iter(data)
    return lambda: model.train_function(batches)


def build(options: dict[str, str], cell: str, size: Size, library: str) -> Any:
    """The compiled `keras.Model`."""
    import keras

    import kbptt

    keras.utils.set_random_seed(0)
    layers = keras.layers if library == "keras" else kbptt
    arguments = layer_arguments(options, size)
    shape = (size.batch if size.stateful else None, size.timesteps)
    if size.words:
        model = [keras.Input(batch_shape=shape, dtype="int32")]
        model.append(keras.layers.Embedding(size.words, size.features))
    else:
        model = [keras.Input(batch_shape=(*shape, size.features))]
    for number in range(1, size.layers + 1):
        sequences = number < size.layers or not size.last
        layer = getattr(layers, cell)(size.units, return_sequences=sequences, **arguments)
        if "unrecorded" in options:
            layer.record_gradient_norms = False
        model.append(keras.layers.Bidirectional(layer) if size.bidirectional else layer)
    model.append(keras.layers.Dense(size.outputs))
    model = keras.Sequential(model)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True) if size.words else "mse"
    model.compile("adam", loss, jit_compile="jit" in options)
    return model


def layer_arguments(options: dict[str, str], size: Size) -> dict[str, Any]:
    """What the options of a variant are for the layer."""
    import kbptt

    arguments: dict[str, Any] = {"stateful": True} if size.stateful else {}
    for name, value in options.items():
        if name == "windowed":
            arguments["truncation"] = size.window
        elif name == "stride":
            arguments["truncation"] = kbptt.truncation.Windowed(size.window, int(value))
        elif name == "layernorm":
            arguments["normalization"] = "layer"
        elif name == "omega":
            arguments["gradient_regularizer"] = "vanishing_gradient"
        elif name not in FLAGS:
            raise ValueError(f"unknown option of a variant: {name}")
    return arguments


def batch(size: Size) -> tuple[Any, Any]:
    """Inputs and targets."""
    import numpy as np

    rng = np.random.default_rng(0)
    shape = (size.batch, size.timesteps)
    if size.words:
        x, y = rng.integers(size.words, size=(2, *shape), dtype="int32")
        return x, y
    x = rng.normal(size=(*shape, size.features)).astype("float32")
    return x, rng.normal(size=(*(shape[:1] if size.last else shape), 1)).astype("float32")
