"""Elman RNN with truncated backpropagation through time."""

from typing import Any

import keras

from kbptt.engine.steps import ACTIVATION, SimpleRNNStep
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
        self._set_up(truncation, gradient_clip, normalization, gradient_regularizer)

    def _projected_step(self):
        name = self.activation.__name__
        return SimpleRNNStep(name) if name in ACTIVATION else None

    def _projection_bias(self):
        return self.cell.bias

    def _recurrent_weights(self):
        return (self.cell.recurrent_kernel,)
