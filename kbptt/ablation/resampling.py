"""Bootstrap intervals of many samples at once, in memory that does not grow with their number.

Samples of the same size are resampled together: SciPy draws the same indices for each of them, so
every interval equals the one computed separately.
"""

import collections
import dataclasses
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

CONFIDENCE = 0.95
FEWEST_FOR_INTERVAL = 5  # seeds: a bootstrap of fewer shows little more than their range
ELEMENTS = 2_000_000  # numbers in one intermediate array: 16 MB
_RESAMPLES = 4000
_BATCH = 500  # resamples at a time; fewer for more than 4,000 runs, by `ELEMENTS`


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A value with its confidence interval, and the `method` that gave the interval.

    `low` and `high` are NaN when there are too few seeds for an interval. Means, differences and
    success rates then keep in `runs` what they were computed from, one value per seed or run.
    """

    value: float
    low: float
    high: float
    method: str
    runs: tuple[float, ...] = ()

    def times_two_to(self, exponent: int) -> "Estimate":
        """The estimate scaled by a power of two; infinite where float64 overflows."""
        with np.errstate(over="ignore"):
            value, low, high, *runs = np.ldexp(
                [self.value, self.low, self.high, *self.runs], exponent
            ).tolist()
        return Estimate(value, low, high, self.method, tuple(runs))


NOTHING = Estimate(math.nan, math.nan, math.nan, "none")


@dataclasses.dataclass(frozen=True)
class Profile:
    """The share of runs that score above each threshold, with a pointwise confidence band.

    Arrays `(thresholds,)`. `low` and `high` are NaN when there are too few seeds for a band.
    """

    thresholds: np.ndarray
    share: np.ndarray
    low: np.ndarray
    high: np.ndarray


def exponent(*arrays: np.ndarray) -> int:
    """The power of two that scales all finite values to at most 1.

    Sums and products of the scaled values do not overflow, and scaling by a power of two changes no
    bit of the result: the sum of two scores of 1e308 is infinite, their mean is not.
    """
    largest = max((np.abs(a[np.isfinite(a)]).max(initial=0.0) for a in arrays), default=0.0)
    return int(np.frexp(largest)[1])


def unscaled(function: Callable[[np.ndarray], Any], values: np.ndarray) -> float:
    """A mean or a median of values of any magnitude."""
    power = exponent(values)
    return float(np.ldexp(function(np.ldexp(values, -power)), power))


def bootstrap(
    samples: Sequence[Sequence[np.ndarray]], statistic: Callable[..., np.ndarray]
) -> list[Estimate]:
    """The statistic of each sample with its interval; strata are resampled separately.

    Args:
        samples: For each estimate a list of strata, arrays `(runs,)`, none of them empty.
        statistic: Function of the strata, `(..., runs)`, and of `axis=-1`: some mean, which must
            scale with the values.
    """
    powers = [exponent(*strata) for strata in samples]
    estimates = [NOTHING] * len(samples)
    for sizes, members in groups([tuple(map(len, strata)) for strata in samples]).items():
        for some in _portions(members, sum(sizes)):
            if sizes:
                scaled = [[np.ldexp(s, -powers[i]) for s in samples[i]] for i in some]
                strata = [np.stack(s) for s in zip(*scaled, strict=True)]
                constant = np.all([np.ptp(s, axis=-1) == 0 for s in strata], axis=0)
                for i, found in zip(some, _intervals(strata, statistic, constant), strict=True):
                    estimates[i] = found.times_two_to(powers[i])
    return estimates


def bootstrap_improvement(pairs: Sequence[tuple[np.ndarray, np.ndarray]]) -> list[Estimate]:
    """P(a value of the first beats one of the second), for each pair of tables `(seeds, tasks)`.

    The Mann-Whitney statistic of each task, averaged over the tasks; seeds are resampled as pairs.
    """
    estimates = [NOTHING] * len(pairs)
    for (seeds, tasks), members in groups([first.shape for first, _ in pairs]).items():
        for some in _portions(members, seeds):
            if seeds and tasks:
                ranks = [list(map(_Ranks, *(table.T for table in pairs[i]))) for i in some]
                constant = [all((table == table[0]).all() for table in pairs[i]) for i in some]
                index = [np.arange(seeds)]
                found = _intervals(index, _improvement_of(ranks, seeds), np.array(constant))
                for i, estimate in zip(some, found, strict=True):
                    estimates[i] = estimate
    return estimates


def share_band(above: np.ndarray, runs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Percentile interval of the share of runs above each threshold, strata resampled separately.

    Nothing is drawn: among `n` runs of a stratum that are resampled, those above a threshold are
    binomial, so their sum over the strata has a distribution in closed form. (Its characteristic
    function is the product of theirs; the Fourier transform of that are the probabilities.)

    Args:
        above: Integer array `(strata, thresholds)`, how many runs score above.
        runs: Integer array `(strata,)`, how many there are.

    Returns:
        The bounds, two arrays `(thresholds,)`; NaN if a stratum has too few runs.
    """
    total = int(runs.sum())
    if not runs.size or runs.min() < FEWEST_FOR_INTERVAL:
        return np.full(above.shape[1], math.nan), np.full(above.shape[1], math.nan)
    circle = np.exp(2j * np.pi * np.arange(total + 1) / (total + 1))
    bounds = np.empty((2, above.shape[1]))
    patterns, where = np.unique(above, axis=1, return_inverse=True)
    for i, counts in enumerate(patterns.T):
        characteristic = np.ones(total + 1, complex)
        for (n, k), times in collections.Counter(zip(runs, counts, strict=True)).items():
            characteristic *= (1 - k / n + k / n * circle) ** (n * times)
        cumulative = np.cumsum(np.fft.fft(characteristic).real) / (total + 1)
        tails = np.array([1 - CONFIDENCE, 1 + CONFIDENCE]) / 2
        # The transform rounds: a bound that is met exactly must not move to the next count.
        bounds[:, where.ravel() == i] = (
            np.searchsorted(np.maximum.accumulate(cumulative), tails - 1e-12)[:, None] / total
        )
    return bounds[0], bounds[1]


