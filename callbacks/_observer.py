"""What `GradientFlow` measures of the gradient in every step, inside the optimizer."""

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np

from kbptt.analysis.evidence import CLIP_RATE, NONFINITE_STEPS
from kbptt.callbacks.gradient_norm import GradientNorm
from kbptt.optimizers import clipping
from kbptt.optimizers.wrapper import unwrapped

# Norms after Keras's own clipping, by the name of its argument, in the order in which Keras asks.
_AFTER: dict[str, Callable[..., Any]] = {
    "clipnorm": lambda values, norms, bound: clipping.clip_by_norm(values, bound, norms)[1],
    "global_clipnorm": lambda values, norms, bound: clipping.clip_by_global_norm(
        values, bound, norms
    )[1],
    "clipvalue": lambda values, norms, bound: clipping.norms(clipping.clip_by_value(values, bound)),
}


class Observer(GradientNorm):
    """Measures the global norm, counts steps with a NaN or infinite gradient, changes nothing.

    It measures before all transforms of the same `fit` act. It also counts the steps in which the
    optimizer's own clipping acts (`clipnorm=…`): no transform that changes a gradient stands
    between, since kbptt refuses both at once.

    Args:
        each: Boolean. Whether to keep the norm of every variable's gradient too.
    """

    acts_first = True

    def __init__(self, each: bool):
        super().__init__(name="gradient_norm")
        self._each = each
        self._seen = False  # whether a step of this `fit` has come by

    def initial_memory(self) -> dict[str, Any]:
        return {"nonfinite": 0.0, "clipped": 0.0}

    def initial_memory_per_variable(self) -> dict[str, Any]:
        # A variable without a gradient keeps this.
        return {"each": np.nan} if self._each else {}

    def transform(self, gradients, norms, weights, state):
        finite = keras.ops.isfinite(clipping.combine(norms))
        missed = keras.ops.cast(keras.ops.logical_not(finite), "float32")
        state["nonfinite"] = state["nonfinite"] + missed
        name, bound = self._own_clipping()
        if name:
            shrank = clipping.shrank(norms, _AFTER[name](gradients, norms, bound))
            state["clipped"] = state["clipped"] + keras.ops.cast(shrank, "float32")
        if self._each:
            state["each"] = keras.ops.stack(norms)
        return gradients, norms, state

    def on_train_begin(self, logs=None):
        super().on_train_begin(logs)
        self._seen = False
        for count in self.initial_memory():
            self.state[count].assign(0)

    def seen(self) -> dict[str, float]:
        """`global_norm` of the last step, `nonfinite_steps` of this `fit`, and a clip rate.

        The rate is that of the optimizer's own clipping, if it has any, below the name of the
        argument. Empty before a step, and where a custom train_step bypasses the optimizer.
        """
        counts = self.step_count, self.skipped_count
        self._seen = self._seen or any(int(count.value()) for count in counts)
        if not self._seen:
            return {}
        norm, missed = self.norm_before.value(), self.state["nonfinite"]
        found = {"global_norm": float(norm), NONFINITE_STEPS: float(missed.numpy())}
        name, _ = self._own_clipping()
        steps = int(self.step_count.value())
        if name and steps:
            found[f"{name}/{CLIP_RATE}"] = float(self.state["clipped"].numpy()) / steps
        return found

    def _own_clipping(self) -> tuple[str, float]:
        """Name and bound of the optimizer's own clipping; an empty name without it.

        The parts of a `MultiOptimizer` are not looked into.
        """
        updating = unwrapped(self.model.optimizer)[-1]
        bounds = ((name, getattr(updating, name, None)) for name in _AFTER)
        return next(((name, bound) for name, bound in bounds if bound), ("", 0.0))

    def norm_of_each(self, variables: Sequence[Any]) -> dict[str, float]:
        """The norm of the last gradient of each trainable variable, by path."""
        if not self._each or "each" not in self.state:
            return {}
        norms = self.state["each"].numpy()
        return {v.path: float(n) for v, n in zip(variables, norms, strict=False)}
