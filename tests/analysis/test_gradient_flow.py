"""Gradient statistics against closed forms."""

import math

import numpy as np
import pytest
from hypothesis import given, strategies as st

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


def hole(records, word):
    """Healthy but for these of 100 records; the last ones are healthy again."""
    norms = np.stack([geometric(0.99)] * 100)
    norms[records] = {
        "vanishing": geometric(0.5),
        "exploding": geometric(2.0),
        "non-finite": np.full(50, np.nan),
        "no gradient": np.zeros(50),
    }[word]
    return norms


GAP = np.ones(50)
GAP[10:30] = 1e-6


@pytest.mark.parametrize(
    ("norms", "window", "word"),
    [
        (geometric(0.8), None, "vanishing"),  # 0.8^49 = 2e-5
        (geometric(0.99), None, "healthy"),
        (geometric(1.2), None, "exploding"),
        (geometric(0.8), 10, "healthy"),  # 0.8^9 = 0.13 within the window
        # Without a window nothing cuts the gradient, so what it does not reach has no known reason.
        (np.r_[np.zeros(40), geometric(0.8, 10)], 10, "healthy"),
        (np.r_[np.zeros(40), geometric(0.8, 10)], None, "cut off"),
        (np.r_[np.zeros(90), np.ones(10)], None, "cut off"),
        (np.r_[np.zeros(90), np.ones(10)], 20, "cut off"),
        (np.r_[np.zeros(99), 1.0], None, "cut off"),
        (np.r_[np.zeros(99), 1.0], 1, "healthy"),
        (np.r_[np.zeros(25), np.ones(75)], None, "healthy"),
        (np.r_[np.zeros(26), np.ones(74)], None, "cut off"),
        (np.r_[np.zeros(40), geometric(2.0, 20)], None, "exploding"),
        (np.r_[np.zeros(40), geometric(0.5, 20)], None, "vanishing"),
        (geometric(0.5, 400).astype(np.float32), None, "vanishing"),  # underflows
        # After the last loss there is no gradient, and none that could go anywhere.
        (np.r_[np.ones(10), np.zeros(90)], None, "healthy"),
        (np.r_[np.zeros(30), np.ones(10), np.zeros(60)], None, "cut off"),
        (np.r_[np.zeros(1), np.ones(10), np.zeros(60)], None, "healthy"),
        (np.r_[np.nan, geometric(0.99)], None, "non-finite"),
        (np.r_[np.nan, geometric(0.99)], 50, "healthy"),
        (np.zeros(5), None, "no gradient"),
        (np.zeros((0, 5)), None, "no gradient"),
        ([1.0], None, "healthy"),
        (np.r_[1.0, np.zeros(5)], None, "healthy"),
        ([geometric(1e-12)], None, "vanishing"),
        ([1e300, 1e-300], None, "exploding"),
        # Between healthy and vanishing there is something, and at each bound it begins.
        (geometric(10 ** (-2.9 / 49)), None, "decaying"),
        (geometric(10 ** (-3.1 / 49)), None, "vanishing"),
        (geometric(10 ** (-0.9 / 49)), None, "healthy"),
        (geometric(10 ** (2.9 / 49)), None, "growing"),
        (geometric(10 ** (3.1 / 49)), None, "exploding"),
        # A dark gap does not show in the fit's two ends.
        (GAP, None, "vanishing"),
        (np.where(GAP < 1, 0, 1), None, "vanishing"),
        (np.where(np.arange(50) == 20, 0, 1), None, "healthy"),
        (GAP, 15, "healthy"),
        # Of a run the last quarter counts, unless much of what was before is bad.
        ([geometric(0.5)] * 3 + [geometric(0.99)], None, "unsteady"),
        ([geometric(0.5)] + [geometric(0.99)] * 3, None, "healthy"),
        ([geometric(0.99)] * 3 + [geometric(0.5)], None, "vanishing"),
        *((hole(slice(25, 75), word), None, "unsteady") for word in gf.BAD),
        *((hole(slice(0, 20), word), None, "healthy") for word in gf.BAD),
        *((hole(slice(80, 99), word), None, word) for word in ("vanishing", "non-finite")),
    ],
)
def test_verdict(norms, window, word):
    assert gf.verdict(norms, window)[0] == word


def test_the_verdict_states_its_figures():
    word, reason = gf.verdict(geometric(0.1, 11))
    assert word == "vanishing"
    assert "11 timesteps" in reason and "0.1^10 = 10^−10.0" in reason and "below 0.001" in reason
    assert "only one timestep" in gf.verdict([1.0])[1]
    assert "40% of these timesteps" in gf.verdict(GAP)[1]
    reason = gf.verdict(hole(slice(25, 75), "vanishing"))[1]
    assert reason.endswith("Of all 100 profiles: 50 healthy, 50 vanishing.")


