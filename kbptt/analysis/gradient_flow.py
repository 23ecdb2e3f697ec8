"""Statistics of one gradient profile: the norms ‖∂L/∂h_t‖ for t = 0 (oldest) … T-1.

Every function takes an array `(timesteps,)`, such as `layer.gradient_norms`, works in float64 and
returns one float. Exact zeros (beyond a cut) and non-finite norms are never silently averaged: they
have separate fractions, and where they make a number meaningless it is NaN.
"""

import collections
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from kbptt import _checks
from kbptt.analysis.thresholds import DEFAULT, Thresholds

# Verdicts that call for something to be done.
BAD = ("vanishing", "exploding", "non-finite", "no gradient")

MINUS = "\N{MINUS SIGN}"  # as in all texts for people
# Most profiles judged one by one for the share of bad ones: bounds the work on long histories.
_MOST_JUDGED = 200


def decay_per_step(norms: ArrayLike) -> float:
    """Factor by which the gradient changes per timestep into the past; NaN without a fit.

    The least-squares line through `log ‖∂L/∂h_t‖` against the lag `T-1-t` has slope
    `log(decay)`: below 1 the gradient vanishes toward the past, above 1 it explodes. For a linear
    RNN with a loss at the last timestep it tends to the spectral radius of `W_hh` (equation 2.4 of
    the guide: each step back multiplies by `W_hhᵀ`). The fit uses positive finite norms and needs
    two of them.
    """
    return _exp(_log_decay(_profile(norms)))


def half_life(norms: ArrayLike) -> float:
    """Timesteps into the past after which the fitted gradient has halved: `log 2 / -log(decay)`.

    Infinite if the gradient does not decay, NaN without a fit.
    """
    return _half_life(decay_per_step(norms))


def _half_life(decay: float) -> float:
    if math.isnan(decay):
        return math.nan
    if decay >= 1:
        return math.inf
    return math.log(2) / -math.log(decay) if decay > 0 else 0.0


