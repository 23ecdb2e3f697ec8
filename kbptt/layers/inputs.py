"""Checks of what a layer is called with, each with one clear error."""

import warnings
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import tree

from kbptt._tensorflow import is_being_compiled


def as_tensors(*values: Any) -> list[Any]:
    """The values with every variable among them, however nested, replaced by its value."""

    def tensor(value):
        value = value.value if isinstance(value, keras.Variable) else value
        return tf.convert_to_tensor(value) if isinstance(value, tf.Variable) else value

    return [None if v is None else tree.map_structure(tensor, v) for v in values]


def check_sequences(layer: str, sequences: Any) -> None:
    """Checks that `sequences` is dense, ``(batch, timesteps, features)``, timesteps at least 1."""
    if isinstance(sequences, tf.RaggedTensor):
        raise ValueError(
            f"Layer '{layer}' expected a dense tensor. Received a RaggedTensor. Pad it with "
            "`sequences.to_tensor()` and pass a mask."
        )
    check_shape(layer, tuple(sequences.shape))


def check_shape(layer: str, shape: tuple[Any, ...]) -> None:
    if len(shape) < 3 or shape[1] == 0:
        raise ValueError(
            f"Layer '{layer}' expected sequences of shape (batch, timesteps, features) "
            f"with at least one timestep. Received shape {shape}."
        )


def check_by_timestep(layer: str, name: str, value: Any, shape: tuple[Any, ...]) -> None:
    """Checks that `value` is None or of shape ``(batch, timesteps)``, the start of `shape`."""
    value = value[0] if isinstance(value, (list, tuple)) and value else value
    if value is None:
        return
    known = _shape_of(value)
    if (
        known is None
        or len(known) != 2
        or any(
            a is not None and b is not None and a != b
            for a, b in zip(known, shape[:2], strict=True)
        )
    ):
        raise ValueError(
            f"Layer '{layer}' expected `{name}` of shape (batch, timesteps) = {shape[:2]}. "
            f"Received {_describe(value)}."
        )


def check_initial_state(layer: str, state: Any, widths: list[int], batch: int | None) -> None:
    """Checks that `state` is None or one tensor ``(batch, width)`` for each of `widths`."""
    if state is None:
        return
    given = tree.flatten(state)

    def right(value, width):
        shape = _shape_of(value)
        return (
            shape is not None
            and len(shape) == 2
            and shape[1] in (None, width)
            and (shape[0] is None or batch is None or shape[0] == batch)
        )

    if len(given) != len(widths) or not all(map(right, given, widths)):
        raise ValueError(
            f"Layer '{layer}' expected `initial_state` of {len(widths)} tensor(s) of shape "
            f"(batch, units) = {[(batch, w) for w in widths]}. Received "
            f"{len(given)}: {', '.join(map(_describe, given[:8]))}{', …' * (len(given) > 8)}."
        )


def check_burn_in(layer: str, burn_in: int, shape: tuple[Any, ...]) -> None:
    """Checks that `burn_in` leaves a timestep of sequences of that shape."""
    if burn_in and shape[1] is not None and burn_in >= shape[1]:
        raise ValueError(
            f"Layer '{layer}' expected `burn_in` below the number of timesteps, {shape[1]}. "
            f"Received: burn_in={burn_in}."
        )


def check_batch(layer: str, sequences: Any, expected: int) -> Any:
    """Returns `sequences`, whose batch is that of a stateful layer's states; or raises.

    Where the batch is known only when the graph runs, nothing downstream runs before the check.
    """
    message = f"Layer '{layer}' is stateful: the batch size must stay the same, {expected}."
    batch = sequences.shape[0]
    if batch is None and not isinstance(sequences, keras.KerasTensor):
        if is_being_compiled():
            # XLA has no assertions, but checks shapes.
            name = "stateful__the_batch_size_must_stay_the_same"
            return tf.ensure_shape(sequences, [expected, *sequences.shape[1:]], name=name)
        right = tf.debugging.assert_equal(tf.shape(sequences)[0], expected, message=message)
        with tf.control_dependencies([right]):
            return tf.identity(sequences)
    if batch not in (None, expected):
        raise ValueError(f"{message} Received a batch of {batch}.")
    return sequences


def check_fit(layer: str, arguments: dict[str, Any]) -> None:
    """Looks at what a `fit` with these arguments makes of arrays for a stateful layer.

    Raises:
        ValueError: If the last batch is smaller than the others.

    Warns:
        UserWarning: If batches are shuffled, or epochs follow each other without a reset.
    """
    samples, batch_size = _samples(arguments["x"]), arguments["batch_size"] or 32
    validation = arguments.get("validation_data")
    validation = _samples(validation[0] if isinstance(validation, (list, tuple)) else validation)
    if (arguments.get("steps_per_epoch") or samples) * batch_size > samples:
        _check_last(layer, samples, batch_size)
    if not arguments.get("validation_steps"):
        _check_last(layer, validation, arguments.get("validation_batch_size") or batch_size)
    if not samples:
        return
    wrong = []
    if arguments["shuffle"] is not False and samples > batch_size:
        wrong.append("shuffles the batches between which its states are carried")
    if arguments["epochs"] > 1:
        wrong.append("starts every epoch from the last states of the previous one")
    if wrong:
        warnings.warn(
            f"Layer '{layer}' is stateful, and `fit` {' and '.join(wrong)}. Train on "
            "kbptt.data.Streams with kbptt.callbacks.StreamState, which keep the order and reset "
            "the states where a sequence begins.",
            stacklevel=2,
        )


def _samples(x: Any) -> int:
    """How many samples arrays have; 0 if they are no arrays."""
    arrays = tree.flatten(x)
    if not arrays or not all(isinstance(a, np.ndarray) or tf.is_tensor(a) for a in arrays):
        return 0
    return len(arrays[0])


def _check_last(layer: str, samples: int, batch_size: int) -> None:
    if samples % batch_size:
        raise ValueError(
            f"Layer '{layer}' is stateful: the batch size must stay the same, {batch_size}. With "
            f"{samples} samples, the last batch has {samples % batch_size}: "
            "drop these, or train on kbptt.data.Streams."
        )


def _shape_of(value: Any) -> tuple | None:
    shape = getattr(value, "shape", None)
    return None if shape is None or not hasattr(value, "dtype") else tuple(shape)


def _describe(value: Any) -> str:
    shape = _shape_of(value)
    if shape is not None:
        return f"shape {shape}"
    text = repr(value)
    return f"{text if len(text) <= 40 else text[:39] + '…'} (of type {type(value).__name__})"
