"""What a layer does in a call, around its loop: checks, where the states begin, what is kept."""

import contextlib
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import keras
import tensorflow as tf
from keras import ops, tree

from kbptt import _keras
from kbptt._checks import count
from kbptt.engine import Resets
from kbptt.layers import inputs
from kbptt.layers.burn_in import after_burn_in
from kbptt.layers.influence import InfluenceOptions
from kbptt.layers.states import CarriedStates


class Beginning(NamedTuple):
    """Where a call begins.

    Attributes:
        states: Nested as the cell has them.
        mask: Boolean ``(batch, timesteps)``, or None.
        holds: Whether the mask only holds the states: no one reads the outputs at masked timesteps.
        influence: What the weights have done to the states, ``(batch, layer.influence_size())``;
            None unless it is carried too.
    """

    states: Any
    mask: Any
    holds: bool = False
    influence: Any = None


class Carry(Protocol):
    """Carries states from call to call in place of a layer: `layer.overriding(carry=…)`.

    Attributes:
        burn_in: Timesteps at the beginning of every call into which no gradient flows.
        length: Timesteps after which a call's states are carried on; None for all of them.
    """

    burn_in: int
    length: int | None

    def begin(
        self, layer: Any, sequences: Any, fresh: Any, mask: Any, given: bool, resets: bool
    ) -> Beginning:
        """Where a call begins.

        Args:
            layer: The layer.
            sequences: ``(batch, timesteps, features)``.
            fresh: The states at the beginning of a sequence, nested as the cell has them.
            mask: Boolean ``(batch, timesteps)``, or None.
            given: Whether `fresh` is the `initial_state` that the layer was called with.
            resets: Whether the layer was called with `resets`.
        """
        ...

    def end(self, layer: Any, states: Any, influence: Any) -> None:
        """Keeps the states after `length` timesteps, and the influence on them, or None."""
        ...

    def show(self, layer: Any, last: Any, outputs: Any, mask: Any) -> tuple[Any, Any]:
        """The last output and all outputs of a call, as the layer shows them.

        A masked timestep repeats the output before it, which may be one of an earlier call; the
        layer, which knows of none, has zeros there.

        Args:
            layer: The layer.
            last: ``(batch, units)``.
            outputs: ``(batch, timesteps, units)``, or ``(batch, 1, units)`` without
                `return_sequences`.
            mask: The mask that `begin` returned.
        """
        ...