def groups(keys: Sequence[Any]) -> dict[Any, list[int]]:
    """The indices of each key."""
    found = collections.defaultdict(list)
    for place, key in enumerate(keys):
        found[key].append(place)
    return found


def _portions(members: list[int], size: int) -> Iterator[list[int]]:
    """Splits samples of one size into groups whose resamples stay within `ELEMENTS`."""
    count = max(1, ELEMENTS // (_BATCH * max(1, size)))
    for first in range(0, len(members), count):
        yield members[first : first + count]


class _Ranks:
    """Ranks of a method's scores among those of its reference, on one task."""

    def __init__(self, scores: np.ndarray, reference: np.ndarray):
        self.order = np.argsort(reference, kind="stable")
        ordered = reference[self.order]
        self.below = np.searchsorted(ordered, scores, "left")
        self.up_to = np.searchsorted(ordered, scores, "right")

    def improvement(self, counts: np.ndarray) -> np.ndarray:
        """The statistic, `(resamples,)`, where pair i was drawn `counts[:, i]` times."""
        cumulative = np.zeros((len(counts), counts.shape[1] + 1), counts.dtype)
        np.cumsum(counts[:, self.order], axis=1, out=cumulative[:, 1:])
        twice = cumulative[:, self.below] + cumulative[:, self.up_to]  # those below, ties half
        return np.einsum("ri,ri->r", counts, twice) / (2 * counts.sum(axis=1) ** 2)


def _improvement_of(ranks: list[list[_Ranks]], seeds: int) -> Callable[..., np.ndarray]:
    """The statistic of all pairs, `(pairs, ...)`, as a function of indices `(..., drawn)`."""

    def statistic(index: np.ndarray, axis: int = -1) -> np.ndarray:
        drawn = index.reshape(-1, index.shape[-1])
        places = (np.arange(len(drawn))[:, None] * seeds + drawn).ravel()
        counts = np.bincount(places, minlength=len(drawn) * seeds).reshape(-1, seeds)
        values = [np.mean([task.improvement(counts) for task in row], axis=0) for row in ranks]
        return np.reshape(values, (len(ranks), *index.shape[:-1]))

    return statistic


def _intervals(
    strata: list[np.ndarray], statistic: Callable[..., np.ndarray], constant: np.ndarray
) -> list[Estimate]:
    """Estimates of samples whose values are stacked along the first axis of `strata`."""
    import scipy.stats

    with np.errstate(all="ignore"):
        values = statistic(*strata, axis=-1)
    nothing = np.full(values.shape, math.nan)
    if min(s.shape[-1] for s in strata) < FEWEST_FOR_INTERVAL:
        return [Estimate(float(v), math.nan, math.nan, "none") for v in values]
    # BCa divides by the spread of the jackknife; where that is zero (the interquartile mean of five
    # equal scores and one outlier) the percentile interval is still defined.
    low, high, methods, drawn = nothing, nothing, np.full(values.shape, "none", object), None
    for method in ("BCa", "percentile"):
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            drawn = scipy.stats.bootstrap(
                strata,
                statistic,
                n_resamples=0 if drawn else _RESAMPLES,
                batch=max(1, min(_BATCH, ELEMENTS // sum(s.shape[-1] for s in strata))),
                vectorized=True,
                axis=-1,
                confidence_level=CONFIDENCE,
                method=method,
                rng=np.random.default_rng(0),
                bootstrap_result=drawn,
            )
        new_low, new_high = drawn.confidence_interval
        found = (methods == "none") & np.isfinite(new_low) & np.isfinite(new_high)
        low, high = np.where(found, new_low, low), np.where(found, new_high, high)
        methods[found] = method
        if (methods != "none").all():
            break
    low, high = np.where(constant, values, low), np.where(constant, values, high)
    methods[constant] = "constant"
    return [Estimate(*map(float, e), m) for *e, m in zip(values, low, high, methods, strict=True)]
