"""Adaptive gradient clipping."""

import functools
from collections.abc import Sequence

import keras

from kbptt import _checks
from kbptt._attributes import Option
from kbptt.optimizers import clipping
from kbptt.optimizers.transform import GradientTransform, Schedule, State, Threshold, Transformed


@keras.saving.register_keras_serializable(package="kbptt", name="optimizers.AdaptiveGradientClip")
class AdaptiveGradientClip(GradientTransform):
    """Bounds each output unit's gradient by the norm of its weights (AGC).

    For the incoming weights W of one unit and their gradient G, where the norm of G exceeds
    `clip_factor * max(norm(W), epsilon)`, scales G to it. The bound needs no tuning to the scale of
    the loss. A unit is a column of a kernel (in a recurrent layer: one gate of one unit) or a whole
    bias. The authors exclude the last, linear layer: see `variables`.

    Args:
        clip_factor: Positive float or schedule. Largest ratio of a unit's gradient to its weights.
            Defaults to `0.01`.
        epsilon: Positive float. Smallest norm of weights that counts, so that zero weights can
            move. Defaults to `1e-3`.
        variables: Regular expression(s) for the variables' paths. Defaults to `None`, all.
        name: String. Defaults to `"adaptive_gradient_clip"`.

    Reference:
        - [Brock, De, Smith & Simonyan, 2021](https://arxiv.org/abs/2102.06171), equation 3
    """

    _threshold_name = "clip_factor"
    clip_factor = Threshold()
    epsilon = Option(functools.partial(_checks.number, above=0))

    def __init__(
        self,
        clip_factor: float | Schedule = 0.01,
        epsilon: float = 1e-3,
        *,
        variables: str | Sequence[str] | None = None,
        name: str | None = None,
    ):
        super().__init__(clip_factor, variables=variables, name=name)
        self.epsilon = epsilon

    def transform(self, gradients: list, norms: list, weights: list, state: State) -> Transformed:
        clipped = clipping.adaptive_clip(gradients, weights, state["threshold"], self.epsilon)
        return clipped, None, state

    def get_config(self):
        return {**super().get_config(), "epsilon": self.epsilon}
