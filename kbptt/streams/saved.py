"""Steppers as files: SavedModel and LiteRT, which run without kbptt and Keras."""

import os
import pathlib
import re
import tempfile
from collections.abc import Callable
from typing import Any

import tensorflow as tf
from keras import tree

from kbptt._checks import one_of, positive_integer
from kbptt.engine.settings import using
from kbptt.layers import find

SUFFIX = ".tflite"


def export(
    stepper: Any,
    inputs: Any,
    path: str | os.PathLike[str],
    batch_size: int | None,
    timesteps: int | None,
    format: str | None,
) -> None:
    """Writes a stepper. See `kbptt.streams.Stepper.export`.

    Args:
        stepper: The `kbptt.streams.Stepper`.
        inputs: Nested as the model's inputs, of each a `tf.TensorSpec`.
        path: Of the folder or file.
        batch_size: Positive integer or None.
        timesteps: Positive integer or None.
        format: `"saved_model"`, `"tflite"` or None.
    """
    path = pathlib.Path(path)
    format = format or ("tflite" if path.suffix == SUFFIX else "saved_model")
    one_of("format", format, ("saved_model", "tflite"))
    least = 1 if format == "tflite" else None
    sizes = [
        least if value is None else positive_integer(name, value)
        for name, value in (("batch_size", batch_size), ("timesteps", timesteps))
    ]
    module = _Module(stepper, sized(inputs, *sizes), sizes[0])
    if format == "saved_model":
        module.save(path)
        return
    with tempfile.TemporaryDirectory() as folder:
        module.save(folder)
        names = list(module.served)
        converter = tf.lite.TFLiteConverter.from_saved_model(folder, signature_keys=names)
        path.write_bytes(converter.convert())


class _Module(tf.Module):
    """What is saved: functions that are traced without the C++ loops.

    Args:
        stepper: The `kbptt.streams.Stepper`.
        inputs: Nested as the model's inputs, of each a `tf.TensorSpec`.
        batch_size: Integer or None.

    Attributes:
        served: The functions with flat inputs and outputs by their names.
    """

    def __init__(self, stepper: Any, inputs: Any, batch_size: int | None) -> None:
        super().__init__()
        self._variables: list[tf.Variable] = [v.value for v in stepper.model.variables]
        # Tables, which are no variables.
        self._lookups: list[Any] = [
            one for one in find.all_layers(stepper.model) if hasattr(one, "lookup_table")
        ]
        states = {
            name: [tf.TensorSpec([batch_size, s.shape[1]], s.dtype) for s in own]
            for name, own in stepper.initial_states(1).items()
        }
        size = tf.TensorSpec([], tf.int32, "batch_size")
        self.__call__ = _traced(lambda x, s: stepper(x, s), inputs, states)
        if batch_size is None:
            self.initial_states = _traced(stepper.initial_states, size)
        else:
            self.initial_states = _traced(lambda: stepper.initial_states(batch_size))
        flat_inputs, flat_states = _named(inputs, "x"), _named_states(states)
        clash = flat_inputs.keys() & flat_states.keys()
        if clash or len(flat_states) < len(tree.flatten(states)):
            raise ValueError(
                "Inputs and states of an exported stepper must have different names. Received: "
                f"{[*flat_inputs, *flat_states]}. Rename the layers."
            )

        def serve(given: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
            x = tree.pack_sequence_as(inputs, [given[name] for name in flat_inputs])
            before = tree.pack_sequence_as(states, [given[name] for name in flat_states])
            outputs, after = stepper(x, before)
            return _named(outputs, "outputs") | _named_states(after)

        def start(*size: tf.Tensor) -> dict[str, tf.Tensor]:
            return _named_states(stepper.initial_states(*size or [batch_size]))

        self.served: dict[str, Any] = {
            "serving_default": _traced(serve, _specs_with_names(flat_inputs | flat_states)),
            "initial_states": _traced(start, *([size] if batch_size is None else [])),
        }

    def save(self, path: str | os.PathLike[str]) -> None:
        # A file must run on any machine, which XLA's programs do not.
        with using(native=False, jit=False, gradient=False):
            tf.saved_model.save(self, os.fspath(path), signatures=self.served)


def _traced(function: Callable[..., Any], *signature: Any) -> Any:
    return tf.function(function, input_signature=signature, autograph=False)


def sized(inputs: Any, batch_size: int | None, timesteps: int | None) -> Any:
    """The specs with these sizes; inputs with as many timesteps as the first one have timesteps."""
    first = tree.flatten(inputs)[0].shape

    def sized(spec: tf.TensorSpec) -> tf.TensorSpec:
        shape = list(spec.shape)
        shape[:1] = [batch_size]
        if len(shape) > 1 and shape[1] == first[1]:
            shape[1] = timesteps
        return tf.TensorSpec(shape, spec.dtype, spec.name)

    return tree.map_structure(sized, inputs)


def _named(values: Any, only: str) -> dict[str, Any]:
    """Tensors by names; `only` is the one of a single tensor."""
    flat = tree.flatten_with_path(values)
    if len(flat) == 1:
        return {only: flat[0][1]}
    named = {}
    for path, value in flat:
        words = [str(part) for part in path]
        if isinstance(value, tf.TensorSpec) and not isinstance(path[-1], str):
            words = [value.name or f"{only}_{'_'.join(words)}"]
        elif not isinstance(path[0], str):
            words = [only, *words]
        named[_word("_".join(words))] = value
    return named


def _named_states(states: dict[str, list[Any]]) -> dict[str, Any]:
    return {
        _word(f"{name}_state_{i}"): value
        for name, own in sorted(states.items())
        for i, value in enumerate(own)
    }


def _specs_with_names(specs: dict[str, tf.TensorSpec]) -> dict[str, tf.TensorSpec]:
    return {name: tf.TensorSpec(spec.shape, spec.dtype, name) for name, spec in specs.items()}


def _word(name: str) -> str:
    """A name as signatures allow it."""
    return re.sub(r"\W", "_", name)
