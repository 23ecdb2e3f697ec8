"""Performance profiles and optimality gap against definitions written by hand."""

import itertools
import math

import numpy as np
import pytest
import scipy.stats

from kbptt.ablation import statistics


def test_profile_by_hand():
    scores = np.array([[0.1, 0.5], [0.2, 0.5], [0.3, 0.9]])
    profile = statistics.performance_profile(scores, [0.0, 0.1, 0.2, 0.5, 0.95])
    # Above, not at: 6, 5, 4, 1 and 0 of 6 runs.
    np.testing.assert_allclose(profile.share, np.array([6, 5, 4, 1, 0]) / 6)
    assert np.isnan(profile.low).all() and np.isnan(profile.high).all()  # of three seeds
    default = statistics.performance_profile(scores)
    np.testing.assert_allclose(default.thresholds, np.linspace(0, 1, 101))


def test_band_of_one_task_is_binomial():
    scores = np.random.default_rng(0).uniform(size=12)
    thresholds = [0.0, 0.25, 0.5, 0.75, 1.0]
    profile = statistics.performance_profile(scores, thresholds)
    for tau, low, high in zip(thresholds, profile.low, profile.high, strict=True):
        share = np.mean(scores > tau)
        expected = scipy.stats.binom.ppf([0.025, 0.975], 12, share) / 12
        assert (low, high) == pytest.approx(tuple(expected))


def test_band_is_the_stratified_bootstrap_by_enumeration():
    """All 5**5 resamples of two tasks of five runs each, every pair of them counted."""
    above = [np.array([1, 0, 0, 1, 1]), np.array([0, 0, 0, 0, 1])]
    counts = [
        np.bincount([sum(draw) for draw in itertools.product(column, repeat=5)], minlength=6)
        for column in above
    ]
    cumulative = np.cumsum(np.convolve(*counts)) / 25**5
    expected = [np.argmax(cumulative >= tail) / 10 for tail in (0.025, 0.975)]
    profile = statistics.performance_profile(np.stack(above, axis=1), [0.5])
    assert (profile.low[0], profile.high[0]) == pytest.approx(tuple(expected))
    assert profile.share[0] == pytest.approx(0.4)


def test_band_is_that_of_drawn_resamples():
    """The bootstrap as rliable draws it: seeds within each task, percentiles of the shares."""
    rng = np.random.default_rng(1)
    scores = rng.beta(2, [1, 2, 4], size=(20, 3))
    thresholds = np.array([0.2, 0.4, 0.6])
    drawn = np.stack([column[rng.integers(0, 20, (20_000, 20))] for column in scores.T], axis=-1)
    shares = np.array([(drawn > tau).mean(axis=(1, 2)) for tau in thresholds])
    profile = statistics.performance_profile(scores, thresholds)
    low, high = np.quantile(shares, [0.025, 0.975], axis=1)
    np.testing.assert_allclose(profile.low, low, atol=1 / 60 + 1e-9)  # one run
    np.testing.assert_allclose(profile.high, high, atol=1 / 60 + 1e-9)
    assert (profile.low < profile.share).all() and (profile.share < profile.high).all()


def test_runs_that_do_not_exist_are_left_out():
    scores = np.full((7, 2), math.nan)
    scores[:6, 0], scores[:5, 1] = 0.25, 0.75
    profile = statistics.performance_profile(scores, [0.5])
    assert profile.share[0] == pytest.approx(5 / 11)
    assert profile.low[0] == profile.high[0] == pytest.approx(5 / 11)  # no task varies
    empty = statistics.performance_profile(np.full((3, 1), math.nan), [0.5])
    assert math.isnan(empty.share[0]) and math.isnan(empty.low[0])
    few = np.where(np.arange(7)[:, None] < 4, scores, math.nan)
    assert math.isnan(statistics.performance_profile(few, [0.5]).low[0])


def test_many_runs_and_tasks():
    """Of 50,000 runs the band is the normal limit of the definition."""
    scores = np.random.default_rng(2).uniform(size=(1000, 50))
    profile = statistics.performance_profile(scores, [0.5])
    p = (scores > 0.5).mean(axis=0)
    deviation = math.sqrt((p * (1 - p)).sum() / 1000) / 50
    expected = profile.share[0] + np.array([-1, 1]) * 1.96 * deviation
    np.testing.assert_allclose([profile.low[0], profile.high[0]], expected, atol=3e-5)


def test_optimality_gap_by_hand():
    scores = np.array([[0.5, 1.5], [0.75, 1.0], [0.25, math.nan]])
    # 0.5, 0.25, 0.75 are missing, and nothing beyond the target: (0.5 + 0.25 + 0.75) / 5.
    assert statistics.optimality_gap(scores).value == pytest.approx(0.3)
    assert statistics.optimality_gap(scores, target=2.0).value == pytest.approx(
        (1.5 + 1.25 + 1.75 + 0.5 + 1.0) / 5
    )
    assert math.isnan(statistics.optimality_gap(np.full((2, 1), math.nan)).value)
    np.testing.assert_array_equal(statistics.shortfall([0.5, 3.0, math.inf]), [0.5, 0, math.nan])


def test_gap_of_scores_below_the_target_is_the_mean_mirrored():
    scores = np.random.default_rng(3).uniform(size=(9, 2))
    gap, mean = statistics.optimality_gap(scores), statistics.mean(scores)
    assert gap.value == pytest.approx(1 - mean.value) and gap.method == "BCa"
    assert (gap.low, gap.high) == pytest.approx((1 - mean.high, 1 - mean.low), abs=2e-3)
    assert statistics.optimality_gap(scores[:4]).runs == pytest.approx(1 - scores[:4].mean(axis=1))


def test_gap_beyond_all_floats():
    scores = np.array([-1.7e308, 1e308, 0.0, 1.7e308] * 2)
    found = statistics.optimality_gap(scores, target=1.7e308)
    assert found.value == pytest.approx(1.45e308)  # of 3.4, 0.7, 1.7 and 0
    small = statistics.optimality_gap(np.linspace(-8e307, 8e307, 8), target=1e308)
    assert small.value == pytest.approx(1e308) and small.low < small.value < small.high
