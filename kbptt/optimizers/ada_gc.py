"""AdaGC: a bound on every variable's gradient that follows its own norms."""

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


@keras.saving.register_keras_serializable(package="kbptt", name="optimizers.AdaGC")
class AdaGC(GradientTransform):
    """Clips each variable's gradient relative to a moving average of its own clipped norms.

    For the gradient g of one variable and the average γ of its norms, after the warm-up:

        g  <-  g * min(1, relative_threshold * γ / norm(g))
        γ  <-  decay * γ + (1 - decay) * norm(g),  with g as clipped

    In the first `warmup_steps` steps the global norm is clipped at `warmup_threshold`, and γ is the
    smallest norm that the variable's clipped gradient had. Afterwards γ grows by at most
    (1 - decay) * (relative_threshold - 1) a step, 0.1 % with the defaults, however large the
    gradients are.

    A norm of 0 does not change γ (the paper does not mention this case): otherwise a variable whose
    gradient was 0 in the warm-up would be bounded by 0 forever. While γ is unknown, nothing is
    clipped.

    The logged threshold is `warmup_threshold` in the warm-up, and afterwards the largest global
    norm that the bounds of all variables allow. The averages are kept in variables of the
    optimizer and saved with it.

    Args:
        relative_threshold: Float of at least 1, the paper's λ_rel. Largest ratio of a norm to the
            average. Defaults to `1.05`.
        decay: Float in [0, 1), the paper's β. Share of the old average. Defaults to `0.98`.
        warmup_steps: Integer of at least 0, the paper's T_start. Defaults to `100`.
        warmup_threshold: Positive float or `None` for no bound, the paper's λ_abs. Largest global
            norm in the warm-up. Defaults to `1.0`.
        variables: Regular expression(s) for the variables' paths. Defaults to `None`, all.
        name: String. Defaults to `"ada_gc"`.

    Reference:
        - [Wang et al., 2025](https://arxiv.org/abs/2502.11034)
    """

    relative_threshold = Option(functools.partial(_checks.number, at_least=1))
    decay = Option(_checks.share)
    warmup_steps = Option(_checks.count)
    warmup_threshold = Option(
        lambda name, value: None if value is None else _checks.number(name, value, above=0)
    )

    def __init__(
        self,
        relative_threshold: float = 1.05,
        decay: float = 0.98,
        warmup_steps: int = 100,
        warmup_threshold: float | None = 1.0,
        *,
        variables: str | Sequence[str] | None = None,
        name: str | None = None,
    ):
        super().__init__(variables=variables, name="ada_gc" if name is None else name)
        self.relative_threshold = relative_threshold
        self.decay = decay
        self.warmup_steps = warmup_steps
        self.warmup_threshold = warmup_threshold

    def initial_memory(self):
        return {"count": np.int64(0)}

    def initial_memory_per_variable(self):
        return {"average": math.inf}  # unknown: bounds nothing

    def transform(self, gradients: list, norms: list, weights: list, state: State) -> Transformed:
        warm = state["count"] >= self.warmup_steps
        average = state["average"]
        bounds = self.relative_threshold * average
        maximum = math.inf if self.warmup_threshold is None else self.warmup_threshold
        factors = ops.where(
            warm,
            clipping.shrink_factor(ops.stack(norms), bounds),
            clipping.shrink_factor(clipping.combine(norms), maximum),
        )
        factors = ops.unstack(factors, len(norms))
        after = clipping.scaled(norms, factors)

        seen = ops.cast(ops.stack(after), "float32")
        followed = self.decay * average + (1.0 - self.decay) * seen
        known = ops.logical_and(warm, ops.isfinite(average))
        average = ops.where(known, followed, ops.minimum(average, seen))
        state["average"] = ops.where(seen > 0, average, state["average"])
        state["threshold"] = ops.where(
            warm, ops.cast(clipping.safe_norm(bounds), "float32"), maximum
        )
        state["count"] += 1
        return clipping.scaled(gradients, factors), after, state

    def get_config(self):
        return {
            **super().get_config(),
            "relative_threshold": self.relative_threshold,
            "decay": self.decay,
            "warmup_steps": self.warmup_steps,
            "warmup_threshold": self.warmup_threshold,
        }