class StatefulCall(InfluenceOptions):
    """Mixin with a layer's `call` and the states that it starts from.

    `trainable_initial_state` makes the states at the beginning of a sequence weights of the layer,
    one vector for each state.
    """

    _carry: Carry | None = None
    # Sees the states and gates of calls: `kbptt.layers.truncated.TruncatedLayer.observing`.
    _observer: Callable[..., None] | None = None
    _initial_state_weights: list[Any] | None = None

    # Whether a `fit` of this stateful layer was looked at.
    _fit_checked: bool = False

    # State ------------------------------------------------------------------------------------

    def _build_initial_state(self) -> None:
        """Adds the weights of `trainable_initial_state`, which start at the cell's own values."""
        if not self.trainable_initial_state:
            return
        start = tree.flatten(super().get_initial_state(1))
        names = [f"initial_state_{i}" if len(start) > 1 else "initial_state" for i in range(9)]
        self._initial_state_weights = [
            self.add_weight(
                (value.shape[-1],),
                lambda _, dtype, value=value: ops.cast(value[0], dtype),
                name=name,
            )
            for name, value in zip(names, start, strict=False)
        ]

    def get_initial_state(self, batch_size: Any) -> Any:
        """Returns the initial states of a sequence, each ``(batch, width)``."""
        states = super().get_initial_state(batch_size)
        if self._initial_state_weights is None:
            return states
        learned = [
            ops.broadcast_to(ops.cast(weight, state.dtype), ops.shape(state))
            for weight, state in zip(self._initial_state_weights, tree.flatten(states), strict=True)
        ]
        return tree.pack_sequence_as(states, learned)

    def _create_state_variables(self, batch_size: Any) -> None:
        def learned() -> Any:
            return self.get_initial_state(batch_size)

        initial = learned if self.trainable_initial_state else None
        with keras.name_scope(self.name):
            start = super().get_initial_state(batch_size)
            carried = CarriedStates(start, self.variable_dtype, initial)
        # Not by `setattr`, which would count the variables among the weights.
        self.__dict__.update(_carried=carried, states=carried.shown)

    @property
    def training_states(self) -> list[keras.Variable] | None:
        """Where a stateful layer starts its next training pass; `states` if those are newer."""
        return None if self.states is None else self._carried.training

    @property
    def inference_states(self) -> list[keras.Variable] | None:
        """Where a stateful layer starts in `predict`, `evaluate` and inference calls."""
        return None if self.states is None else self._carried.inference

    def carried_variables(self) -> list[Any]:
        """Everything that a stateful layer carries from call to call, for saving and restoring."""
        return [] if self.states is None else self._carried.variables()

    def reset_state(self) -> None:
        """Resets the states of a stateful layer to the initial states of a sequence."""
        if self.states is not None:
            self._carried.reset()

    # Calls ------------------------------------------------------------------------------------

    def call(
        self,
        sequences: Any,
        initial_state: Any = None,
        mask: Any = None,
        training: bool = False,
        resets: Any = None,
        burn_in: int = 0,
    ) -> Any:
        """Runs the layer.

        Call arguments:
            sequences: ``(batch, timesteps, features)``.
            initial_state: Optional list of states ``(batch, units)``.
            mask: Optional boolean ``(batch, timesteps)``; False holds the state.
            training: Boolean. Whether dropout is active.
            resets: Optional boolean ``(batch, timesteps)``. True returns that sample to its initial
                state before the timestep, and no gradient crosses. The initial state is
                `initial_state` if given, otherwise that of a fresh sequence (zeros for Keras's
                cells), even in a stateful layer.
            burn_in: Integer of at least 0, below the number of timesteps. No gradient flows into
                the first `burn_in` timesteps or the initial state, except for samples that are
                masked up to there: these steps only warm up the state (R2D2). Defaults to `0`.
        """
        sequences, initial_state, mask, resets = inputs.as_tensors(
            sequences, initial_state, mask, resets
        )
        inputs.check_sequences(self.name, sequences)
        shape = tuple(sequences.shape)
        inputs.check_by_timestep(self.name, "mask", mask, shape)
        inputs.check_by_timestep(self.name, "resets", resets, shape)
        widths = tree.flatten(self.state_size)
        inputs.check_initial_state(self.name, initial_state, widths, shape[0])
        if tf.is_tensor(burn_in):  # Keras makes one of a number of NumPy's
            burn_in = tf.get_static_value(burn_in).item()
        inputs.check_burn_in(self.name, count("burn_in", burn_in), shape)
        carry, stateful = self._carry, self.stateful and self._carry is None
        if stateful and self.states is not None:
            batch = tree.flatten(self.states)[0].shape[0]
            self._check_fit()
            sequences = inputs.check_batch(self.name, sequences, batch)
        self._callers.note()
        # Where resets go back to: in a stateful layer not what was carried over.
        fresh = initial_state
        if initial_state is None and (resets is not None or not stateful):
            fresh = self.get_initial_state(batch_size=ops.shape(sequences)[0])
        begins = self._begin(sequences, initial_state, fresh, mask, training, resets is not None)
        initial_state, mask, holds, before = begins
        if carry is not None:
            burn_in = max(burn_in, carry.burn_in)
        influence = self._begin_influence(before if training else None, carry, burn_in)
        state = self._in_compute_dtype(initial_state)
        example = state
        if carry is not None:
            # Not rounded between two calls, as nothing is between two timesteps of a loop.
            state = list(initial_state) if tree.is_nested(initial_state) else [initial_state]
        if resets is not None:
            resets = Resets(resets, tuple(self._in_compute_dtype(fresh)))
        self._draw(training, sequences[:, 0, :], example)
        call = sequences, state, mask, training, resets
        with self._before_loops(), self.overriding(holds=holds, influence=influence):
            if burn_in:
                last, outputs, final = after_burn_in(self, burn_in, *call)
            else:
                loop: Any = self.inner_loop  # which takes `resets` too
                last, outputs, final = loop(*call)
            carried = None if carry is None else self._carried_on(carry, final, *call)
        if carry is not None:
            after = None if influence is None else influence.after
            carry.end(self, carried, after)
            last, outputs = carry.show(self, last, outputs, mask)
        _keras.clear_dropout_masks(self)
        final = tree.map_structure(lambda s: ops.cast(s, self.compute_dtype), final)
        if stateful:
            self._carried.finish(final, training, None if influence is None else influence.after)
        output = ops.cast(outputs if self.return_sequences else last, self.compute_dtype)
        return (output, *final) if self.return_state else output

    def _begin(
        self,
        sequences: Any,
        initial_state: Any,
        fresh: Any,
        mask: Any,
        training: bool,
        resets: bool,
    ) -> Beginning:
        """Where a call begins: at states that are given or carried, or `fresh` ones."""
        given = initial_state is not None
        if self._carry is not None:
            return self._carry.begin(self, sequences, fresh, mask, given, resets)
        if not self.stateful:
            return Beginning(initial_state if given else fresh, mask)
        influence = self._carried.influence(self.influence_size()) if training else None
        if not given:
            return Beginning(self._carried.start(training), mask, influence=influence)
        nothing = None if influence is None else tf.zeros_like(influence)
        return Beginning(initial_state, mask, influence=nothing)

    def _draw(self, training: bool, step_input: Any, states: Any) -> None:
        """Draws what a call draws once for the whole sequence."""
        if training:  # Keras draws in inference too, and training would go on with other numbers
            _keras.draw_dropout_masks(self, step_input, states)

    def _before_loops(self) -> contextlib.AbstractContextManager[None]:
        """A scope around the loops of a call, with what is computed once for all of them."""
        return contextlib.nullcontext()

    def _check_fit(self) -> None:
        """Says once what goes wrong where arrays are given to the `fit` of a stateful layer."""
        fit = None if self._fit_checked else _keras.running("fit")
        if fit is not None:
            self._fit_checked = True
            if any(isinstance(v, keras.layers.Bidirectional) for v in _keras.running_layers()):
                raise ValueError(
                    f"Layer '{self.name}' is stateful inside of Bidirectional, which reads a batch "
                    "from its end too: that half would continue from states of later timesteps. "
                    "Remove `stateful` or Bidirectional."
                )
            inputs.check_fit(self.name, fit)

    def _in_compute_dtype(self, states: Any) -> list[Any]:
        """States as Keras hands them to the loop: a list, in the cell's compute dtype."""
        states = list(states) if tree.is_nested(states) else [states]
        dtype = self.cell.compute_dtype
        return [
            tree.map_structure(lambda s: ops.convert_to_tensor(s, dtype=dtype), state)
            for state in states
        ]

    def _carried_on(self, carry, final, sequences, state, mask, training, resets):
        """The states after the timesteps that `carry` counts; `final` are those after all."""
        timesteps = sequences.shape[1]
        if carry.length is None or carry.length == timesteps:
            return final
        first = slice(None), slice(carry.length)
        mask = None if mask is None else mask[first]
        resets = None if resets is None else resets._replace(at=resets.at[first])
        with self.overriding(observer=None):  # it has seen these timesteps
            return self.inner_loop(sequences[first], state, mask, training, resets)[2]