def horizon(norms: ArrayLike, fraction: float = 0.9) -> float:
    """Smallest number of last timesteps that hold `fraction`, in (0, 1], of the sum of the norms.

    0 if every norm is 0, NaN if any is not finite.
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
    """‖∂L/∂h_0‖ / ‖∂L/∂h_{T-1}‖; infinite if only the last norm is 0, NaN if both are."""
    norms = _profile(norms)
    if norms.size == 0:
        return math.nan
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        return float(norms[0] / norms[-1])


def zero_fraction(norms: ArrayLike) -> float:
    """Share of the timesteps whose gradient is exactly 0: cut, underflowed or after the loss."""
    norms = _profile(norms)
    return float(np.mean(norms == 0)) if norms.size else math.nan


def nonfinite_fraction(norms: ArrayLike) -> float:
    """Share of the timesteps whose gradient norm is NaN or infinite."""
    norms = _profile(norms)
    return float(np.mean(~np.isfinite(norms))) if norms.size else math.nan


def summarize(norms: ArrayLike) -> dict[str, float]:
    """All statistics of one profile, by name.

    `decay`, `half_life`, `horizon`, `first_last_ratio`, `zero_fraction`, `nonfinite_fraction`.
    """
    norms = _profile(norms)
    decay = decay_per_step(norms)
    return {
        "decay": decay,
        "half_life": _half_life(decay),
        "horizon": horizon(norms),
        "first_last_ratio": first_last_ratio(norms),
        "zero_fraction": zero_fraction(norms),
        "nonfinite_fraction": nonfinite_fraction(norms),
    }


def verdict(
    norms: ArrayLike, window: int | None = None, thresholds: Thresholds = DEFAULT
) -> tuple[str, str]:
    """Returns in one word whether a gradient vanishes, with the reason.

    The factor `decay^(reach-1)`, where the reach is from the oldest to the latest timestep that
    gets any gradient, compares the two ends of the fitted line. (Later timesteps come after the
    last loss.) Under truncation only the last window counts: beyond a cut, the gradient is 0 by
    design.

    If every timestep has its own loss, ‖∂L/∂h_t‖ adds up many losses and hides the reach of each.
    In that case pass the gradients by lag, lag 0 last: `lag_profile.norms[::-1]`, as
    `kbptt.analysis.find_faults` does.

    Args:
        norms: Norms `(timesteps,)`, or `(records, timesteps)`, masked where a record has no such
            timestep; the geometric mean of the last quarter of the records is then judged.
        window: Integer. Length of the truncation windows; of the last one, if they are counted from
            the start. Defaults to None, full BPTT.
        thresholds: The `kbptt.analysis.Thresholds`.

    Returns:
        `(word, reason)`. The reason is a sentence with the numbers, the word one of

        * `"vanishing"`: the factor is below `vanishing`, or more than a fraction `dark` of the
          timesteps that the gradient reaches get less than `vanishing` of the largest norm;
        * `"decaying"` (below `decaying`), `"healthy"`, `"growing"` (above `growing`);
        * `"exploding"`: the factor is above `exploding`;
        * `"cut off"`: neither vanishing nor exploding, but of the timesteps (of the window) up to
          the latest that gets any gradient, more than a fraction `dark` come before the reach and
          get exactly 0. The norms do not show why: random cuts and resets are intended, a saturated
          or dead recurrence is not;
        * `"non-finite"` (any NaN or infinite norm) or `"no gradient"` (every norm is 0);
        * `"unsteady"`: not one of the bad words (`BAD`) now, but more than a fraction `unsteady` of
          all records is. If there are more than 200 records, 200 evenly spread ones are judged.
    """
    norms = np.ma.atleast_2d(np.ma.asarray(norms, np.float64))
    if norms.ndim != 2:
        raise ValueError(
            "Invalid value for argument `norms`. Expected shape (timesteps,) or (records, "
            f"timesteps). Received: an array of shape {norms.shape}."
        )
    profiles = [np.ma.compressed(profile) for profile in norms] or [np.empty(0)]
    found = overview(profiles, [window] * len(profiles), thresholds)
    return found["verdict"], found["reason"]


def overview(
    profiles: Sequence[np.ndarray],
    windows: Sequence[int | None],
    thresholds: Thresholds = DEFAULT,
) -> dict[str, Any]:
    """Summary of a run: verdict, reason, and the numbers behind them.

    All describe one profile, the geometric mean at each timestep of the last quarter of the
    profiles (`mean_profile`).

    Args:
        profiles: Norms `(timesteps,)` of each record, of any lengths; at least one.
        windows: For each record the length of its truncation windows, or None.
        thresholds: The `kbptt.analysis.Thresholds`.

    Returns:
        A dict with the keys of `summarize` and `verdict`, `reason`, `averaged` (the number of
        profiles in the mean) and `verdicts`, `{word: profiles}` of those judged one by one: all, or
        200 that are evenly spread. `decay` and `half_life`, like the verdict, are of the last
        window.
    """
    for window in windows:
        if window is not None:
            _checks.positive_integer("window", window)
    window = windows[-1]
    norms = latest(profiles)
    judged = judge(norms, window, thresholds)
    number = min(len(profiles), _MOST_JUDGED)
    spread = np.linspace(0, len(profiles) - 1, number).round().astype(int)
    words = collections.Counter(judge(profiles[at], windows[at], thresholds).word for at in spread)
    word, reason = judged.word, judged.reason
    if word not in BAD and sum(words[bad] for bad in BAD) > thresholds.unsteady * number:
        word = "unsteady"
    if len(words) > 1 or word != judged.word:
        counts = ", ".join(f"{count} {each}" for each, count in words.most_common())
        those = f"all {number}" if number == len(profiles) else f"{number} evenly spread"
        reason = f"{reason} Of {those} profiles: {counts}."
    inside = norms if window is None else norms[-window:]
    return {
        **summarize(norms),
        "decay": decay_per_step(inside),
        "half_life": half_life(inside),
        "verdict": word,
        "reason": reason,
        "averaged": _averaged(profiles),
        "verdicts": dict(words),
    }


def latest(profiles: Sequence[np.ndarray]) -> np.ndarray:
    """`mean_profile` of the last quarter of the profiles, at least of one."""
    return mean_profile(profiles[-_averaged(profiles) :])


def _averaged(profiles: Sequence[np.ndarray]) -> int:
    return max(1, len(profiles) // 4)


def mean_profile(profiles: Sequence[np.ndarray]) -> np.ndarray:
    """The geometric mean of profiles at each timestep, aligned at the last one.

    NaN where any norm is not finite, 0 where all are 0; other zeros are left out.
    """
    longest = max(map(len, profiles))
    logs, counts, finite = np.zeros(longest), np.zeros(longest), np.ones(longest, bool)
    for norms in profiles:
        norms = np.asarray(norms, np.float64)
        here = slice(longest - len(norms), None)
        positive = np.isfinite(norms) & (norms > 0)
        logs[here] += np.log(norms, where=positive, out=np.zeros(len(norms)))
        counts[here] += positive
        finite[here] &= np.isfinite(norms)
    mean = np.where(counts > 0, np.exp(logs / np.maximum(counts, 1)), 0.0)
    return np.where(finite, mean, np.nan)


class Judged(NamedTuple):
    """The verdict on one profile.

    Attributes:
        word: See `verdict`.
        reason: A sentence.
        log10_factor: Between the two ends of the fitted line; NaN without one.
        dark: Share of the reached timesteps that get less than `vanishing` of the largest norm.
    """

    word: str
    reason: str
    log10_factor: float = math.nan
    dark: float = 0.0


def judge(norms: np.ndarray, window: int | None = None, thresholds: Thresholds = DEFAULT) -> Judged:
    """The verdict on one profile `(timesteps,)`, or on its last window."""
    norms = np.asarray(norms if window is None else norms[-window:], np.float64)
    bad = np.count_nonzero(~np.isfinite(norms))
    if bad:
        return Judged("non-finite", f"NaN or infinite: {bad} of {norms.size} norms.")
    if not norms.any():
        return Judged("no gradient", "Every norm is exactly 0.")
    positive = np.flatnonzero(norms)
    missed, end = positive[0], positive[-1] + 1
    judged = _judge_reached(norms[missed:end], thresholds)
    if missed <= thresholds.dark * end:
        return judged
    # An underflow shows in the reached part. A gradient that ends from one timestep to the next may
    # be intended or not.
    those = "timesteps" if window is None else "timesteps of the window"
    reason = (
        f"{judged.reason} But the first {missed} of the {end} {those} that it could reach get "
        "exactly 0: cut off by random cuts, resets or a window that is not recorded, or by a "
        "saturated or dead recurrence."
    )
    word = judged.word if judged.word in BAD else "cut off"
    return judged._replace(word=word, reason=reason)


def _judge_reached(reached: np.ndarray, thresholds: Thresholds) -> Judged:
    """The verdict on the timesteps between the first and the last that get a gradient."""
    if reached.size == 1:
        reason = "The gradient reaches only one timestep, so it can neither vanish nor explode."
        return Judged("healthy", reason)
    log_decay = _log_decay(reached)
    steps = reached.size - 1
    log_factor = steps * log_decay / math.log(10)
    word, bounds = _word(log_factor, thresholds)
    reason = (
        f"Over the {reached.size} timesteps it reaches back, the fitted gradient changes by a "
        f"factor of {_exp(log_decay):.6g}^{steps} = {power(log_factor)}, {bounds}."
    )
    vanishing = thresholds.vanishing
    dark = float(np.mean(reached < vanishing * reached.max()))
    if dark > thresholds.dark and word not in BAD:
        word = "vanishing"
        reason += f" But {dark:.0%} of these timesteps get less than {vanishing:g} of the largest."
    return Judged(word, reason, log_factor, dark)


def _word(log_factor: float, thresholds: Thresholds) -> tuple[str, str]:
    """The word for a factor, and between which bounds it lies."""
    words = ("vanishing", "decaying", "healthy", "growing", "exploding")
    bounds = [getattr(thresholds, word) for word in words if word != "healthy"]
    at = sum(log_factor >= math.log10(bound) for bound in bounds)
    if at == 0:
        return words[0], f"below {bounds[0]:g}"
    if at == len(bounds):
        return words[-1], f"above {bounds[-1]:g}"
    return words[at], f"between {bounds[at - 1]:g} and {bounds[at]:g}"


def power(log10: float) -> str:
    """`10^log10` as text: plain if short, and never `10^−0.0`; with a real minus sign."""
    if abs(log10) < 3:
        return f"{10**log10:.3g}"
    # Not rounded to a bound that it has passed.
    exponent = f"{log10:.2f}" if abs(log10) < 3.05 else f"{log10:.1f}"
    return f"10^{exponent.replace('-', MINUS)}"


def _exp(x: float) -> float:
    with np.errstate(over="ignore"):
        return float(np.exp(x))


def _log_decay(norms: np.ndarray) -> float:
    """Slope of the least-squares line through log ‖∂L/∂h_t‖ against the lag, NaN without one."""
    usable = np.isfinite(norms) & (norms > 0)
    if usable.sum() < 2:
        return math.nan
    lag = np.arange(norms.size)[::-1][usable].astype(np.float64)
    log_norms = np.log(norms[usable])
    lag -= lag.mean()
    # Not `np.dot`, which wakes BLAS threads for a product of microseconds.
    return float((lag * (log_norms - log_norms.mean())).sum() / (lag * lag).sum())


def _profile(norms: ArrayLike) -> np.ndarray:
    norms = np.asarray(norms, dtype=np.float64)
    if norms.ndim != 1:
        raise ValueError(
            "Invalid value for argument `norms`. Expected one profile of shape (timesteps,). "
            f"Received: an array of shape {norms.shape}."
        )
    return norms
