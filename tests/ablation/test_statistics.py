"""Statistics against hand-computed values, enumeration and simulated tables."""

import itertools
import math
import tracemalloc
from fractions import Fraction

import numpy as np
import pytest
import scipy.stats

from kbptt.ablation import statistics


def enumerated_sign_flip(differences):
    """The definition: the share of the 2**n sign patterns at least as extreme as the data."""
    observed = abs(sum(differences))
    patterns = list(itertools.product((-1, 1), repeat=len(differences)))
    extreme = sum(
        abs(sum(s * d for s, d in zip(signs, differences, strict=True))) >= observed - 1e-12
        for signs in patterns
    )
    return extreme / len(patterns)


@pytest.mark.parametrize(
    "differences",
    [[1.0, 2.0, 3.0], [1.0, -1.0, 2.0, 0.5], [0.1] * 6, [0.3, -0.2, 0.0, 0.4, 0.1, -0.6, 0.9]],
)
def test_sign_flip_is_the_enumeration(differences):
    assert statistics.sign_flip_p(differences) == pytest.approx(enumerated_sign_flip(differences))


def test_sign_flip_floor_by_hand():
    # Every difference positive: only the all-plus and all-minus patterns are as extreme.
    for n in (2, 5, 6, 10):
        assert statistics.sign_flip_p(np.arange(1, n + 1)) == pytest.approx(2 / 2**n)
    assert statistics.is_exploratory(5)
    assert not statistics.is_exploratory(6)


def test_fewest_seeds_is_where_the_enumeration_reaches_five_percent():
    for comparisons in (1, 3, 4, 10):
        n = statistics.fewest_seeds(comparisons)
        best = [comparisons * enumerated_sign_flip([1.0] * m) for m in (n - 1, n)]
        assert best[0] > 0.05 >= best[1]
        assert statistics.smallest_p(n, comparisons) == pytest.approx(best[1])


def test_sign_flip_degenerate():
    assert statistics.sign_flip_p([]) == 1.0
    assert statistics.sign_flip_p([0.0] * 8) == 1.0
    assert statistics.sign_flip_p([3.0]) == 1.0
    assert statistics.sign_flip_p([3.0, math.nan, 2.0]) == pytest.approx(0.5)


def test_sign_flip_beyond_enumeration_agrees_with_the_normal_limit():
    differences = np.random.default_rng(0).normal(0.3, 1.0, 60)
    z = differences.sum() / math.sqrt((differences**2).sum())
    expected = 2 * scipy.stats.norm.sf(abs(z))
    assert statistics.sign_flip_p(differences) == pytest.approx(expected, abs=0.01)


def test_holm_by_hand():
    # Sorted .005 .01 .03 .04 times 4 3 2 1 = .02 .03 .06 .04, made monotone: .02 .03 .06 .06.
    adjusted = statistics.holm([0.01, 0.04, 0.03, 0.005])
    np.testing.assert_allclose(adjusted, [0.03, 0.06, 0.06, 0.02])
    np.testing.assert_allclose(statistics.holm([0.6, 0.9]), [1.0, 1.0])
    # A comparison that could not be made does not count.
    np.testing.assert_allclose(statistics.holm([0.02, math.nan]), [0.02, math.nan])
    assert statistics.holm([]).size == 0


def test_interquartile_mean_by_hand():
    # Eight values: two dropped at either end.
    scores = np.array([[0.0], [1.0], [2.0], [3.0], [4.0], [5.0], [6.0], [100.0]])
    estimate = statistics.interquartile_mean(scores)
    assert estimate.value == pytest.approx((2 + 3 + 4 + 5) / 4)
    assert estimate.low <= estimate.value <= estimate.high < 100


def test_mean_interval_is_scipy_bca():
    x = np.random.default_rng(1).normal(size=12)
    estimate = statistics.mean(x)
    expected = scipy.stats.bootstrap(
        (x,), np.mean, n_resamples=4000, batch=500, method="BCa", rng=np.random.default_rng(0)
    ).confidence_interval
    assert (estimate.low, estimate.high) == pytest.approx((expected.low, expected.high))
    assert estimate.method == "BCa"


def test_tasks_are_strata():
    # All spread is between the tasks; a bootstrap over pooled runs would report a wide interval.
    scores = np.stack([np.linspace(0.0, 0.01, 8), np.linspace(0.99, 1.0, 8)], axis=1)
    estimate = statistics.mean(scores)
    assert estimate.value == pytest.approx(0.5)
    assert estimate.high - estimate.low < 0.01


