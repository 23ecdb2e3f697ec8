"""How far back the losses of a model reach under its truncation, from gradients by lag.

With a loss at every timestep, ‖∂L/∂h_t‖ does not show the reach: each timestep gets the gradient of
a nearby loss. The gradient of a single loss by lag does (`kbptt.analysis.lag_profile`).
"""

from typing import Any

import numpy as np

from kbptt.analysis import gradient_flow
from kbptt.truncation import windows

LAGS = 256
SEQUENCES = 4
# Bounds lags × timesteps, to which the cost of measuring is proportional.
_BUDGET = 2**16


def lags_to_measure(timesteps: int) -> int:
    """Number of lags that can be measured in the time of a few training steps."""
    return max(2, min(timesteps, LAGS, max(32, _BUDGET // timesteps)))


def measured(task: Any, sequences: Any, epochs: int, lags: int | None = None) -> dict[str, Any]:
    """Arguments of `kbptt.callbacks.GradientFlow` that measure the reach during training.

    With a loss at every timestep: gradients by lag of a few sequences, before the first step and
    after the last epoch. With a single loss: none, since ‖∂L/∂h_t‖ shows the reach.

    Args:
        task: The `kbptt.tasks.Task`.
        sequences: Some of its sequences, and their targets: `SEQUENCES` are enough.
        epochs: Integer. Epochs of the training.
        lags: Integer. Lags to measure, also where there is a single loss; 0 for none. Defaults to
            `None`, what can be measured in the time of a few training steps.
    """
    if lags is None:
        lags = lags_to_measure(sequences[0].shape[1]) if task.outputs.per_timestep else 0
    if not lags:
        return {}
    return {"lag_data": sequences, "lag_freq": epochs, "max_lags": lags}


def statistics(
    norms: Any, truncation: Any = None, timesteps: int | None = None
) -> dict[str, float]:
    """`kbptt.analysis.gradient_flow.summarize` of the gradients by lag that truncation keeps.

    Args:
        norms: φ, `(lags,)`: the mean norm of ∂L_s/∂h_{s−k}, lag 0 first, without truncation.
        truncation: The layer's `kbptt.truncation.Truncation`, or None. Lags from its `length` on
            are left out. Of the `stride` losses at the end of a window, earlier ones reach less far
            back: `horizon` weights each lag by the share of losses that reach it. Randomized
            truncation cuts nothing on average.
        timesteps: Integer. Length of the sequences; a `length` that long cuts nothing. Defaults to
            `None`, longer than all windows.

    Returns:
        The keys of `summarize`: `decay` is the factor per lag, `horizon` the number of timesteps,
        the loss's own included, that hold 90 % of a loss's gradient.
    """
    norms = np.asarray(norms, np.float64)
    share = _share_of_losses(np.arange(norms.size), truncation, timesteps)
    found = gradient_flow.summarize(norms[share > 0][::-1])
    return found | {"horizon": gradient_flow.horizon((norms * share)[share > 0][::-1])}


def _share_of_losses(lags: np.ndarray, truncation: Any, timesteps: int | None) -> np.ndarray:
    """Share of the losses of a window that reach back each lag: `(lags,)`."""
    length = getattr(truncation, "length", None)
    if length is None:
        return np.ones(lags.size)
    w = windows.of(timesteps or length + truncation.stride, truncation)
    # The latest loss reaches back the whole window, each earlier one a step less.
    return np.clip((w.length - lags) / w.stride, 0, 1) if w.starts.any() else np.ones(lags.size)
