"""Elman RNN with truncated backpropagation through time."""

from typing import Any

import keras
from keras import ops

from kbptt.engine import center
from kbptt.engine.normalized import NormalizedSimpleRNNStep
from kbptt.engine.steps import SimpleRNNStep
from kbptt.layers.projected import ProjectedLayer


@keras.saving.register_keras_serializable(package="kbptt")
class SimpleRNN(ProjectedLayer, keras.layers.SimpleRNN):
    """`keras.layers.SimpleRNN` with truncated backpropagation through time.

    Arguments, weights (names, shapes and order), outputs, masks and states are those of
    `keras.layers.SimpleRNN`. With ``activation="linear", use_bias=False`` it is the RNN of the
    guide's section 2, and its gradients are the closed forms of `kbptt.analysis.linear_rnn`.

    Args:
        units: Positive integer. Width of the state.
        truncation: See `kbptt.LSTM`.
        normalization: See `kbptt.LSTM`.
        gradient_regularizer: See `kbptt.LSTM`.
        gradient_clip: See `kbptt.LSTM`.
        *args: Further positional arguments of `keras.layers.SimpleRNN`.
        **kwargs: Further keyword arguments of `keras.layers.SimpleRNN`.

    Raises:
        ValueError: If an argument is out of its range.
    """

    cell_name = "SimpleRNN"

    def __init__(
        self,
        units: int,
        *args: Any,
        truncation: Any = None,
        normalization: Any = None,
        gradient_regularizer: Any = None,
        gradient_clip: float | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(units, *args, **kwargs)
        # Keras 3.15's SimpleRNN takes this argument and drops it.
        activity_regularizer = kwargs.get("activity_regularizer")
        if self.activity_regularizer is None and activity_regularizer is not None:
            self.activity_regularizer = keras.regularizers.get(activity_regularizer)
        self._set_up(truncation, gradient_clip, normalization, gradient_regularizer)

    def _projected_step(self):
        names = self._activation_names()
        if names is None:
            return None
        if self.normalization is not None:
            return NormalizedSimpleRNNStep(*names, self.normalization.epsilon)
        return SimpleRNNStep(*names)

    def _build_normalization(self):
        # The sum of both projections is normalised: one gain.
        self.recurrent_gain = self.add_weight(
            shape=(self.units,), name="recurrent_gain", initializer="ones"
        )

    def _normalize_projection(self, projected):
        return center(projected, self._groups())

    def _projection_bias(self):
        return self.cell.bias if self.normalization is None else None

    def _native_weights(self):
        return super()._native_weights()._replace(bias=self.cell.bias)

    def _recurrent_weights(self):
        if self.normalization is None:
            return super()._recurrent_weights()
        bias = ops.zeros_like(self.recurrent_gain) if self.cell.bias is None else self.cell.bias
        return self._centred_recurrent_kernel(), self.recurrent_gain, bias
