"""What Keras models do, with the layers of `keras.layers` or of kbptt: train, predict, …"""

import ast
import contextlib
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

from . import stream_steps
from .pacing import paced
from .sizes import Size

Options = dict[str, str]
SETTINGS = ("threads", "members", "kept_gates")
BATCHES = 4  # of a `predict` or `evaluate`


def make(options: Options, cell: str, size: Size, library: str = "keras") -> Callable[[], object]:
    """A step of `fit` (forward, backward, Adam), or what the options name in its place.

    Args:
        options: `predict`, `evaluate`, `fit` (through Keras's loop, with a callback), `once` (the
            layer called without a graph) or one of `stream_steps`: in place of the train function
            alone.
            `jit`: `compile(jit_compile=True)`. `windowed`, `stride=…`, `artbp`, `layernorm`,
            `omega`, `unrecorded`: options of kbptt. `threads`, `members`, `kept_gates`: of its
            `kbptt.engine.Settings`. `span`: of `kbptt.engine.plan`. Anything else is an argument of
            the recurrent layers.
        cell: A layer, such as "LSTM", or a cell of `keras_cells.CELLS` for `RNN(cell)`.
        size: The model and its batch.
        library: "keras" for `keras.layers`; else kbptt.
    """
    model = build(options, cell, size, library)
    modes = [mode for name, mode in MODES.items() if name in options]
    with settings(options):
        step = (modes or [train])[0](options, size, model)
    return with_span(step, int(options["span"])) if "span" in options else step


def settings(options: Options) -> contextlib.AbstractContextManager:
    """The scope in which the loops are made."""
    import kbptt

    chosen = {name: int(value) for name, value in options.items() if name in SETTINGS}
    return kbptt.engine.using(**chosen) if chosen else contextlib.nullcontext()


def with_span(step: Callable[[], object], span: int) -> Callable[[], object]:
    """The step where so many timesteps are computed again at a time."""
    from kbptt.engine import plan

    def run():
        with mock.patch.object(plan, "SPAN", span):
            return step()

    return run


# What is measured ---------------------------------------------------------------------------------


def train(options: Options, size: Size, model: Any) -> Callable[[], object]:
    """The train function of `fit` alone."""
    data = dataset(options, size).repeat()
    model.fit(data, steps_per_epoch=1, shuffle=False, verbose=0)
    batches = iter(data)
    return lambda: model.train_function(batches)


def predict(options: Options, size: Size, model: Any) -> Callable[[], object]:
    data = dataset(options, size).map(lambda x, y: x).repeat(BATCHES)
    model.predict(data, verbose=0)
    return lambda: model.predict(data, verbose=0)


def evaluate(options: Options, size: Size, model: Any) -> Callable[[], object]:
    data = dataset(options, size).repeat(BATCHES)
    model.evaluate(data, verbose=0)
    return lambda: model.evaluate(data, verbose=0)


def once(options: Options, size: Size, model: Any) -> Callable[[], object]:
    """The first layer called directly, outside of any graph, as a control loop calls it."""
    import tensorflow as tf

    x, layer = tf.constant(batch(options, size)[0]), model.layers[0]
    layer(x)
    return lambda: layer(x)


def fit(options: Options, size: Size, model: Any) -> Callable[[], object]:
    """One step of a `fit` with a callback.

    The time of a step includes what follows it: the hooks at its end and at the end of an epoch.
    """
    from .keras_callbacks import CALLBACKS, EPOCH

    def run(gate: Any) -> None:
        with tempfile.TemporaryDirectory() as folder:
            callbacks = [gate, *CALLBACKS[options["fit"]](Path(folder))]
            data = dataset(options, size).repeat()
            epochs = {"epochs": 1_000_000, "steps_per_epoch": EPOCH}
            model.fit(data, shuffle=False, verbose=0, callbacks=callbacks, **epochs)

    return paced(run, "on_train_batch_begin")


