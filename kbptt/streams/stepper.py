"""A model as a function of inputs and states: step by step, with nothing kept between calls."""

import contextlib
import os
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf
from keras import tree

from kbptt import _keras
from kbptt._checks import positive_integer
from kbptt.engine.settings import Settings, settings
from kbptt.layers import find
from kbptt.layers.call import Beginning
from kbptt.layers.projected import ProjectedLayer
from kbptt.streams import saved
from kbptt.streams.layers import (
    carrying_layers,
    check_called_once,
    output_width,
    repeat_before,
)

# Of each layer by its name the states, each ``(batch, width)``.
States = dict[str, list[tf.Tensor]]


def streaming(model: keras.Model) -> "Stepper":
    """Turns a model into a function with its states as inputs and outputs, to run step by step.

    ```python
    stepper = kbptt.streaming(model)
    states = stepper.initial_states(batch_size=1)
    while True:
        outputs, states = stepper(next_inputs(), states)
    ```

    A call may have any number of timesteps. However a sequence is divided into calls, the outputs
    are those of one pass, ``model(sequence, training=False)``. Only the recurrent layers carry
    information between calls; all other layers must process every timestep independently, like
    Dense, Embedding, Dropout and LayerNormalization, unlike Conv1D, Flatten or attention.

    Args:
        model: A built model with recurrent kbptt layers. It may have a fixed number of timesteps,
            and layers with ``stateful=True`` or ``return_sequences=False``. The weights are shared,
            so training the model later changes what the stepper computes.

    Returns:
        A `Stepper`.

    Raises:
        ValueError: If the model is not built, has no recurrent kbptt layer or two with the same
            name, or if a layer cannot carry its state (`Bidirectional`, ``go_backwards``, recurrent
            layers of Keras).
    """
    return Stepper(model)


