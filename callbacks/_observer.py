"""What `GradientFlow` measures of the gradient in every step, inside the optimizer."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from kbptt.analysis.evidence import NONFINITE_STEPS
from kbptt.callbacks.gradient_norm import GradientNorm
from kbptt.optimizers import clipping


class Observer(GradientNorm):
    """Measures the global norm, counts steps with a NaN or infinite gradient, changes nothing.

    It measures before all transforms of the same `fit` act.

    Args:
        each: Boolean. Whether to keep the norm of every variable's gradient too.
    """

    acts_first = True

    def __init__(self, each: bool):
        super().__init__(name="gradient_norm")
        self._each = each
        self._seen = False  # whether a step of this `fit` has come by

    def initial_memory(self) -> dict[str, Any]:
        return {"nonfinite": 0.0}

    def initial_memory_per_variable(self) -> dict[str, Any]:
        # A variable without a gradient keeps this.
        return {"each": np.nan} if self._each else {}

    def transform(self, gradients, norms, weights, state):
        finite = keras.ops.isfinite(clipping.combine(norms))
        missed = keras.ops.cast(keras.ops.logical_not(finite), "float32")
        state["nonfinite"] = state["nonfinite"] + missed
        if self._each:
            state["each"] = keras.ops.stack(norms)
        return gradients, norms, state

    def on_train_begin(self, logs=None):
        super().on_train_begin(logs)
        self._seen = False
        self.state["nonfinite"].assign(0)

    def seen(self) -> dict[str, float]:
        """`global_norm` of the last step and `nonfinite_steps` of this `fit`.

        Empty before a step, and where a custom train_step bypasses the optimizer.
        """
        counts = self.step_count, self.skipped_count
        self._seen = self._seen or any(int(count.value()) for count in counts)
        if not self._seen:
            return {}
        norm, missed = self.norm_before.value(), self.state["nonfinite"]
        return {"global_norm": float(norm), NONFINITE_STEPS: float(missed.numpy())}

    def norm_of_each(self, variables: Sequence[Any]) -> dict[str, float]:
        """The norm of the last gradient of each trainable variable, by path."""
        if not self._each or "each" not in self.state:
            return {}
        norms = self.state["each"].numpy()
        return {v.path: float(n) for v, n in zip(variables, norms, strict=False)}
