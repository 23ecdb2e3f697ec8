"""ZClip: clipping of spikes of the gradient norm."""

import functools
import math
from collections.abc import Sequence

import keras
import numpy as np
from keras import ops

from kbptt import _checks
from kbptt._attributes import Option
from kbptt.optimizers import clipping
from kbptt.optimizers.transform import GradientTransform, State, Transformed


@keras.saving.register_keras_serializable(package="kbptt", name="optimizers.ZClip")
class ZClip(GradientTransform):
    """Clips the global norm only where it spikes: by its z-score against a moving average.

    Mean and variance of the norm start from the first `warmup_steps` steps and then follow
    exponential moving averages, fed with the clipped norm at a spike. A norm with z = (norm - mean)
    / (std + epsilon) above `z_score` is scaled to mean + z_score * std / (z / z_score).
    `maximum_norm` always bounds the norm, even during warm-up.

    The logged threshold is the norm where clipping starts, mean + z_score * (std + epsilon), or at
    a spike the norm it was scaled to; Inf in warm-up without `maximum_norm`. The averages
    are kept in variables of the optimizer and saved with it.

    Args:
        z_score: Positive float. Standard deviations above the mean that count as a spike. Defaults
            to `2.5`.
        decay: Float in (0, 1]. Share of the old average. Defaults to `0.97`.
        warmup_steps: Positive integer. Defaults to `25`.
        maximum_norm: Positive float or `None` for no fixed bound. Defaults to `1.0`.
        epsilon: Positive float. Defaults to `1e-6`.
        variables: Regular expression(s) for the variables' paths. Defaults to `None`, all.
        name: String. Defaults to `"z_clip"`.

    Reference:
        - [Kumar, Owen, Chowdhury & Güra, 2025](https://arxiv.org/abs/2504.02507)
    """

    z_score = Option(functools.partial(_checks.number, above=0))
    decay = Option(functools.partial(_checks.number, above=0, at_most=1))
    warmup_steps = Option(_checks.positive_integer)
    maximum_norm = Option(
        lambda name, value: None if value is None else _checks.number(name, value, above=0)
    )
    epsilon = Option(functools.partial(_checks.number, above=0))

    def __init__(
        self,
        z_score: float = 2.5,
        decay: float = 0.97,
        warmup_steps: int = 25,
        maximum_norm: float | None = 1.0,
        epsilon: float = 1e-6,
        *,
        variables: str | Sequence[str] | None = None,
        name: str | None = None,
    ):
        super().__init__(variables=variables, name=name)
        self.z_score = z_score
        self.decay = decay
        self.warmup_steps = warmup_steps
        self.maximum_norm = maximum_norm
        self.epsilon = epsilon

    def initial_memory(self):
        return {"mean": 0.0, "variance": 0.0, "count": np.int64(0)}

    def transform(self, gradients: list, norms: list, weights: list, state: State) -> Transformed:
        norm = ops.cast(clipping.combine(norms), "float32")
        mean, variance = state["mean"], state["variance"]
        warm = state["count"] >= self.warmup_steps
        spike, scaled_to = clipping.z_clip_threshold(
            norm, mean, variance, self.z_score, self.epsilon
        )
        spike = ops.logical_and(warm, spike)

        start = mean + self.z_score * (ops.sqrt(variance) + self.epsilon)
        bound = ops.where(spike, scaled_to, ops.where(warm, start, math.inf))
        maximum = math.inf if self.maximum_norm is None else self.maximum_norm
        state["threshold"] = ops.minimum(bound, maximum)

        # In warm-up the running mean and population variance of the norms as they came
        # (Welford), afterwards the moving averages; the variance about the new mean.
        state["count"] += 1
        share = ops.where(warm, 1.0 - self.decay, 1.0 / ops.cast(state["count"], "float32"))
        seen = ops.where(spike, scaled_to, norm)
        state["mean"] = mean + share * (seen - mean)
        about = ops.where(warm, seen - state["mean"], seen - mean)
        variance = (1.0 - share) * variance + share * about * (seen - state["mean"])
        state["variance"] = ops.maximum(variance, 0.0)
        return *clipping.clip_by_global_norm(gradients, state["threshold"], norms), state

    def get_config(self):
        return {
            **super().get_config(),
            "z_score": self.z_score,
            "decay": self.decay,
            "warmup_steps": self.warmup_steps,
            "maximum_norm": self.maximum_norm,
            "epsilon": self.epsilon,
        }