@pytest.mark.parametrize("function", [statistics.mean, statistics.interquartile_mean])
def test_degenerate_samples(function):
    constant = function(np.full((6, 2), 0.25))
    assert (constant.value, constant.low, constant.high) == (0.25, 0.25, 0.25)
    one = function(np.array([[0.5]]))
    assert one.value == 0.5 and math.isnan(one.low)
    outlier = function(np.array([1.0, 1.0, 1.0, 1.0, 1.0, 9.0]))
    assert math.isfinite(outlier.low) and math.isfinite(outlier.high)
    missing = function(np.array([0.0, math.nan, 1.0]))
    assert missing.value == 0.5
    assert math.isnan(function(np.array([math.nan, math.nan])).value)


def test_probability_of_improvement_by_hand():
    # Pairs (x, y): 1>0, 1<2, 3>0, 3>2 = 3/4; second task: a tie everywhere = 1/2.
    scores = np.array([[1.0, 5.0], [3.0, 5.0]])
    reference = np.array([[0.0, 5.0], [2.0, 5.0]])
    value = statistics.probability_of_improvement(scores, reference).value
    assert value == pytest.approx((0.75 + 0.5) / 2)
    rng = np.random.default_rng(3)
    x, y = rng.normal(size=9), rng.normal(size=9)
    u = scipy.stats.mannwhitneyu(x, y).statistic / 81
    assert statistics.probability_of_improvement(x, y).value == pytest.approx(u)


def test_success_rate_is_wilson():
    # Wilson, Statistical inference, k = 5 of 5: low = n / (n + z**2), high = 1.
    z = scipy.stats.norm.ppf(0.975)
    estimate = statistics.success_rate(5, 5)
    assert (estimate.value, estimate.high) == (1.0, pytest.approx(1.0))
    assert estimate.low == pytest.approx(5 / (5 + z**2))
    assert math.isnan(statistics.success_rate(0, 0).value)


def test_planted_effect_is_found():
    rng = np.random.default_rng(4)
    reference = rng.normal(0.5, 0.05, (10, 2))
    comparison = statistics.compare(reference + rng.normal(0.2, 0.05, (10, 2)), reference)
    assert comparison.p == pytest.approx(2 / 2**10)
    assert comparison.difference.low > 0.1
    assert comparison.difference.value == pytest.approx(0.2, abs=0.05)
    assert comparison.improvement.value > 0.95


def test_null_effect_is_found_at_the_stated_level_only():
    """Four methods that do nothing, 400 tables: the family-wise error is at most 5 %."""
    rng = np.random.default_rng(5)
    tables, false_positives, single = 400, 0, 0
    for _ in range(tables):
        reference = rng.standard_t(3, 8)
        p = [statistics.sign_flip_p(rng.standard_t(3, 8) - reference) for _ in range(4)]
        false_positives += bool((statistics.holm(p) <= 0.05).any())
        single += p[0] <= 0.05
    # One-sided binomial bounds at 99.9 %: a correct test fails this about once in 1000 seeds.
    bound = scipy.stats.binom.ppf(0.999, tables, 0.05)
    assert false_positives <= bound
    assert single <= bound


def test_exact_level_by_enumeration():
    # Over all 2**6 sign patterns of one table, exactly the stated share is rejected.
    sizes = np.array([0.3, 1.1, 0.7, 2.0, 0.5, 0.9])
    p = [statistics.sign_flip_p(sizes * s) for s in itertools.product((-1, 1), repeat=6)]
    assert np.mean(np.array(p) <= 0.05) <= 0.05
    assert min(p) == pytest.approx(2 / 64)


def test_compare_uses_the_seeds_that_both_have():
    scores = np.array([[1.0], [2.0], [math.nan], [4.0]])
    reference = np.array([[0.0], [math.nan], [1.0], [3.0]])
    comparison = statistics.compare(scores, reference)
    assert comparison.pairs == 2
    assert comparison.difference.value == pytest.approx(1.0)
    empty = statistics.compare(np.full((2, 1), math.nan), np.zeros((2, 1)))
    assert empty.pairs == 0 and math.isnan(empty.p)


def test_shapes_are_checked():
    with pytest.raises(ValueError, match="paired seeds"):
        statistics.compare(np.zeros((3, 1)), np.zeros((4, 1)))
    with pytest.raises(ValueError, match=r"\(seeds, tasks\)"):
        statistics.mean(np.zeros((2, 2, 2)))


def test_many_tables_together_give_the_numbers_of_each_alone():
    rng = np.random.default_rng(6)
    shapes = [(6, 1), (8, 2), (6, 1), (3, 2), (8, 2), (0, 1), (7, 3)]
    tables = [rng.normal(size=shape) for shape in shapes]
    tables[4][2, 1] = math.nan
    references = [rng.normal(size=shape) for shape in shapes]
    for many, one in (
        (statistics.means, statistics.mean),
        (statistics.interquartile_means, statistics.interquartile_mean),
    ):
        np.testing.assert_equal(
            [vars(e) for e in many(tables)], [vars(one(table)) for table in tables]
        )
    pairs = list(zip(tables, references, strict=True))
    together = statistics.comparisons(pairs)
    for found, pair in zip(together, pairs, strict=True):
        expected = statistics.compare(*pair)
        np.testing.assert_equal(vars(found.difference), vars(expected.difference))
        np.testing.assert_equal(vars(found.improvement), vars(expected.improvement))
        np.testing.assert_equal((found.p, found.pairs), (expected.p, expected.pairs))