def test_what_no_timestep_of_a_window_gets_is_told():
    word, reason = gf.verdict(np.r_[np.zeros(90), np.ones(10)])
    assert word == "cut off" and "0.1 and 10. But the first 90 of the 100 timesteps that" in reason
    assert "saturated or dead" in reason
    assert "the first 99 of the 100 timesteps" in gf.verdict(np.r_[np.zeros(99), 1.0])[1]
    # What comes before the window is cut by intention.
    reason = gf.verdict(np.r_[np.zeros(96), np.ones(4)], 16)[1]
    assert "the first 12 of the 16 timesteps of the window" in reason
    # Some zeros do not make the rest dark, and are nothing to be told.
    assert "But" not in gf.verdict(np.r_[np.zeros(5), np.ones(95)])[1]


def test_random_cuts_close_up_over_the_records():
    """Each record ends elsewhere: that is no bad sign of a run that reaches back as a whole."""
    norms = np.ones((100, 50))
    for number, record in enumerate(norms):
        record[: number * 7 % 50] = 0
    found = gf.overview(list(norms), [None] * 100)
    assert found["verdict"] == "healthy" and set(found["verdicts"]) == {"healthy", "cut off"}
    assert found["reason"].endswith("Of all 100 profiles: 74 cut off, 26 healthy.")
    # A recurrence that has died in the course of training never gets there again.
    norms[60:] = np.r_[np.zeros(49), 1]
    assert gf.verdict(norms)[0] == "cut off"


def test_of_a_long_history_an_even_sample_is_judged():
    norms = np.repeat(hole(slice(25, 75), "vanishing"), 10, axis=0)
    word, reason = gf.verdict(norms)
    assert word == "unsteady"
    assert reason.endswith("Of 200 evenly spread profiles: 100 healthy, 100 vanishing.")


@given(st.floats(0.5, 2.0), st.integers(2, 300))
def test_no_figure_is_a_power_of_zero(decay, timesteps):
    reason = gf.verdict(geometric(decay, timesteps))[1]
    assert "10^−0" not in reason and "10^0" not in reason


def test_verdict_and_numbers_are_of_one_profile():
    """The last profile is not like those before: neither decides alone."""
    rng = np.random.default_rng(0)
    decays = rng.uniform(0.8, 1.1, 40)
    profiles = [geometric(decay, 128) for decay in decays]
    found = gf.overview(profiles, [None] * 40)
    mean = np.exp(np.log(decays[-10:]).mean())  # of the last quarter
    assert found["averaged"] == 10
    assert found["decay"] == pytest.approx(mean) != pytest.approx(decays[-1], rel=1e-3)
    word, reason = gf.verdict(gf.mean_profile(profiles[-10:]))
    assert found["reason"].startswith(reason)
    assert (word, f"{mean:.6g}^127 = ") == ("decaying", reason.split("factor of ")[1][:15])
    figures = gf.summarize(gf.mean_profile(profiles[-10:]))
    assert {key: found[key] for key in figures} == figures


def test_under_truncation_decay_and_verdict_are_of_the_last_window():
    norms = np.tile(geometric(0.5, 10), 4)  # a saw-tooth, which as a whole hardly falls
    found = gf.overview([norms], [10])
    assert found["decay"] == pytest.approx(0.5) and "0.5^9 = 0.00195" in found["reason"]
    assert found["half_life"] == pytest.approx(1) and found["verdict"] == "decaying"
    # Each record has its own window.
    found = gf.overview([geometric(0.9)] * 2 + [geometric(0.6)] * 2, [None, None, 9, 9])
    assert found["verdicts"] == {"decaying": 4}


def test_the_mean_profile_hides_nothing():
    profiles = [[1.0, 4.0, 0.0, 0.0, 1.0], [1.0, 0.0, 0.0, np.inf], [9.0, 0.0, 0.0, 1.0]]
    mean = gf.mean_profile(profiles)
    np.testing.assert_allclose(mean, [1, np.cbrt(4 * 1 * 9), 0, 0, np.nan])


def test_bad_arguments_are_refused():
    with pytest.raises(ValueError, match=r"shape \(2, 3\)"):
        gf.summarize(np.ones((2, 3)))
    with pytest.raises(ValueError, match=r"shape \(1, 2, 3\)"):
        gf.verdict(np.ones((1, 2, 3)))
    for window in (0, -5, 2.5, True):
        with pytest.raises(ValueError, match="`window`"):
            gf.verdict(geometric(0.9), window)
    with pytest.raises(ValueError, match="fraction"):
        gf.horizon([1.0], fraction=0)
