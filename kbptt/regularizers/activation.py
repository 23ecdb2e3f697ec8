"""Activation regularization (AR) and temporal activation regularization (TAR)."""

from typing import Any

import keras
from keras import ops

from kbptt import _checks
from kbptt.regularizers import _sequence


@keras.saving.register_keras_serializable(package="kbptt")
class ActivationRegularization(_sequence.SequenceRegularizer):
    """α · mean(h_t²) + β · mean((h_t − h_{t−1})²): AR keeps states small, TAR keeps them slow.

    The means run over batch, timesteps and units. Merity applies AR to the outputs after dropout
    and TAR to those before; as an `activity_regularizer` both see the layer's outputs.

    Example:

    >>> layer = keras.layers.LSTM(
    ...     64, return_sequences=True, activity_regularizer=ActivationRegularization(2.0, 1.0)
    ... )

    Args:
        alpha: Float of at least 0, the weight of AR. Defaults to `2.0`.
        beta: Float of at least 0, the weight of TAR. Defaults to `1.0`.

    Reference:

    - [Merity, McCann & Socher, 2017](https://arxiv.org/abs/1708.01009)
    """

    def __init__(self, alpha: float = 2.0, beta: float = 1.0):
        self.alpha = _checks.number("alpha", alpha, at_least=0)
        self.beta = _checks.number("beta", beta, at_least=0)
        if self.alpha == self.beta == 0:
            raise ValueError("At least one of `alpha` and `beta` must be above 0.")

    def penalty(self, h: Any, mask: Any = None) -> Any:
        h, weights = _sequence.prepare(h, mask)
        return self.alpha * activation(h, weights) + self.beta * temporal_activation(h, weights)

    def get_config(self) -> dict[str, Any]:
        return {"alpha": self.alpha, "beta": self.beta}


def activation(h: Any, weights: Any) -> Any:
    """AR without its factor: mean(h²) over the steps with weight 1."""
    return _mean(ops.square(h), weights)


def temporal_activation(h: Any, weights: Any) -> Any:
    """TAR without its factor: mean((h_t − h_{t−1})²) over the pairs of steps with weight 1."""
    return _mean(ops.square(h[:, 1:] - h[:, :-1]), _sequence.pairs(weights))


def _mean(values: Any, weights: Any) -> Any:
    """Mean over units, and over the steps that count; 0 where none does (T = 1, all padding)."""
    steps = ops.maximum(ops.sum(weights), 1.0)
    return ops.sum(ops.mean(values, axis=-1) * weights) / steps
