"""The states that a stateful layer carries from one batch to the next."""

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf
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
        start: States of a fresh sequence, nested as the cell has them.
        dtype: Of the variables.
        initial: Called for the states of a fresh sequence as they are then, for a pass to begin
            with until it has states of its own. Defaults to the zeros or other values of `start`.

    Attributes:
        shown: Variables, nested as `initial`.
        training: Flat list of variables: the states after the last pass of training.
        inference: The same for passes of inference.
    """

    # Who wrote `shown` last: a value of `_writer`.
    USER, TRAINING, INFERENCE, NOBODY = range(4)

    def __init__(self, start: Any, dtype: str, initial: Callable[[], Any] | None = None) -> None:
        def variable(value: Any, kind: type = keras.Variable, **kwargs: Any) -> keras.Variable:
            return kind(value, trainable=False, dtype=dtype, name="rnn_state", **kwargs)

        def flag(value: int, name: str) -> keras.Variable:
            return keras.Variable(value, trainable=False, dtype="int32", name=name)

        self._initial = initial
        self._influence: tf.Variable | None = None
        self._writer = flag(self.NOBODY, "writer")
        # Whether the states of a kind of pass are those of a fresh sequence.
        self._fresh = {kind: flag(1, "fresh") for kind in (self.TRAINING, self.INFERENCE)}
        self.shown: Any = tree.map_structure(
            lambda v: variable(v, CarriedState, on_assign=lambda: self._writer.assign(self.USER)),
            start,
        )
        self.training: list[keras.Variable] = [variable(v) for v in tree.flatten(start)]
        self.inference: list[keras.Variable] = [variable(v) for v in tree.flatten(start)]

    def variables(self) -> list[Any]:
        """Everything that passes change, in an order in which it can be assigned again."""
        influence = [] if self._influence is None else [self._influence]
        states = [*tree.flatten(self.shown), *self.training, *self.inference]
        return [*states, *influence, *self._fresh.values(), self._writer]

    def start(self, training: bool) -> Any:
        """Where a pass begins, nested as the initial states."""
        writer, own = self._pass(training)
        last = self._writer.value
        continues = ops.logical_or(ops.equal(last, writer), ops.equal(last, self.USER))
        flat = [
            ops.where(continues, ops.convert_to_tensor(shown), ops.convert_to_tensor(kept))
            for shown, kept in zip(tree.flatten(self.shown), own, strict=True)
        ]
        if self._initial is not None:
            # Not the values they had at the reset: the gradient flows into the weights.
            fresh = ops.logical_and(
                ops.cast(self._fresh[writer].value, "bool"), ops.not_equal(last, self.USER)
            )
            flat = [
                ops.where(fresh, ops.cast(initial, kept.dtype), kept)
                for initial, kept in zip(tree.flatten(self._initial()), flat, strict=True)
            ]
        return tree.pack_sequence_as(self.shown, flat)

    def influence(self, size: int) -> tf.Tensor | None:
        """What the weights have done to the states that a pass of training starts from.

        Args:
            size: As `kbptt.layers.influence.InfluenceOptions.influence_size` counts.

        Returns:
            ``(batch, size)``: zeros where the states are new or a user's. None if `size` is 0.
        """
        if not size:
            return None
        first = self.training[0]
        shape = first.shape[0], size
        if self._influence is None or tuple(self._influence.shape) != shape:
            dtype = tf.as_dtype(first.dtype)
            with tf.init_scope():
                zeros = tf.zeros(shape, tf.float32 if dtype.size < 4 else dtype)
                self._influence = tf.Variable(zeros, trainable=False, name="influence")
        began = ops.cast(self._fresh[self.TRAINING].value, "bool")
        began = ops.logical_or(began, ops.equal(self._writer.value, self.USER))
        return tf.where(began, tf.zeros_like(self._influence), self._influence)

    def finish(self, final: Any, training: bool, influence: tf.Tensor | None = None) -> None:
        """Keeps the states that a pass ends with, and in training the influence on them."""
        if training and self._influence is not None:
            # A pass without one loses track.
            zeros = tf.zeros_like(self._influence)
            self._influence.assign(zeros if influence is None else influence)
        writer, own = self._pass(training)
        for shown, kept, state in zip(
            tree.flatten(self.shown), own, tree.flatten(final), strict=True
        ):
            shown.assign(state)
            kept.assign(shown.value)
        self._fresh[writer].assign(0)
        self._writer.assign(writer)

    def reset(self) -> None:
        """Sets every state to that of a fresh sequence: zeros, unless they are learned."""
        states = (tree.flatten(self.shown), self.training, self.inference)
        initial = None if self._initial is None else tree.flatten(self._initial())
        for kind in states:
            for index, variable in enumerate(kind):
                zeros = ops.zeros_like(variable.value)
                variable.assign(zeros if initial is None else initial[index])
        for fresh in self._fresh.values():
            fresh.assign(1)
        self._writer.assign(self.NOBODY)

    def _pass(self, training: bool) -> tuple[int, list[keras.Variable]]:
        return (self.TRAINING, self.training) if training else (self.INFERENCE, self.inference)
