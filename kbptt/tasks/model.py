"""The model that a task is trained with: recurrent layers and a Dense head."""

from typing import TYPE_CHECKING, Any

from kbptt import _checks
from kbptt.cells.names import NAMES, get_cell as get_cell
from kbptt.tasks.base import Task, derive_seed

if TYPE_CHECKING:
    import keras

    from kbptt.truncation.policies import TruncationLike

CELLS = tuple(NAMES)
# Up to this vocabulary tokens are one-hot vectors, and the input kernel is their embedding. Larger
# ones get an Embedding layer, or the input projection would cost more than the recurrence.
MAX_ONE_HOT = 256
INITIALIZERS = {
    "kernel_initializer": "glorot_uniform",
    "recurrent_initializer": "orthogonal",
    "bias_initializer": "zeros",
}


def build_model(
    task: Task,
    cell: str = "LSTM",
    units: int = 64,
    layers: int = 1,
    truncation: "TruncationLike" = None,
    seed: int = 0,
    **layer_arguments: Any,
) -> "keras.Model":
    """Returns an uncompiled model for `task`: input, recurrent layers from kbptt, Dense head.

    The initializers and the dropout of every layer get their own seeds (`derive_seed` of the run's
    seed and the component's name), unless the given initializer already has one.

    Args:
        task: A `Task`.
        cell: "LSTM", "GRU" or "SimpleRNN". Defaults to `"LSTM"`.
        units: Integer. Width of each recurrent layer. Defaults to `64`.
        layers: Integer. Number of recurrent layers. Defaults to `1`.
        truncation: As in the layers: `None`, an integer or a `kbptt.truncation` object. Defaults
            to `None` (full backpropagation through time).
        seed: Non-negative integer. Defaults to `0`.
        **layer_arguments: Further arguments of every recurrent layer, such as
            `recurrent_initializer`, `normalization`, `dropout` or `gradient_clip`.

    Returns:
        A `keras.Model` from `(batch, timesteps, features)`, or `(batch, timesteps)` tokens, to
        `(batch, outputs)` or, for a task that answers at every timestep,
        `(batch, timesteps, outputs)`.
    """
    cell = get_cell(cell)
    units = _checks.positive_integer("units", units)
    layers = _checks.positive_integer("layers", layers)
    import keras

    own = task.recurrent_layer(truncation=truncation, **layer_arguments)
    inputs, x = _inputs(task, units, seed)
    if own is not None:
        return keras.Model(inputs, own(x), name=task.name)
    for index in range(layers):
        last = index == layers - 1
        x = recurrent_layer(
            cell,
            units,
            name=f"{NAMES[cell].module}_{index + 1}",
            seed=seed,
            truncation=truncation,
            return_sequences=task.outputs.per_timestep or not last,
            **layer_arguments,
        )(x)
    head = keras.layers.Dense(
        task.outputs.units,
        activation=task.outputs.activation,
        kernel_initializer=_seeded("glorot_uniform", seed, "head/kernel_initializer"),
        name="head",
    )
    return keras.Model(inputs, head(x), name=task.name)


def recurrent_layer(
    cell: str, units: int, name: str, seed: int, **arguments: Any
) -> "keras.layers.Layer":
    """Returns one seeded recurrent layer of kbptt."""
    import kbptt

    for argument, default in INITIALIZERS.items():
        identifier = arguments.get(argument, default)
        arguments[argument] = _seeded(identifier, seed, f"{name}/{argument}")
    arguments.setdefault("seed", derive_seed(seed, f"{name}/dropout"))
    return getattr(kbptt, cell)(units, name=name, **arguments)


def _inputs(task: Task, units: int, seed: int):
    import keras

    if task.vocabulary is None:
        inputs = keras.Input((task.length, task.features), name="inputs")
        return inputs, inputs
    inputs = keras.Input((task.length,), dtype="int32", name="tokens")
    if task.vocabulary <= MAX_ONE_HOT:
        from kbptt.tasks.keras_objects import OneHot

        return inputs, OneHot(task.vocabulary, name="one_hot")(inputs)
    embedding = keras.layers.Embedding(
        task.vocabulary,
        units,
        embeddings_initializer=_seeded("uniform", seed, "embedding/embeddings_initializer"),
        name="embedding",
    )
    return inputs, embedding(inputs)


def _seeded(identifier: Any, seed: int, name: str):
    """Returns the initializer, with a seed derived from `name` wherever it has none."""
    from kbptt import initializers

    initializer = initializers.get(identifier)
    if not hasattr(initializer, "get_config"):
        return initializer
    config = initializer.get_config()
    return type(initializer).from_config(_fill_seeds(config, derive_seed(seed, name)))


def _fill_seeds(config: Any, seed: int) -> Any:
    """Returns `config` with missing seeds filled in, also in nested initializers."""
    if not isinstance(config, dict):
        return config
    return {
        key: seed if key == "seed" and value is None else _fill_seeds(value, seed)
        for key, value in config.items()
    }
