"""The states that a stateful layer carries from one batch to the next."""

from typing import Any

import keras
from keras import ops, tree


class CarriedState(keras.Variable):
    """A state variable that reports when it is assigned, so that a user's value is not passed over.

    Args:
        on_assign: Called after every assignment.
        *args: As for `keras.Variable`.
        **kwargs: As for `keras.Variable`.
    """

    def __init__(self, *args: Any, on_assign: Any, **kwargs: Any) -> None:
        self._on_assign = on_assign
        super().__init__(*args, **kwargs)

    def assign(self, value: Any) -> Any:
        result = super().assign(value)
        self._on_assign()
        return result


class CarriedStates:
    """Keeps the states of training apart from those of inference.

    Keras has one set of states: a validation in the middle of training changes where training goes
    on. Here each kind of pass continues from its own last states, and `shown`, which is the layer's
    ``states``, behaves as in Keras: it holds the states after the latest pass of either kind, and
    values assigned to it are where the next pass begins, whichever kind that is.

    Args:
        initial: The initial states, nested as the cell has them.
        dtype: Of the variables.

    Attributes:
        shown: Variables, nested as `initial`.
        training: Flat list of variables: the states after the last pass of training.
        inference: The same for passes of inference.
    """

    # Who wrote `shown` last: a value of `_writer`.
    USER, TRAINING, INFERENCE = range(3)

    def __init__(self, initial: Any, dtype: str) -> None:
        def variable(value: Any, kind: type = keras.Variable, **kwargs: Any) -> keras.Variable:
            return kind(value, trainable=False, dtype=dtype, name="rnn_state", **kwargs)

        self._writer = keras.Variable(self.USER, trainable=False, dtype="int32", name="writer")
        self.shown: Any = tree.map_structure(
            lambda v: variable(v, CarriedState, on_assign=lambda: self._writer.assign(self.USER)),
            initial,
        )
        self.training: list[keras.Variable] = [variable(v) for v in tree.flatten(initial)]
        self.inference: list[keras.Variable] = [variable(v) for v in tree.flatten(initial)]

    def start(self, training: bool) -> Any:
        """Where a pass begins, nested as the initial states."""
        writer, own = self._pass(training)
        last = self._writer.value
        continues = ops.logical_or(ops.equal(last, writer), ops.equal(last, self.USER))
        flat = [
            ops.where(continues, ops.convert_to_tensor(shown), ops.convert_to_tensor(kept))
            for shown, kept in zip(tree.flatten(self.shown), own, strict=True)
        ]
        return tree.pack_sequence_as(self.shown, flat)

    def finish(self, final: Any, training: bool) -> None:
        """Keeps the states that a pass ends with."""
        writer, own = self._pass(training)
        for shown, kept, state in zip(
            tree.flatten(self.shown), own, tree.flatten(final), strict=True
        ):
            shown.assign(state)
            kept.assign(shown.value)
        self._writer.assign(writer)

    def reset(self) -> None:
        """Sets every state to zeros."""
        for variable in (*tree.flatten(self.shown), *self.training, *self.inference):
            variable.assign(ops.zeros_like(variable.value))

    def _pass(self, training: bool) -> tuple[int, list[keras.Variable]]:
        return (self.TRAINING, self.training) if training else (self.INFERENCE, self.inference)
