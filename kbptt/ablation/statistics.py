"""Statistics of an ablation: how much a method helps, and how sure one can be.

The data contract is that of rliable: the scores of a method are an array `(seeds, tasks)`, a row
per seed, and row `i` of every method used the same seed. Larger is better everywhere here; whoever
calls turns an error into a score first. SciPy does the arithmetic.

Reference:
- [Agarwal et al., 2021, Deep RL at the edge of the statistical precipice](
    https://arxiv.org/abs/2108.13264): interquartile mean, probability of improvement.
- [Efron, 1987, Better bootstrap confidence intervals](https://doi.org/10.2307/2289144): BCa.
- [Holm, 1979, A simple sequentially rejective multiple test procedure](
    https://www.jstor.org/stable/4615733).
"""

import dataclasses
import math
import warnings
from collections.abc import Callable, Sequence

import numpy as np
import scipy.stats

CONFIDENCE = 0.95
_EXACT_PAIRS = 14  # 2**14 sign patterns are enumerated; beyond, 99,999 are drawn
_RESAMPLES = 4000


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A value with its confidence interval; `method` says how the interval was found.

    `low` and `high` are NaN when there are too few runs for any interval.
    """

    value: float
    low: float
    high: float
    method: str


def mean(scores: np.ndarray) -> Estimate:
    """Mean over all runs, BCa interval; resampled seed by seed within each task."""
    return _bootstrap(scores, _mean_of_strata)


def interquartile_mean(scores: np.ndarray) -> Estimate:
    """Mean of the middle half of all runs, BCa interval; robust to a few outliers."""
    return _bootstrap(scores, _interquartile_mean_of_strata)


def success_rate(successes: int, runs: int) -> Estimate:
    """Share of successful runs with Wilson's interval."""
    if runs == 0:
        return Estimate(math.nan, math.nan, math.nan, "none")
    interval = scipy.stats.binomtest(int(successes), int(runs)).proportion_ci(
        CONFIDENCE, method="wilson"
    )
    return Estimate(successes / runs, float(interval.low), float(interval.high), "wilson")


def probability_of_improvement(scores: np.ndarray, reference: np.ndarray) -> Estimate:
    """P(a run of the method beats a run of the reference), ties counting half.

    The Mann-Whitney statistic of each task, averaged over the tasks. Seeds are resampled as
    pairs, because the two methods shared them.

    Args:
        scores: Array `(seeds, tasks)`, larger is better.
        reference: Array of the same shape, the same seeds in the same order.
    """
    scores, reference = _table(scores), _table(reference)
    _same_shape(scores, reference)
    tasks = scores.shape[1]

    def statistic(*strata: np.ndarray, axis: int = -1) -> np.ndarray:
        theirs, ours = strata[:tasks], strata[tasks:]
        values = []
        for x, y in zip(theirs, ours, strict=True):
            x, y = np.moveaxis(x, axis, -1), np.moveaxis(y, axis, -1)
            difference = x[..., :, None] - y[..., None, :]
            values.append(((np.sign(difference) + 1) / 2).mean(axis=(-2, -1)))
        return np.mean(values, axis=0)

    strata = [*scores.T, *reference.T]
    return _interval(strata, statistic, paired=True)


def sign_flip_p(differences: Sequence[float]) -> float:
    """Two-sided p-value of the sign-flip test on paired differences.

    Under the null hypothesis a difference is as likely to be `d` as `-d`. All `2**n` patterns of
    signs are enumerated up to 14 pairs, so that the test is exact; it cannot go below `2 / 2**n`.

    Args:
        differences: One difference per seed, method minus reference.
    """
    differences = np.asarray(differences, dtype=np.float64)
    differences = differences[np.isfinite(differences)]
    if differences.size == 0 or not differences.any():
        return 1.0
    if differences.size == 1:
        return 1.0  # one pair: both patterns are as extreme
    exact = differences.size <= _EXACT_PAIRS
    result = scipy.stats.permutation_test(
        (differences,),
        _mean,
        permutation_type="samples",
        vectorized=True,
        n_resamples=np.inf if exact else 99_999,
        rng=np.random.default_rng(0),
    )
    return min(1.0, float(result.pvalue))


def holm(p_values: Sequence[float]) -> np.ndarray:
    """Holm's adjusted p-values: the family-wise error stays at the level, whatever depends.

    NaN (a comparison that could not be made) stays NaN and does not count in the family.
    """
    p_values = np.asarray(p_values, dtype=np.float64)
    adjusted = np.full(p_values.shape, np.nan)
    valid = np.flatnonzero(np.isfinite(p_values))
    order = valid[np.argsort(p_values[valid], kind="stable")]
    steps = p_values[order] * np.arange(order.size, 0, -1)
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1.0) if order.size else steps
    return adjusted


