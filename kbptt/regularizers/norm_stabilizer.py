"""The norm stabilizer: states whose norm stays the same over time."""

from typing import Any

import keras
from keras import ops

from kbptt import _checks
from kbptt.regularizers import _sequence

# Below the square of any state that matters, above float32's smallest number. ‖h‖ has no
# derivative at 0, where every sequence with zero initial state and padding passes.
TINY = 1e-30


@keras.saving.register_keras_serializable(package="kbptt")
class NormStabilizer(_sequence.SequenceRegularizer):
    """β · mean_b Σ_t (‖h_t‖ − ‖h_{t−1}‖)² / (T − 1).

    Keeps the norm of the state from growing or decaying along the sequence, and with it the norm of
    the Jacobians near 1, but leaves the direction of the state free.

    Example:

    >>> layer = keras.layers.GRU(
    ...     64, return_sequences=True, activity_regularizer=NormStabilizer(50.0)
    ... )

    Args:
        beta: Float above 0. Krueger & Memisevic use 50 on character Penn Treebank and text8.
            Defaults to `50.0`.

    Reference:

    - [Krueger & Memisevic, 2016](https://arxiv.org/abs/1511.08400)
    """

    def __init__(self, beta: float = 50.0):
        self.beta = _checks.number("beta", beta, above=0)

    def penalty(self, h: Any, mask: Any = None) -> Any:
        h, weights = _sequence.prepare(h, mask)
        norms = ops.sqrt(ops.maximum(ops.sum(ops.square(h), axis=-1), TINY))
        weights = _sequence.pairs(weights)
        steps = ops.maximum(ops.sum(weights, axis=-1), 1.0)
        changes = ops.square(norms[:, 1:] - norms[:, :-1]) * weights
        return self.beta * ops.mean(ops.sum(changes, axis=-1) / steps)

    def get_config(self) -> dict[str, Any]:
        return {"beta": self.beta}