class Stepper:
    """A model as a function of inputs and states. See `kbptt.streaming`.

    States are a dict: for each recurrent layer, by its name, a list of tensors ``(batch, width)``
    in the order of its cell (for an LSTM h and c), for a stack of cells from the bottom up. The
    last output follows the states if masked timesteps repeat an output that is not among them: in
    layers with `trainable_initial_state` and in `kbptt.RNN`, if the model can produce masks. States
    have the dtype of the layer, or float32 if it computes in half precision.

    Args:
        model: The model.

    Attributes:
        model: The model.
        layers: Its recurrent layers.
    """

    def __init__(self, model: keras.Model) -> None:
        if not isinstance(model, keras.Model):
            raise ValueError(
                f"`model` expected a keras.Model. Received: {type(model).__name__}. Wrap layers "
                "in keras.Sequential."
            )
        self.model = model
        self.layers: list[Any] = carrying_layers("a Stepper", model)
        if not all(layer.built for layer in (model, *self.layers)):
            raise ValueError(
                f"Model '{model.name}' expected to be built, but is not: call it once on data, or "
                "start it with a keras.Input."
            )
        names = [layer.name for layer in self.layers]
        twice = [name for name in names if names.count(name) > 1]
        if twice:
            raise ValueError(
                f"States are identified by layer names, which must differ, but two recurrent "
                f"layers are named '{twice[0]}'. Give one a different `name`."
            )
        masks = _may_make_masks(model)
        self._remembering: list[Any] = [one for one in self.layers if masks and _hides_output(one)]
        example = self.initial_states(1)
        self._widths: dict[str, list[Any]] = {
            name: [state.shape[1] for state in own] for name, own in example.items()
        }
        self._dtypes: dict[str, list[Any]] = {
            name: [state.dtype for state in own] for name, own in example.items()
        }
        self._functions: dict[tuple[Settings, Any], Any] = {}
        self._specs: Any = None  # of the inputs of the last call

    def initial_states(self, batch_size: int | tf.Tensor) -> States:
        """Returns the states at the beginning of a sequence.

        Zeros for Keras's cells; for a layer with `trainable_initial_state`, the current learned
        ones.

        Args:
            batch_size: Positive integer, or an int32 scalar in a `tf.function`.
        """
        if not tf.is_tensor(batch_size):
            batch_size = positive_integer("batch_size", batch_size)
        states: States = {}
        for layer in self.layers:
            own = [_whole(state) for state in tree.flatten(layer.get_initial_state(batch_size))]
            if layer in self._remembering:
                own.append(tf.zeros([batch_size, output_width(layer)], own[0].dtype))
            states[layer.name] = own
        return states

    def __call__(self, x: Any, states: Mapping[str, Sequence[Any]]) -> tuple[Any, States]:
        """Runs some timesteps.

        In a `tf.function` of your own the call becomes a part of it.

        Args:
            x: Inputs ``(batch, timesteps, …)``, one or more timesteps; nested as the model's.
            states: What `initial_states` or the call before returned. They stay as they are and may
                be used again.

        Returns:
            Tuple `(outputs, states)`: what the model returns, and the states to go on with.

        Raises:
            ValueError: If `states` are those of another model or batch, if there is no timestep, or
                if a layer is called twice by the model or given an `initial_state` by it.
        """
        x = tree.map_structure(tf.convert_to_tensor, x)
        states = self._checked(states, tree.flatten(x)[0].shape[0])
        if not tf.executing_eagerly() or self.model.run_eagerly:
            return self._run(x, states)
        return self._function(x)(x, states)

    def export(
        self,
        path: str | os.PathLike[str],
        batch_size: int | None = None,
        timesteps: int | None = None,
        format: str | None = None,
    ) -> None:
        """Writes a file that runs without kbptt and Keras.

        A SavedModel is used like the stepper:

        ```python
        stepper = tf.saved_model.load(path)
        states = stepper.initial_states(1)
        outputs, states = stepper(x, states)
        ```

        Its signatures, for a server, and those of a LiteRT file have flat names.
        `"serving_default"` takes `x` (several inputs: their names or keys) and
        `<layer>_state_<number>`, and returns `outputs` (several: `outputs_<number>` or their keys)
        and the new states under the same names. `"initial_states"` returns the initial states,
        given an int32 `batch_size` unless that is fixed.

        Args:
            path: String or path-like: a folder, or a file of LiteRT.
            batch_size: Positive integer, or None for any. Defaults to `None`; `1` for LiteRT, whose
                sizes are fixed.
            timesteps: Positive integer, the timesteps of a call, or None for any. Defaults to
                `None`; `1` for LiteRT.
            format: `"saved_model"`, `"tflite"` or None: LiteRT if `path` ends in `.tflite`.
                Defaults to `None`.

        Raises:
            ValueError: If an argument is out of its range, or if the inputs of the model are
                unknown (a subclassed model) and the stepper was not called yet.
        """
        saved.export(self, self._inputs(), path, batch_size, timesteps, format)

    # A step -----------------------------------------------------------------------------------

    def _run(self, x: Any, states: States) -> tuple[Any, States]:
        carry = _StatesOfCall(states, self._remembering)
        with contextlib.ExitStack() as stack:
            stack.enter_context(_keras.any_timesteps(self.model))
            for layer in self.layers:
                stack.enter_context(layer.overriding(carry=carry))
            # Losses that layers add and variables that they set stay out of the model.
            stack.enter_context(keras.StatelessScope())
            outputs = self.model(x, training=False)
        # A layer that this call did not need keeps its states.
        return outputs, {name: carry.after.get(name, before) for name, before in states.items()}

    def _function(self, x: Any) -> Any:
        """The step as a graph: one for single timesteps, and one for any number."""
        first = tree.flatten(x)[0].shape
        if 0 in first[:2]:
            raise ValueError(
                "A step expected inputs (batch, timesteps, …) with at least one row and timestep. "
                f"Received the shape {tuple(first)}."
            )
        specs = tree.map_structure(lambda v: tf.TensorSpec(v.shape, v.dtype), x)
        specs = self._specs = saved.sized(specs, None, 1 if first[1:2] == [1] else None)
        key = settings(), tuple(map(tuple, tree.flatten_with_path(specs)))
        if key not in self._functions:
            self._check_features(tree.flatten(x))
            states = {
                name: [tf.TensorSpec([None, w], d) for w, d in zip(widths, dtypes, strict=True)]
                for (name, widths), dtypes in zip(
                    self._widths.items(), self._dtypes.values(), strict=True
                )
            }
            signature = specs, states
            self._functions[key] = tf.function(
                self._run, input_signature=signature, autograph=False
            )
        return self._functions[key]

    def _check_features(self, given: list[tf.Tensor]) -> None:
        """Raises `ValueError` for inputs that a Sequential model or a loop would choke on later."""
        expected = getattr(self.model, "inputs", None) or []
        for one, right in zip(given, expected, strict=False):
            same_rank = len(one.shape) == len(right.shape)
            if same_rank and not one.shape[2:].is_compatible_with(right.shape[2:]):
                shape = ", ".join(["batch", "timesteps", *map(str, right.shape[2:])])
                raise ValueError(
                    f"Model '{self.model.name}' expected inputs of shape ({shape}). Received: "
                    f"{tuple(one.shape)}."
                )

    def _checked(self, states: Any, batch: int | None) -> States:
        """The states as tensors of the dtypes that are carried."""
        given: dict[str, list[Any]] = {}
        try:
            given = {name: list(states[name]) for name in self._widths}
            complete = len(given) == len(states)
            right = complete and all(
                len(given[name]) == len(widths) for name, widths in self._widths.items()
            )
        except (KeyError, TypeError, IndexError):
            right = False
        if not right:
            expected = {name: len(widths) for name, widths in self._widths.items()}
            raise ValueError(
                "`states` expected a dict with a list of tensors for each recurrent layer, of "
                f"these numbers: {expected}. Received: {_described(states)}. Start from "
                "`initial_states(batch_size)`."
            )
        cast = {
            name: [tf.cast(s, d) for s, d in zip(given[name], dtypes, strict=True)]
            for name, dtypes in self._dtypes.items()
        }
        for name, widths in self._widths.items():
            for state, width in zip(cast[name], widths, strict=True):
                if not state.shape.is_compatible_with([batch, width]):
                    raise ValueError(
                        f"States of layer '{name}' expected the shape (batch, width) = "
                        f"{(batch, width)}. Received: {tuple(state.shape)}. Start from "
                        f"`initial_states({batch})` for inputs of this batch."
                    )
        return cast

    def _inputs(self) -> Any:
        """Nested as the model's inputs, of each a `tf.TensorSpec`."""
        inputs = getattr(self.model, "inputs", None)
        if not inputs:
            if self._specs is None:
                raise ValueError(
                    f"The inputs of model '{self.model.name}' are unknown: call the stepper once "
                    "on data before `export`."
                )
            return self._specs
        nested = inputs if isinstance(self.model, keras.Sequential) else self.model.input
        nested = inputs[0] if len(inputs) == 1 and not isinstance(nested, dict) else nested
        return tree.map_structure(lambda v: tf.TensorSpec(v.shape, v.dtype, v.name), nested)


