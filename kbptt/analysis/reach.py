"""How far back the losses of a model reach under its truncation, from gradients by lag.

With a loss at every timestep ‖∂L/∂h_t‖ says nothing about reach: each timestep gets the gradient of
a loss close by. The gradient of a single loss by lag does (`kbptt.analysis.lag_profile`).
"""

import math
from typing import Any

import numpy as np

from kbptt.analysis import gradient_flow

LAGS = 256
SEQUENCES = 4
# Measuring costs about lags × timesteps; longer sequences are measured over fewer lags.
_BUDGET = 2**16


def lags_to_measure(timesteps: int) -> int:
    """How many lags can be measured in the time of a few training steps."""
    return max(2, min(timesteps, LAGS, max(32, _BUDGET // timesteps)))


def measured(task: Any, data: Any, epochs: int) -> dict[str, Any]:
    """Arguments of `kbptt.callbacks.GradientFlow` that measure a training's reach.

    Gradients by lag of a few validation sequences, before the first step and after the last epoch,
    if there is a loss at every timestep; else none: a single loss needs no other measure.

    Args:
        task: The `kbptt.tasks.Task`.
        data: Its `TaskData`.
        epochs: Integer. Epochs of the training.
    """
    if not task.outputs.per_timestep:
        return {}
    x, y = (part[:SEQUENCES] for part in data.validation)
    lags = lags_to_measure(y.shape[1])
    return {"lag_data": (x, y), "lag_freq": epochs, "max_lags": lags}


def statistics(
    norms: Any, truncation: Any = None, timesteps: int | None = None
) -> dict[str, float]:
    """`kbptt.analysis.gradient_flow.summarize` of the gradients by lag, as far as they are not cut.

    Args:
        norms: φ, `(lags,)`: the mean norm of ∂L_s/∂h_{s−k}, lag 0 first, without truncation.
        truncation: The layer's `kbptt.truncation.Truncation`, or None. From its `length` on nothing
            counts. Of the `stride` losses that end a window, the earlier ones reach less far back:
            `horizon` weights each lag with the share of the losses that reach it. A randomized
            truncation cuts nothing off on average.
        timesteps: Integer. Length of the sequences: a `length` that long cuts nothing. Defaults to
            `None`, longer than all windows.

    Returns:
        The keys of `summarize`: `decay` is the factor per lag, `horizon` the number of timesteps,
        the loss's own included, that hold 90 % of a loss's gradient.
    """
    norms = np.asarray(norms, np.float64)
    length = getattr(truncation, "length", None) or math.inf
    if timesteps is not None and length >= timesteps:
        length = math.inf
    stride = getattr(truncation, "stride", None) or 1
    lags = np.arange(norms.size)
    reached = norms[lags < length]
    share = np.clip((length - lags[lags < length]) / stride, 0, 1)
    found = gradient_flow.summarize(reached[::-1])
    return found | {"horizon": gradient_flow.horizon((reached * share)[::-1])}