def smallest_p(pairs: int, comparisons: int = 1) -> float:
    """What the exact test can reach at best, after Holm's correction: `comparisons * 2 / 2**n`."""
    return min(1.0, comparisons * 2.0 ** (1 - pairs))


def fewest_seeds(comparisons: int = 1) -> int:
    """The number of seeds from which `smallest_p` is at most 0.05."""
    return next(n for n in range(1, 1000) if smallest_p(n, comparisons) <= 1 - CONFIDENCE)


FEWEST_SEEDS = fewest_seeds()  # 6: 2 / 2**5 = 0.0625


def is_exploratory(seeds: int) -> bool:
    """Whether there are too few seeds for the exact test to reach 0.05 at all."""
    return seeds < FEWEST_SEEDS


@dataclasses.dataclass(frozen=True)
class Comparison:
    """A method against the reference, paired by seed."""

    difference: Estimate
    improvement: Estimate
    p: float
    pairs: int


def compare(scores: np.ndarray, reference: np.ndarray) -> Comparison:
    """Compares two methods over the seeds (rows) that both have.

    The unit is the seed: differences are averaged over the tasks of a seed before their signs are
    flipped, since one seed gives the tasks the same initial weights where shapes agree.

    Args:
        scores: Array `(seeds, tasks)`, larger is better; NaN = that run does not exist (yet).
        reference: Array of the same shape.
    """
    scores, reference = _table(scores), _table(reference)
    _same_shape(scores, reference)
    both = np.isfinite(scores).all(axis=1) & np.isfinite(reference).all(axis=1)
    scores, reference = scores[both], reference[both]
    pairs = int(both.sum())
    if pairs == 0:
        nothing = Estimate(math.nan, math.nan, math.nan, "none")
        return Comparison(nothing, nothing, math.nan, 0)
    differences = (scores - reference).mean(axis=1)
    return Comparison(
        difference=_bootstrap(differences[:, None], _mean_of_strata),
        improvement=probability_of_improvement(scores, reference),
        p=sign_flip_p(differences),
        pairs=pairs,
    )


def _mean(x: np.ndarray, axis: int = -1) -> np.ndarray:
    return np.mean(x, axis=axis)


def _mean_of_strata(*strata: np.ndarray, axis: int = -1) -> np.ndarray:
    return np.mean(np.concatenate(strata, axis=axis), axis=axis)


def _interquartile_mean_of_strata(*strata: np.ndarray, axis: int = -1) -> np.ndarray:
    return scipy.stats.trim_mean(np.concatenate(strata, axis=axis), 0.25, axis=axis)


def _bootstrap(scores: np.ndarray, statistic: Callable[..., np.ndarray]) -> Estimate:
    """Statistic of all runs of a table; NaN marks runs that do not exist."""
    strata = [column[np.isfinite(column)] for column in _table(scores).T]
    return _interval([s for s in strata if s.size], statistic)


def _interval(
    strata: list[np.ndarray], statistic: Callable[..., np.ndarray], paired: bool = False
) -> Estimate:
    if not strata:
        return Estimate(math.nan, math.nan, math.nan, "none")
    value = float(statistic(*strata, axis=-1))
    if min(s.size for s in strata) < 2:
        return Estimate(value, math.nan, math.nan, "none")
    if all(np.ptp(s) == 0 for s in strata):
        return Estimate(value, value, value, "constant")
    # BCa divides by the spread of the jackknife; where that is zero (the interquartile mean of five
    # equal scores and one outlier) the percentile interval is still defined.
    for method in ("BCa", "percentile"):
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            interval = scipy.stats.bootstrap(
                strata,
                statistic,
                n_resamples=_RESAMPLES,
                batch=500,
                vectorized=True,
                paired=paired,
                confidence_level=CONFIDENCE,
                method=method,
                rng=np.random.default_rng(0),
            ).confidence_interval
        if math.isfinite(interval.low) and math.isfinite(interval.high):
            return Estimate(value, float(interval.low), float(interval.high), method)
    return Estimate(value, math.nan, math.nan, "none")


def _table(scores: np.ndarray) -> np.ndarray:
    scores = np.asarray(scores, dtype=np.float64)
    if scores.ndim == 1:
        scores = scores[:, None]
    if scores.ndim != 2:
        raise ValueError(
            "Invalid value for argument `scores`. Expected an array of shape (seeds, tasks). "
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
