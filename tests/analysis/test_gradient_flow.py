"""Gradient statistics against closed forms."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kbptt.analysis import gradient_flow as gf


def geometric(decay, timesteps=50, last=3.0):
    """‖∂L/∂h_t‖ = last · decay^(T-1-t)."""
    return last * decay ** np.arange(timesteps)[::-1].astype(np.float64)


@given(st.floats(0.5, 2.0), st.integers(2, 300), st.floats(1e-3, 1e3))
def test_decay_of_a_geometric_profile_is_its_ratio(decay, timesteps, last):
    assert gf.decay_per_step(geometric(decay, timesteps, last)) == pytest.approx(decay, rel=1e-9)


def test_decay_of_a_linear_rnn_tends_to_the_spectral_radius():
    """Guide, equation 2.4 with the loss at the last step only: dh_{t-1} = Wᵀ dh_t."""
    weights = np.array([[0.8, 0.3], [0.0, 0.5]])
    dh, norms = np.array([1.0, -2.0]), []
    for _ in range(400):
        norms.append(np.linalg.norm(dh))
        dh = weights.T @ dh
    assert gf.decay_per_step(norms[::-1]) == pytest.approx(0.8, abs=1e-3)


@given(st.floats(1e-6, 1e6))
def test_statistics_do_not_depend_on_the_scale_of_the_loss(scale):
    norms = geometric(0.9)
    for key, value in gf.summarize(norms).items():
        assert gf.summarize(scale * norms)[key] == pytest.approx(value, rel=1e-6), key


def test_half_life():
    assert gf.half_life(geometric(0.5)) == pytest.approx(1.0)
    assert gf.half_life(geometric(2 ** (-1 / 7))) == pytest.approx(7.0)
    assert gf.half_life(geometric(1.1)) == math.inf


def test_horizon_counts_the_last_timesteps():
    assert gf.horizon([1.0, 1.0, 1.0, 1.0]) == 4
    assert gf.horizon([1.0, 1.0, 1.0, 1.0], fraction=0.5) == 2
    assert gf.horizon([0.0, 0.0, 0.0, 5.0]) == 1
    assert gf.horizon([5.0, 0.0, 0.0, 0.0]) == 4
    # Geometric: the last k hold (1 - r^k) / (1 - r^T) of the sum.
    ratio, total = 0.9, 1 - 0.9**200
    expected = math.ceil(math.log(1 - 0.9 * total) / math.log(ratio))
    assert gf.horizon(geometric(ratio, 200)) == expected


def test_zeros_beyond_a_cut_take_no_part_in_the_fit():
    norms = geometric(0.7, 40)
    norms[:30] = 0
    assert gf.decay_per_step(norms) == pytest.approx(0.7)
    assert gf.zero_fraction(norms) == 0.75
    assert gf.first_last_ratio(norms) == 0
    assert gf.horizon(norms) <= 10


def test_nonfinite_norms_are_counted_not_averaged():
    norms = geometric(0.7, 40)
    norms[3], norms[5] = np.nan, np.inf
    assert gf.nonfinite_fraction(norms) == 0.05
    assert gf.decay_per_step(norms) == pytest.approx(0.7)
    assert math.isnan(gf.horizon(norms))


def test_degenerate_profiles_do_not_warn_or_raise():
    assert math.isnan(gf.summarize([])["decay"])
    assert gf.summarize([2.0])["first_last_ratio"] == 1
    assert math.isnan(gf.decay_per_step([2.0]))
    zeros = gf.summarize(np.zeros(5, np.float32))
    assert zeros["zero_fraction"] == 1 and zeros["horizon"] == 0
    assert math.isnan(zeros["first_last_ratio"]) and math.isnan(zeros["half_life"])
    assert gf.first_last_ratio([1.0, 0.0]) == math.inf


def test_float32_extremes_do_not_overflow():
    tiny = np.array([1e-45, 1e-30, 1.0], np.float32)
    assert 0 < gf.decay_per_step(tiny) < 1e-15
    assert gf.horizon(np.full(1000, 3e38, np.float32)) == 900


@pytest.mark.parametrize(
    ("norms", "window", "word"),
    [
        (geometric(0.8), None, "vanishing"),  # 0.8^49 = 2e-5
        (geometric(0.99), None, "healthy"),
        (geometric(1.2), None, "exploding"),
        (geometric(0.8), 10, "healthy"),  # 0.8^9 = 0.13 within the window
        (np.r_[np.zeros(40), geometric(0.8, 10)], None, "healthy"),
        (np.r_[np.nan, geometric(0.99)], None, "non-finite"),
        (np.zeros(5), None, "no gradient"),
        (np.r_[np.zeros(5), 1.0], None, "healthy"),
        ([geometric(0.5)] * 3 + [geometric(0.99)], None, "healthy"),  # only the latest count
        ([geometric(1e-12)], None, "vanishing"),
    ],
)
def test_verdict(norms, window, word):
    assert gf.verdict(norms, window)[0] == word


def test_the_verdict_states_its_figures():
    word, reason = gf.verdict(geometric(0.1, 11))
    assert word == "vanishing"
    assert "11 timesteps" in reason and "10^-10.0" in reason and "below 0.001" in reason
    assert "a single timestep" in gf.verdict([1.0])[1]


def test_bad_arguments_are_refused():
    with pytest.raises(ValueError, match=r"shape \(2, 3\)"):
        gf.summarize(np.ones((2, 3)))
    for window in (0, -5, 2.5, True):
        with pytest.raises(ValueError, match="`window`"):
            gf.verdict(geometric(0.9), window)
    with pytest.raises(ValueError, match="fraction"):
        gf.horizon([1.0], fraction=0)