MODES = {"predict": predict, "evaluate": evaluate, "once": once, "fit": fit, **stream_steps.MODES}

# The model ----------------------------------------------------------------------------------------


def build(options: Options, cell: str, size: Size, library: str) -> Any:
    """The compiled `keras.Model`."""
    import keras

    keras.utils.set_random_seed(0)
    dtype = options.get("dtype", "float32")
    arguments = layer_arguments(options, size)
    shape = (size.batch if arguments.get("stateful") else None, size.timesteps)
    if size.words:
        layers = [keras.Input(batch_shape=shape, dtype="int32")]
        fixed = {"embeddings_initializer": "identity", "trainable": False} if size.one_hot else {}
        layers.append(keras.layers.Embedding(size.words, size.features, dtype=dtype, **fixed))
    else:
        layers = [keras.Input(batch_shape=(*shape, size.features), dtype=dtype)]
    for number in range(1, size.layers + 1):
        sequences = number < size.layers or not size.last
        layer = recurrent(library, cell, size.units, return_sequences=sequences, **arguments)
        if "unrecorded" in options:
            layer.record_gradient_norms = False
        layers.append(keras.layers.Bidirectional(layer) if size.bidirectional else layer)
    layers.append(keras.layers.Dense(size.outputs, dtype=dtype))
    model = keras.Sequential(layers)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True) if size.words else "mse"
    model.compile("adam", loss, jit_compile="jit" in options)
    return model


def recurrent(library: str, cell: str, units: int, **arguments) -> Any:
    """A recurrent layer."""
    import keras

    import kbptt

    from .keras_cells import CELLS

    layers = keras.layers if library == "keras" else kbptt
    if cell in CELLS:
        return layers.RNN(CELLS[cell](units), **arguments)
    return getattr(layers, cell)(units, **arguments)


def layer_arguments(options: Options, size: Size) -> dict[str, Any]:
    """What the options of a variant are for the layer."""
    import kbptt

    arguments: dict[str, Any] = {"stateful": True} if size.stateful else {}
    for name, value in options.items():
        if name == "stateful":
            arguments["stateful"] = True
        elif name == "windowed":
            arguments["truncation"] = size.window
        elif name == "stride":
            arguments["truncation"] = kbptt.truncation.Windowed(size.window, int(value))
        elif name == "artbp":
            arguments["truncation"] = kbptt.truncation.Randomized.artbp(mean_length=size.window)
        elif name == "layernorm":
            arguments["normalization"] = "layer"
        elif name == "rms":
            arguments["normalization"] = "rms"
        elif name == "clip_norm":
            arguments["gradient_clip"] = kbptt.clipping.ByNorm(1.0)
        elif name == "omega":
            arguments["gradient_regularizer"] = "vanishing_gradient"
        elif name not in ("jit", "unrecorded", "span", *SETTINGS, *MODES):
            arguments[name] = value if value.isidentifier() else ast.literal_eval(value)
    return arguments


# Data ---------------------------------------------------------------------------------------------


def dataset(options: Options, size: Size) -> Any:
    """One batch.

    Not tuned by tf.data: the end of an iterator waits for its tuner, which sleeps 10, 20, 40, … ms,
    and would round times up to the sums of these.
    """
    import tensorflow as tf

    untuned = tf.data.Options()
    untuned.autotune.enabled = False
    return tf.data.Dataset.from_tensors(batch(options, size)).with_options(untuned)


def batch(options: Options, size: Size) -> tuple[Any, Any]:
    """Inputs and targets."""
    import numpy as np

    rng, dtype = np.random.default_rng(0), options.get("dtype", "float32")
    shape = (size.batch, size.timesteps)
    if size.words:
        x, y = rng.integers(size.words, size=(2, *shape), dtype="int32")
        return x, y
    x = rng.normal(size=(*shape, size.features)).astype(dtype)
    return x, rng.normal(size=(*(shape[:1] if size.last else shape), 1)).astype(dtype)
