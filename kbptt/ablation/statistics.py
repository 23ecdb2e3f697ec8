"""Statistics of an ablation: how much a method helps, and how certain it is.

The data contract is that of rliable: the scores of a method are an array `(seeds, tasks)`, one row
per seed, and row `i` of every method used the same seed. Larger is better throughout: callers
negate errors. NaN (or an infinite score) marks a missing run, which is excluded; in a comparison,
so is its whole seed. Give failed runs a bad score instead. SciPy does the arithmetic; it is
imported for a report, not while trials are planned.

Reference:
- [Agarwal et al., 2021, Deep RL at the edge of the statistical precipice](
    https://arxiv.org/abs/2108.13264): interquartile mean, optimality gap, performance profiles,
    probability of improvement.
- [Efron, 1987, Better bootstrap confidence intervals](https://doi.org/10.2307/2289144): BCa.
- [Holm, 1979, A simple sequentially rejective multiple test procedure](
    https://www.jstor.org/stable/4615733).
"""

import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from kbptt.ablation.resampling import (
    CONFIDENCE,
    ELEMENTS,
    FEWEST_FOR_INTERVAL,
    NOTHING,
    Estimate,
    Profile,
    bootstrap,
    bootstrap_improvement,
    exponent,
    groups,
    share_band,
    unscaled,
)
from kbptt.ablation.text import shown

_EXACT_PAIRS = 14  # 2**14 sign patterns are enumerated; beyond, 99,999 are drawn
_DRAWN = 99_999


def mean(scores: np.ndarray) -> Estimate:
    """Mean over all runs with a BCa interval, resampled by seed within each task."""
    return means([scores])[0]


def means(tables: Sequence[np.ndarray]) -> list[Estimate]:
    """`mean` of each of many tables, resampled together to save time."""
    return _with_runs(tables, bootstrap(_strata(tables), _mean_of_strata))


def interquartile_mean(scores: np.ndarray) -> Estimate:
    """Mean of the middle half of all runs with a BCa interval; robust to a few outliers."""
    return interquartile_means([scores])[0]


def interquartile_means(tables: Sequence[np.ndarray]) -> list[Estimate]:
    """`interquartile_mean` of each of many tables."""
    return bootstrap(_strata(tables), _interquartile_mean_of_strata)


def optimality_gap(scores: np.ndarray, target: float = 1.0) -> Estimate:
    """Mean amount by which the runs miss `target`, with a BCa interval; lower is better.

    A run beyond the target counts as meeting it: unlike in a mean, it cannot make up for others.

    Args:
        scores: Array `(seeds, tasks)`, larger is better.
        target: Number, the desired score. Defaults to `1.0`.
    """
    # Halves, because the difference of two large numbers could overflow.
    return mean(shortfall(_table(scores) / 2, target / 2)).times_two_to(1)


def shortfall(scores: np.ndarray, target: float = 1.0) -> np.ndarray:
    """By how much each run misses `target`, 0 if it does not: the optimality gap is their mean."""
    scores = _array(scores, "scores")
    with np.errstate(over="ignore"):  # the difference of two numbers as large as floats get
        return np.maximum(target - np.where(np.isfinite(scores), scores, math.nan), 0)


def performance_profile(
    scores: np.ndarray, thresholds: Sequence[float] | np.ndarray | None = None
) -> Profile:
    """The fraction of all runs with a score above each threshold, with a pointwise 95 % band.

    The band is the percentile interval of a bootstrap by seed within each task, in closed form
    instead of with drawn resamples. A method whose profile is above another's everywhere is better
    at every level (stochastic dominance); profiles that cross are a trade-off.

    Args:
        scores: Array `(seeds, tasks)`, larger is better.
        thresholds: Rising numbers. Defaults to 101 from 0 to 1, for scores on that scale.
    """
    thresholds = np.linspace(0, 1, 101) if thresholds is None else _array(thresholds, "thresholds")
    strata = _strata([scores])[0]
    above = np.array([(s[:, None] > thresholds).sum(axis=0) for s in strata], int)
    above = above.reshape(len(strata), thresholds.size)
    runs = np.array(list(map(len, strata)), int)
    total = runs.sum()
    share = above.sum(axis=0) / total if total else np.full(thresholds.shape, math.nan)
    return Profile(thresholds, share, *share_band(above, runs))


def success_rate(successes: int, runs: int, seeds: int | None = None) -> Estimate:
    """Fraction of successful runs with Wilson's interval.

    Args:
        successes: Integer, how many runs reached the threshold.
        runs: Integer, how many runs there are.
        seeds: Integer, how many seeds they have. Defaults to `runs`.
    """
    successes, runs = int(successes), int(runs)
    if runs == 0:
        return NOTHING
    if (runs if seeds is None else seeds) < FEWEST_FOR_INTERVAL:
        single = (1.0,) * successes + (0.0,) * (runs - successes)
        return Estimate(successes / runs, math.nan, math.nan, "none", single)
    return Estimate(successes / runs, *_wilson(successes, runs), "wilson")