class _StatesOfCall:
    """A `kbptt.layers.call.Carry` for one call of a model, from its states to those after it.

    Args:
        states: The states by the names of layers.
        remembering: The layers whose last state is the output before.

    Attributes:
        after: The states after the call, of the layers that were called.
    """

    burn_in = 0
    length = None

    def __init__(self, states: States, remembering: list[Any]) -> None:
        self.states = states
        self.remembering = remembering
        self.after: States = {}

    def begin(
        self, layer: Any, sequences: Any, fresh: Any, mask: Any, given: bool, resets: bool
    ) -> Beginning:
        check_called_once("A Stepper", layer, layer.name in self.after)
        if given:
            raise ValueError(
                f"Layer '{layer.name}' gets an `initial_state` from the model, but has to start "
                "from the states of the stepper: remove `initial_state` from the model."
            )
        own = self.states[layer.name]
        own = own[:-1] if layer in self.remembering else own
        return Beginning(tree.pack_sequence_as(fresh, own), mask)

    def end(self, layer: Any, states: Any, influence: Any) -> None:
        self.after[layer.name] = tree.flatten(states)

    def show(self, layer: Any, last: Any, outputs: Any, mask: Any) -> tuple[Any, Any]:
        remembering = layer in self.remembering
        if mask is not None and not layer.zero_output_for_mask:
            if not remembering and _hides_output(layer):
                raise ValueError(
                    f"Layer '{layer.name}' received a mask, but no layer of the model creates one: "
                    "use keras.layers.Masking or Embedding(mask_zero=True), or set "
                    "`zero_output_for_mask=True`."
                )
            before = tf.cast(self.states[layer.name][-1 if remembering else 0], last.dtype)
            last, outputs = repeat_before(layer, before, last, outputs, mask)
        if remembering:
            kept = self.after[layer.name]
            kept.append(tf.cast(last, self.states[layer.name][-1].dtype))
        return last, outputs


def _hides_output(layer: Any) -> bool:
    """Whether what a masked timestep repeats may be in none of the states."""
    if layer.zero_output_for_mask:
        return False
    # Those of Keras are zeros at the beginning, and so is the output that masked timesteps repeat.
    return layer.trainable_initial_state or not isinstance(layer, ProjectedLayer)


def _may_make_masks(model: keras.Model) -> bool:
    """Whether recurrent layers of a model may be given masks; False only if they are not."""
    if len(getattr(model, "inputs", None) or []) > 1:
        return True  # one of them may be a mask
    return any(
        isinstance(one, keras.layers.Masking)
        or getattr(one, "mask_zero", False)
        or not type(one).__module__.startswith(("keras.", "kbptt."))
        for one in find.all_layers(model)
    )


def _whole(state: Any) -> tf.Tensor:
    """A state as it is carried: not in half precision."""
    return tf.cast(state, tf.float32) if state.dtype.size < 4 else tf.convert_to_tensor(state)


def _described(states: Any) -> str:
    if not isinstance(states, Mapping):
        return type(states).__name__
    return str({n: len(s) if isinstance(s, (list, tuple)) else s for n, s in states.items()})[:200]
