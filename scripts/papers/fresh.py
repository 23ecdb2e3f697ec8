"""Training on fresh sequences until a task is solved, in the way most of these papers do."""

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np

from papers.part import QUIET

Arrays = tuple[np.ndarray, np.ndarray]


def train(
    model: keras.Model,
    draw: Callable[[int], Arrays],
    score: Callable[[], float],
    solved: Callable[[float], bool],
    steps: int,
    epoch: int,
    batch_size: int,
    callbacks: Sequence[keras.callbacks.Callback] = (),
) -> dict[str, Any]:
    """Trains until `solved(score())`, the weights are not finite, or `steps` are used up.

    Args:
        draw: Gives so many fresh sequences with their answers.
        score: Called after each `epoch` of steps, with fresh sequences of its own.

    Returns:
        The score of every epoch as "curve", the last one as "score", "solved" (0 or 1) and "steps".
        NaN is the score of a network that has diverged.
    """
    curve: list[float] = []
    epoch = min(epoch, steps)
    while len(curve) * epoch < steps and not (curve and solved(curve[-1])):
        x, y = draw(epoch * batch_size)
        model.fit(
            x, y, batch_size=batch_size, shuffle=False, verbose=QUIET, callbacks=list(callbacks)
        )
        if not all(np.isfinite(w).all() for w in model.get_weights()):
            curve.append(float("nan"))
            break
        curve.append(float(score()))
    return {
        "score": curve[-1],
        "solved": int(bool(solved(curve[-1]))),
        "steps": len(curve) * epoch,
        "curve": [float(f"{value:.4g}") for value in curve],
    }
