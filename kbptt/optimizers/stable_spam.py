"""The two parts of Stable-SPAM: clipping of spikes, and a norm from running moments."""

import functools
from collections.abc import Sequence

import keras
import numpy as np
from keras import ops

from kbptt import _checks
from kbptt._attributes import Option
from kbptt.optimizers import clipping
from kbptt.optimizers.transform import GradientTransform, State, Transformed


@keras.saving.register_keras_serializable(package="kbptt", name="optimizers.AdaClip")
class AdaClip(GradientTransform):
    """Clips the elements of each variable's gradient that exceed a moving maximum.

    For every variable, the bound is the bias-corrected moving average of the largest magnitude in
    its gradient, including the current step, so the first step is never clipped. An element above
    it is multiplied by bound / largest magnitude. This changes the direction of the step.

    The first half of Stable-SPAM; `GradientStabilizer` after it is the second. The averages are
    kept in variables of the optimizer and saved with it. The logged threshold is the largest of the
    bounds.

    Args:
        decay: Float in [0, 1), the paper's γ₃. Share of the old average. With 0 the bound is the
            current maximum and nothing is clipped. Defaults to `0.999`.
        variables: Regular expression(s) for the variables' paths. Defaults to `None`, all.
        name: String. Defaults to `"ada_clip"`.

    Reference:
        - [Huang et al., 2025](https://arxiv.org/abs/2502.17055v1), "Stable-SPAM"
    """

    decay = Option(_checks.share)

    def __init__(
        self,
        decay: float = 0.999,
        *,
        variables: str | Sequence[str] | None = None,
        name: str | None = None,
    ):
        super().__init__(variables=variables, name=name)
        self.decay = decay

    def initial_memory_per_variable(self):
        return {"maximum": 0.0, "count": np.int64(0)}

    def transform(self, gradients: list, norms: list, weights: list, state: State) -> Transformed:
        largest = [ops.max(ops.abs(gradient), initial=0.0) for gradient in gradients]
        now = ops.stack([ops.cast(one, "float64") for one in largest])
        bounds = clipping.running_mean(state["maximum"], now, state["count"], self.decay)
        clipped = clipping.clip_spikes(gradients, ops.unstack(bounds, len(gradients)), largest)
        state["maximum"] = ops.cast(bounds, "float32")
        state["count"] += 1
        state["threshold"] = ops.max(state["maximum"])
        return clipped, None, state

    def get_config(self):
        return {**super().get_config(), "decay": self.decay}


@keras.saving.register_keras_serializable(package="kbptt", name="optimizers.GradientStabilizer")
class GradientStabilizer(GradientTransform):
    """Replaces the norm of each variable's gradient by an estimate, and keeps its direction.

    With m and v the bias-corrected moving averages of the norm n and of n², including the current
    step:

        g  <-  g / n * m / (sqrt(v) + epsilon)

    So the step does not depend on the scale of the loss: steady norms become 1, smaller ones less.
    If decay² < square_decay, no spike, whatever its size, gives a norm above (1 - decay) / sqrt((1
    - square_decay) * (1 - decay² / square_decay)) in the long run: 1.4 with the defaults, and about
    (1 - decay) / sqrt(1 - square_decay), 0.95, at a spike far above everything before.

    A gradient of 0 stays 0 and is counted with norm 0. The averages are kept in variables of the
    optimizer and saved with it. The logged threshold is the global norm of the estimates.

    Args:
        decay: Float in [0, 1), the authors' γ₁. Share of the old average of the norm. Defaults to
            `0.7`.
        square_decay: Float in [0, 1), γ₂. Share of the old average of the squared norm. Defaults to
            `0.9`.
        epsilon: Positive float. Defaults to `1e-8`.
        variables: Regular expression(s) for the variables' paths. Defaults to `None`, all.
        name: String. Defaults to `"gradient_stabilizer"`.

    Reference:
        - [Huang et al., 2026](https://arxiv.org/abs/2502.17055), "GradientStabilizer"; the AdaGN of
          Stable-SPAM, their first version
    """

    decay = Option(_checks.share)
    square_decay = Option(_checks.share)
    epsilon = Option(functools.partial(_checks.number, above=0))

    def __init__(
        self,
        decay: float = 0.7,
        square_decay: float = 0.9,
        epsilon: float = 1e-8,
        *,
        variables: str | Sequence[str] | None = None,
        name: str | None = None,
    ):
        super().__init__(variables=variables, name=name)
        self.decay = decay
        self.square_decay = square_decay
        self.epsilon = epsilon

    def initial_memory_per_variable(self):
        # The root of v: the square of a norm that float32 can hold may be none.
        return {"mean": 0.0, "root_mean_square": 0.0, "count": np.int64(0)}

    def transform(self, gradients: list, norms: list, weights: list, state: State) -> Transformed:
        now, count = ops.cast(ops.stack(norms), "float64"), state["count"]
        mean = clipping.running_mean(state["mean"], now, count, self.decay)
        before = ops.square(ops.cast(state["root_mean_square"], "float64"))
        square = clipping.running_mean(before, ops.square(now), count, self.square_decay)
        root = ops.sqrt(ops.maximum(square, 0.0))
        estimates = mean / (root + self.epsilon)
        state["mean"] = ops.cast(mean, "float32")
        state["root_mean_square"] = ops.cast(root, "float32")
        state["count"] += 1
        state["threshold"] = ops.cast(clipping.safe_norm(estimates), "float32")
        return *clipping.rescale(gradients, estimates, norms), state

    def get_config(self):
        return {
            **super().get_config(),
            "decay": self.decay,
            "square_decay": self.square_decay,
            "epsilon": self.epsilon,
        }