@functools.cache
def _wilson(successes: int, runs: int) -> tuple[float, float]:
    import scipy.stats

    interval = scipy.stats.binomtest(successes, runs).proportion_ci(CONFIDENCE, method="wilson")
    return float(interval.low), float(interval.high)


def probability_of_improvement(scores: np.ndarray, reference: np.ndarray) -> Estimate:
    """P(a run of the method beats a run of the reference), ties counting half.

    The Mann-Whitney statistic of each task, averaged over the tasks. Seeds are resampled as pairs,
    because both methods use the same.

    Args:
        scores: Array `(seeds, tasks)`, larger is better.
        reference: Array of the same shape, the same seeds in the same order.
    """
    scores, reference = _table(scores), _table(reference, "reference")
    _same_shape(scores, reference)
    return bootstrap_improvement([(scores, reference)])[0]


def sign_flip_p(differences: Sequence[float] | np.ndarray) -> float:
    """Two-sided p-value of the sign-flip test on paired differences.

    Under the null hypothesis a difference is as likely to be `d` as `-d`. Up to 14 pairs, all
    `2**n` patterns of signs are enumerated, which makes the test exact; p is at least `2 / 2**n`.

    Args:
        differences: One difference per seed, method minus reference.
    """
    pairs = _array(differences, "differences")
    return float(_sign_flip(pairs[np.isfinite(pairs)][None])[0])