@pytest.mark.parametrize("shape", [(7, 1), (9, 2)])
def test_improvement_interval_is_scipy_on_the_definition(shape):
    """The counts and ranks of the code against the definition, all pairs of runs compared."""
    rng = np.random.default_rng(7)
    scores, reference = np.round(rng.normal(size=(2, *shape)), 1)  # with ties

    def definition(*columns, axis=-1):
        tasks = shape[1]
        values = []
        for x, y in zip(columns[:tasks], columns[tasks:], strict=True):
            x, y = np.moveaxis(x, axis, -1), np.moveaxis(y, axis, -1)
            values.append(((np.sign(x[..., :, None] - y[..., None, :]) + 1) / 2).mean((-2, -1)))
        return np.mean(values, axis=0)

    expected = scipy.stats.bootstrap(
        [*scores.T, *reference.T],
        definition,
        n_resamples=4000,
        batch=500,
        paired=True,
        vectorized=True,
        rng=np.random.default_rng(0),
    ).confidence_interval
    found = statistics.probability_of_improvement(scores, reference)
    assert (found.low, found.high) == pytest.approx(tuple(expected), rel=1e-12)


@pytest.mark.parametrize("seeds", [2, 3, 4])
def test_below_five_seeds_there_is_no_interval(seeds):
    scores = np.random.default_rng(8).normal(size=(seeds, 2))
    for estimate in (statistics.mean(scores), statistics.interquartile_mean(scores)):
        assert math.isfinite(estimate.value) and math.isnan(estimate.low)
    assert statistics.mean(scores).runs == pytest.approx(scores.mean(axis=1))
    assert statistics.mean(np.ones((seeds, 1))).method == "none"  # equal by chance, perhaps
    comparison = statistics.compare(scores, scores - 1)
    assert comparison.difference.runs == pytest.approx([1.0] * seeds)
    assert math.isnan(comparison.improvement.low)
    few, many = (statistics.success_rate(3, 8, seeds=n) for n in (seeds, 5))
    assert math.isnan(few.low) and few.runs == (1.0,) * 3 + (0.0,) * 5
    assert many.low < 3 / 8 < many.high and not many.runs
    five = statistics.mean(np.random.default_rng(8).normal(size=5))
    assert five.low < five.value < five.high and not five.runs


def test_memory_does_not_grow_with_runs_and_resamples():
    """All pairs of 1,000 runs in each of 500 resamples at a time were 4 GB."""
    rng = np.random.default_rng(9)
    pairs = [tuple(rng.normal(size=(2, 1000, 1)))]
    tracemalloc.start()
    try:
        found = statistics.comparisons(pairs)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 150 * 2**20
    x, y = pairs[0]
    u = scipy.stats.mannwhitneyu(x[:, 0], y[:, 0]).statistic / 1000**2
    assert found[0].improvement.value == pytest.approx(u)


def exact_mean(values):
    return float(sum(map(Fraction, values)) / len(values))


@pytest.mark.parametrize("power", [1022, -1000])
def test_numbers_of_any_size(power):
    """Sums beyond all floats, squares below all: the same as of numbers around 1."""
    scores = np.random.default_rng(0).uniform(-1, 1, (2, 12, 2))
    large = np.ldexp(scores, power)
    for of in (statistics.mean, statistics.interquartile_mean):
        expected, found = of(scores[0]), of(large[0])
        assert found == expected.times_two_to(power) and math.isfinite(found.low)
    assert statistics.mean(large[0]).value == pytest.approx(exact_mean(large[0].ravel()), rel=1e-12)
    expected, found = statistics.compare(*scores), statistics.compare(*large)
    assert found.p == expected.p and found.improvement == expected.improvement
    assert found.difference == expected.difference.times_two_to(power)
    assert statistics.sign_flip_p(large[0, :, 0]) == statistics.sign_flip_p(scores[0, :, 0])


def test_difference_beyond_all_floats():
    found = statistics.compare(np.full((6, 1), 1e308), np.full((6, 1), -1e308))
    assert found.difference.value == math.inf and found.p == 2 / 2**6


def test_few_runs_of_one_task_are_not_listed_as_those_of_many_seeds():
    scores = np.full((56, 2), np.nan)
    scores[:, 0], scores[:2, 1] = np.arange(56), 1  # the second task has just begun
    assert statistics.mean(scores).runs == ()
    assert statistics.mean(scores[:4]).runs == (0.5, 1, 2, 3)
