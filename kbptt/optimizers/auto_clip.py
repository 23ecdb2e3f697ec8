"""AutoClip: a threshold from the history of gradient norms."""

import functools
from collections.abc import Sequence

import keras
import numpy as np
from keras import ops

from kbptt import _checks
from kbptt._attributes import Fixed, Option
from kbptt.optimizers import clipping
from kbptt.optimizers.transform import GradientTransform, State, Transformed


@keras.saving.register_keras_serializable(package="kbptt", name="optimizers.AutoClip")
class AutoClip(GradientTransform):
    """Clips the global norm to a percentile of all global norms so far.

    The norm before clipping of the current step is part of the history, so the first step is never
    clipped. The history is kept in variables of the optimizer and saved with it.

    Args:
        percentile: Float in (0, 100]. Which percentile is the threshold. Defaults to `10`: nine out
            of ten steps are scaled down, which also acts like a smaller learning rate.
        history: Positive integer. Number of norms kept; beyond that, the oldest are dropped.
            Defaults to `10000`.
        variables: Regular expression(s) for the variables' paths. Defaults to `None`, all.
        name: String. Defaults to `"auto_clip"`.

    Reference:
        - [Seetharaman, Wichern, Pardo & Le Roux, 2020](https://arxiv.org/abs/2007.14469)
    """

    percentile = Option(functools.partial(_checks.number, above=0, at_most=100))
    history = Fixed(
        lambda self: self._history, "It is the size of a buffer: make a new AutoClip(history=...)."
    )

    def __init__(
        self,
        percentile: float = 10.0,
        history: int = 10_000,
        *,
        variables: str | Sequence[str] | None = None,
        name: str | None = None,
    ):
        super().__init__(variables=variables, name=name)
        self.percentile = percentile
        self._history = _checks.positive_integer("history", history)

    def initial_memory(self):
        # Inf fills the places that are still free, and stays at the end when sorted.
        free = np.full(self.history, np.inf)
        return {"recent": free, "sorted": free, "count": np.int64(0)}

    def transform(self, gradients: list, norms: list, weights: list, state: State) -> Transformed:
        norm = ops.cast(clipping.combine(norms), "float32")
        slot = state["count"] % self.history
        oldest = ops.take(state["recent"], slot)
        here = ops.arange(self.history, dtype="int64") == slot
        state["recent"] = ops.where(here, norm, state["recent"])
        state["sorted"] = clipping.replace_sorted(state["sorted"], oldest, norm)
        state["count"] += 1
        kept = ops.minimum(state["count"], self.history)
        state["threshold"] = clipping.percentile(state["sorted"], kept, self.percentile)
        return *clipping.clip_by_global_norm(gradients, state["threshold"], norms), state

    def get_config(self):
        return {**super().get_config(), "percentile": self.percentile, "history": self.history}