def _sign_flip(differences: np.ndarray) -> np.ndarray:
    """`sign_flip_p` of each row of `(comparisons, pairs)`."""
    count, pairs = differences.shape
    if pairs < 2:  # one pair: both patterns are as extreme
        return np.ones(count)
    powers = [[-exponent(row)] for row in differences]
    differences = np.ldexp(differences, np.array(powers, int).reshape(-1, 1))  # p stays the same
    # A sum that differs from the observed one only by rounding counts as equally extreme.
    least = np.abs(differences.sum(axis=1)) - 1e-12 * np.abs(differences).sum(axis=1)
    exact = pairs <= _EXACT_PAIRS
    patterns = 2**pairs if exact else _DRAWN
    extreme, rng = np.zeros(count), np.random.default_rng(0)
    rows = max(1, ELEMENTS // max(pairs, count))
    for first in range(0, patterns, rows):
        number = min(rows, patterns - first)
        if exact:
            signs = np.arange(first, first + number)[:, None] >> np.arange(pairs) & 1
        else:
            signs = np.unpackbits(
                rng.integers(0, 256, (number, -(-pairs // 8)), np.uint8), axis=1, count=pairs
            )
        sums = (2.0 * signs - 1.0) @ differences.T
        extreme += (np.abs(sums) >= least).sum(axis=0)
    # With drawn patterns the observed one counts too, so that p is never 0.
    return extreme / patterns if exact else (extreme + 1) / (patterns + 1)


def holm(p_values: Sequence[float] | np.ndarray) -> np.ndarray:
    """Holm's adjusted p-values, which control the family-wise error under any dependence.

    NaN (a comparison that could not be made) stays NaN and is not part of the family.
    """
    found = _array(p_values, "p_values")
    adjusted = np.full(found.shape, np.nan)
    valid = np.flatnonzero(np.isfinite(found))
    order = valid[np.argsort(found[valid], kind="stable")]
    steps = found[order] * np.arange(order.size, 0, -1)
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1.0) if order.size else steps
    return adjusted


def smallest_p(pairs: int, comparisons: int = 1) -> float:
    """The smallest p of the exact test after Holm's correction: `comparisons * 2 / 2**n`."""
    return min(1.0, comparisons * 2.0 ** (1 - pairs))


def fewest_seeds(comparisons: int = 1) -> int:
    """The number of seeds from which `smallest_p` is at most 0.05."""
    return next(n for n in range(1, 1000) if smallest_p(n, comparisons) <= 1 - CONFIDENCE)


FEWEST_SEEDS = fewest_seeds()  # 6: 2 / 2**5 = 0.0625


def is_exploratory(seeds: int) -> bool:
    """Whether there are too few seeds for the exact test to reach 0.05."""
    return seeds < FEWEST_SEEDS


@dataclasses.dataclass(frozen=True)
class Comparison:
    """A method against the reference, paired by seed; `better` counts the pairs that it wins."""

    difference: Estimate
    improvement: Estimate
    p: float
    pairs: int
    better: int = 0


def compare(scores: np.ndarray, reference: np.ndarray) -> Comparison:
    """Compares two methods over the seeds (rows) that both have.

    The unit is the seed: differences are averaged over the tasks before their signs are flipped,
    because tasks with the same seed share initial weights where shapes agree.

    Args:
        scores: Array `(seeds, tasks)`, larger is better; NaN = that run does not exist (yet).
        reference: Array of the same shape.
    """
    return comparisons([(scores, reference)])[0]


def sign_tests(pairs: Sequence[tuple[np.ndarray, np.ndarray]]) -> list[tuple[float, float]]:
    """Mean difference and p of `compare` of each pair of tables; NaN where they share no seed."""
    differences, powers = _differences(_both(pairs))
    with np.errstate(over="ignore"):
        means = [
            np.ldexp(d.mean(), power) if d.size else math.nan
            for d, power in zip(differences, powers, strict=True)
        ]
    return list(zip(map(float, means), map(float, _p_values(differences)), strict=True))


def comparisons(pairs: Sequence[tuple[np.ndarray, np.ndarray]]) -> list[Comparison]:
    """`compare` of each of many pairs of tables."""
    both = _both(pairs)
    differences, powers = _differences(both)
    p_values = _p_values(differences)
    return [
        Comparison(
            difference.times_two_to(power), improvement, float(p), d.size, int((d > 0).sum())
        )
        for difference, improvement, p, d, power in zip(
            means([d[:, None] for d in differences]),
            bootstrap_improvement(both),
            p_values,
            differences,
            powers,
            strict=True,
        )
    ]


def _both(
    pairs: Sequence[tuple[np.ndarray, np.ndarray]],
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Pairs of tables with the seeds that both have."""
    return [
        _common_seeds(_table(scores), _table(reference, "reference")) for scores, reference in pairs
    ]


def _differences(
    both: Sequence[tuple[np.ndarray, np.ndarray]],
) -> tuple[list[np.ndarray], list[int]]:
    """Differences by seed of each pair, scaled by the power of two of the second list."""
    powers = [exponent(*tables) for tables in both]
    differences = [
        (np.ldexp(scores, -power) - np.ldexp(reference, -power)).mean(axis=1)
        for (scores, reference), power in zip(both, powers, strict=True)
    ]
    return differences, powers


def _p_values(differences: Sequence[np.ndarray]) -> np.ndarray:
    """`sign_flip_p` of each; NaN without a pair."""
    p_values = np.full(len(differences), math.nan)
    for size, members in groups([d.shape for d in differences]).items():
        if size != (0,):
            p_values[members] = _sign_flip(np.stack([differences[i] for i in members]))
    return p_values


def _common_seeds(scores: np.ndarray, reference: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    _same_shape(scores, reference)
    both = np.isfinite(scores).all(axis=1) & np.isfinite(reference).all(axis=1)
    return scores[both], reference[both]


def _mean_of_strata(*strata: np.ndarray, axis: int = -1) -> np.ndarray:
    return np.mean(np.concatenate(strata, axis=axis), axis=axis)


def _interquartile_mean_of_strata(*strata: np.ndarray, axis: int = -1) -> np.ndarray:
    import scipy.stats

    return scipy.stats.trim_mean(np.concatenate(strata, axis=axis), 0.25, axis=axis)


def _strata(tables: Sequence[np.ndarray]) -> list[list[np.ndarray]]:
    """The runs of each task of each table; NaN marks runs that do not exist."""
    columns = [[c[np.isfinite(c)] for c in _table(table).T] for table in tables]
    return [[stratum for stratum in strata if stratum.size] for strata in columns]


def _with_runs(tables: Sequence[np.ndarray], estimates: Sequence[Estimate]) -> list[Estimate]:
    """Adds the mean of every seed to the means without an interval."""
    found = []
    for table, estimate in zip(tables, estimates, strict=True):
        if estimate.method == "none":
            rows = [row[np.isfinite(row)] for row in _table(table)]
            runs = tuple(unscaled(np.mean, row) for row in rows if row.size)
            # One task may have too few runs although there are many seeds: too many to list.
            if len(runs) < FEWEST_FOR_INTERVAL:
                estimate = dataclasses.replace(estimate, runs=runs)
        found.append(estimate)
    return found


def _array(values: Any, name: str) -> np.ndarray:
    """Numbers as an array, or an error that says which argument has none."""
    try:
        return np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(
            f"Invalid value for argument `{name}`. Expected numbers, rows of equal length; NaN "
            f"marks a missing run. Received: {shown(values)}."
        ) from None


def _table(scores: Any, name: str = "scores") -> np.ndarray:
    scores = _array(scores, name)
    if scores.ndim == 1:
        scores = scores[:, None]
    if scores.ndim != 2:
        raise ValueError(
            f"Invalid value for argument `{name}`. Expected an array of shape (seeds, tasks). "
            f"Received: shape {scores.shape}."
        )
    return scores


def _same_shape(scores: np.ndarray, reference: np.ndarray) -> None:
    if scores.shape != reference.shape:
        raise ValueError(
            "Invalid value for argument `reference`. Expected the shape of `scores`, "
            f"{scores.shape}: methods are compared over paired seeds. "
            f"Received: shape {reference.shape}."
        )
