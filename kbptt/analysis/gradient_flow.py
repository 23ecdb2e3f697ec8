"""Statistics of one gradient profile: the norms ‖∂L/∂h_t‖ for t = 0 (oldest) … T-1.

Every function takes a vector `(timesteps,)`, works in float64 and returns one float. Exact zeros
(beyond a cut) and non-finite norms are never silently averaged away: they have fractions of their
own, and where they make a number meaningless the result is NaN.
"""

import math

import numpy as np
from numpy.typing import ArrayLike

from kbptt import _checks

# Bounds of `verdict`: what the fitted gradient may be at the far end, relative to the near end.
VANISHING = 1e-3
EXPLODING = 1e3


def decay_per_step(norms: ArrayLike) -> float:
    """Factor by which the gradient changes for each timestep it travels into the past.

    The least-squares line through `log ‖∂L/∂h_t‖` against the lag `T-1-t` has slope
    `log(decay)`: below 1 the gradient vanishes toward the past, above 1 it explodes. For a linear
    RNN with a loss at the last timestep this tends to the spectral radius of `W_hh` (equation 2.4
    of the guide: each step back multiplies by `W_hhᵀ`).

    Zeros and non-finite norms take no part in the fit.

    Args:
        norms: Array of shape `(timesteps,)`.

    Returns:
        The factor, or NaN if fewer than two norms are positive and finite.
    """
    norms = _profile(norms)
    usable = np.isfinite(norms) & (norms > 0)
    if usable.sum() < 2:
        return math.nan
    lag = np.arange(norms.size)[::-1][usable].astype(np.float64)
    log_norms = np.log(norms[usable])
    lag -= lag.mean()
    slope = np.dot(lag, log_norms - log_norms.mean()) / np.dot(lag, lag)
    return float(np.exp(slope))


def half_life(norms: ArrayLike) -> float:
    """Timesteps into the past after which the fitted gradient has halved.

    Args:
        norms: Array of shape `(timesteps,)`.

    Returns:
        `log 2 / -log(decay)`; infinite if the gradient does not decay, NaN if there is no fit.
    """
    decay = decay_per_step(norms)
    if math.isnan(decay):
        return math.nan
    if decay >= 1:
        return math.inf
    return math.log(2) / -math.log(decay) if decay > 0 else 0.0


def horizon(norms: ArrayLike, fraction: float = 0.9) -> float:
    """Smallest number of last timesteps that hold `fraction` of the sum of the norms.

    Args:
        norms: Array of shape `(timesteps,)`.
        fraction: Float in (0, 1]. Defaults to 0.9.

    Returns:
        A whole number of timesteps as a float; 0 if every norm is 0, NaN if any is not finite.
    """
    fraction = _checks.number("fraction", fraction, above=0, at_most=1)
    norms = _profile(norms)
    if not np.isfinite(norms).all() or norms.size == 0:
        return math.nan
    if not norms.any():
        return 0.0
    held = np.cumsum(norms[::-1])
    return float(np.searchsorted(held, fraction * held[-1]) + 1)


def first_last_ratio(norms: ArrayLike) -> float:
    """‖∂L/∂h_0‖ / ‖∂L/∂h_{T-1}‖: what is left of the gradient at the first timestep.

    Args:
        norms: Array of shape `(timesteps,)`.

    Returns:
        The ratio; infinite if only the last norm is 0, NaN if both are.
    """
    norms = _profile(norms)
    if norms.size == 0:
        return math.nan
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        return float(norms[0] / norms[-1])


def zero_fraction(norms: ArrayLike) -> float:
    """Share of the timesteps whose gradient is exactly 0 (behind a cut, masked or underflowed)."""
    norms = _profile(norms)
    return float(np.mean(norms == 0)) if norms.size else math.nan


def nonfinite_fraction(norms: ArrayLike) -> float:
    """Share of the timesteps whose gradient norm is NaN or infinite."""
    norms = _profile(norms)
    return float(np.mean(~np.isfinite(norms))) if norms.size else math.nan


def summarize(norms: ArrayLike) -> dict[str, float]:
    """All statistics of one profile.

    Args:
        norms: Array of shape `(timesteps,)`, for example `layer.gradient_norms`.

    Returns:
        A dict with the keys `decay`, `half_life`, `horizon`, `first_last_ratio`, `zero_fraction`
        and `nonfinite_fraction`.
    """
    return {
        "decay": decay_per_step(norms),
        "half_life": half_life(norms),
        "horizon": horizon(norms),
        "first_last_ratio": first_last_ratio(norms),
        "zero_fraction": zero_fraction(norms),
        "nonfinite_fraction": nonfinite_fraction(norms),
    }


def verdict(norms: ArrayLike, window: int | None = None) -> tuple[str, str]:
    """Says in a word whether a gradient vanishes, from what a fit makes of its whole reach.

    The factor `decay^(reach-1)`, with the reach from the oldest timestep that gets any gradient to
    the last one, compares the two ends of the fitted line. Under truncation only the last window
    counts: what lies behind a cut is 0 by intention.

    Args:
        norms: Norms `(timesteps,)`, or `(records, timesteps)`: then the last quarter of the records
            counts, by its median.
        window: Integer. Length of the truncation windows. Defaults to None, full BPTT.

    Returns:
        `(word, reason)`: the word is `"vanishing"` (a factor below `VANISHING`), `"exploding"`
        (above `EXPLODING`), `"healthy"`, `"non-finite"` or `"no gradient"`; the reason a sentence.
    """
    norms = np.atleast_2d(np.ma.filled(np.ma.asarray(norms, np.float64), 0.0))
    if window is not None:
        norms = norms[:, -_checks.positive_integer("window", window) :]
    norms = norms[-max(1, len(norms) // 4) :]
    if not np.isfinite(norms).all():
        share = np.mean(~np.isfinite(norms).all(axis=1))
        return "non-finite", f"{share:.0%} of the latest profiles hold a NaN or infinite norm."
    if not norms.any():
        return "no gradient", "Every norm of the latest profiles is exactly 0."
    reaches, logs = [], []
    for profile in norms[norms.any(axis=1)]:
        reach = profile.size - np.flatnonzero(profile)[0]
        decay = decay_per_step(profile)
        decay = 1.0 if math.isnan(decay) else decay  # a single timestep with a gradient
        reaches.append(reach)
        logs.append((reach - 1) * math.log10(decay) if decay > 0 else -math.inf)
    reach, log_factor = float(np.median(reaches)), float(np.median(logs))
    if log_factor < math.log10(VANISHING):
        word, compared = "vanishing", f"below {VANISHING:g}"
    elif log_factor > math.log10(EXPLODING):
        word, compared = "exploding", f"above {EXPLODING:g}"
    else:
        word, compared = "healthy", f"between {VANISHING:g} and {EXPLODING:g}"
    if reach < 2:
        return (
            word,
            "The gradient reaches a single timestep: no way to vanish or explode on.",
        )
    return word, (
        f"Over the {reach:.0f} timesteps it reaches back, the fitted gradient changes by the "
        f"factor 10^{log_factor:.1f}, {compared}."
    )


def _profile(norms: ArrayLike) -> np.ndarray:
    norms = np.asarray(norms, dtype=np.float64)
    if norms.ndim != 1:
        raise ValueError(
            "Invalid value for argument `norms`. Expected one profile of shape (timesteps,). "
            f"Received: an array of shape {norms.shape}."
        )
    return norms
