"""Randomized truncation (guide 1.3): unbiased, as drawn, repeatable."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf
from recurrent import (
    CELLS,
    GivenFactors,
    assert_same,
    data,
    differentiate,
    make,
    randomize,
    reference,
)

import kbptt
from kbptt.engine import Effects, draw_factors
from kbptt.layers.options import Factors
from kbptt.truncation import Randomized

T = 9
POLICIES = [
    Randomized(0.6),
    Randomized(np.linspace(0.3, 1.0, T).tolist()),
    Randomized.artbp(3, 2),
    Randomized.artbp(16, 6),
]


def all_patterns(policy, timesteps=T):
    """Every cut pattern: ξ as `(timesteps, 2^(timesteps − 1))` and the probability of each.

    From the definition: P(ξ_t = 0) = c_t and P(ξ_t = 1/(1 − c_t)) = 1 − c_t, where ARTBP's c
    depends on the steps since the last cut, counted backward from the end.
    """
    patterns, probabilities = [], []
    for cuts in itertools.product([False, True], repeat=timesteps - 1):
        xi, probability, since = np.ones(timesteps), 1.0, 1
        for t in range(timesteps - 1, 0, -1):
            if hasattr(policy, "mean_length"):
                c = policy.alpha / ((policy.alpha - 1) * policy.mean_length + since)
            else:
                c = 1 - np.broadcast_to(policy.keep_probability, timesteps)[t]
            cut = cuts[t - 1]
            xi[t] = 0 if cut else 1 / (1 - c)
            probability *= c if cut else 1 - c
            since = 1 if cut else since + 1
        patterns.append(xi)
        probabilities.append(probability)
    return np.stack(patterns, axis=1), np.array(probabilities)


@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize("policy", POLICIES, ids=repr)
@pytest.mark.parametrize("cell", CELLS)
def test_the_mean_over_all_cut_patterns_is_full_bptt(cell, policy):
    """One sample of the batch per pattern, its loss weighted by the probability of the pattern."""
    xi, probability = all_patterns(policy)
    assert probability.sum() == pytest.approx(1, abs=1e-12)
    count = 2 ** (T - 1)
    x, state, e, d = data(cell, T, batch=1)
    layer = make(cell, truncation=GivenFactors(xi))
    repeated = [np.repeat(a, count, axis=0) for a in (x, *state, e, *d)]
    n = len(state)
    x_all, state_all, e_all, d_all = (
        repeated[0],
        repeated[1 : 1 + n],
        repeated[1 + n] * probability[:, None, None],
        [v * probability[:, None] for v in repeated[2 + n :]],
    )
    dx, d_state, d_weights, *_ = differentiate(layer, x_all, state_all, e_all, d_all)
    layer.truncation = None
    full_dx, full_state, full_weights, *_ = differentiate(layer, x, state, e, d)
    np.testing.assert_allclose(dx.sum(axis=0), full_dx[0], rtol=1e-10, atol=1e-10)
    for a, b in zip(d_state, full_state, strict=True):
        np.testing.assert_allclose(a.sum(axis=0), b[0], rtol=1e-10, atol=1e-10)
    for a, b in zip(d_weights, full_weights, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-10)


@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize("policy", POLICIES, ids=repr)
def test_every_pattern_is_drawn_as_defined(policy):
    """`draw_factors` with numbers that force each pattern."""
    xi, probability = all_patterns(policy)
    uniform = np.where(xi == 0, 0.0, 1 - 1e-12)
    # A timestep that is never cut has no such pattern.
    possible = probability > 0
    drawn = draw_factors(tf.constant(uniform), policy.cut_probability).numpy()
    np.testing.assert_allclose(drawn[:, possible], xi[:, possible], rtol=1e-12)


@pytest.mark.usefixtures("eager")
def test_a_number_at_the_probability_keeps():
    """Cut if u < c: u = c keeps, the number just below it cuts."""
    uniform = np.tile(np.array([[0.25, np.nextafter(0.25, 0)]]), (3, 1))
    xi = draw_factors(tf.constant(uniform), lambda t, since: 0.25).numpy()
    np.testing.assert_allclose(xi, [[1, 1], [4 / 3, 0], [4 / 3, 0]])


class EveryFew(Randomized):
    """Cuts for sure at the third step since the last cut, and sometimes before: δ decides all."""

    def cut_probability(self, timestep, since_cut):
        return tf.where(since_cut == 3, tf.ones_like(since_cut), 0.05)


@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize("timesteps", [0, 1, 2, 200])
@pytest.mark.parametrize(
    "policy",
    [Randomized(0.6), Randomized.artbp(2, 1.1), Randomized.artbp(20, 6), EveryFew(0.5)],
    ids=repr,
)
def test_draws_at_once_are_those_of_a_walk_back_through_time(policy, timesteps, jit):
    uniform = np.random.default_rng(timesteps).random((timesteps, 5))
    draw = tf.function(lambda u: draw_factors(u, policy.cut_probability), jit_compile=jit)
    expected, since = np.ones((timesteps, 5)), np.ones(5)
    for t in range(timesteps - 1, 0, -1):
        c = np.asarray(policy.cut_probability(t, tf.constant(since)), np.float64)
        cut = uniform[t] < c
        with np.errstate(divide="ignore"):
            expected[t] = np.where(cut, 0, 1 / (1 - c))
        since = np.where(cut, 1, since + 1)
    np.testing.assert_allclose(draw(tf.constant(uniform)), expected, rtol=1e-12)


@pytest.mark.parametrize(
    "policy", [Randomized(0.7, per_sample=True, seed=1), Randomized.artbp(5, 3, True, seed=2)]
)
def test_the_distribution_of_the_draws(policy):
    timesteps, samples = 12, 20_000
    xi = Factors(policy).drawer(Effects())(timesteps, samples).numpy()
    assert xi.shape == (timesteps, samples)
    assert np.all(xi[0] == 1)
    # E ξ_t = 1 whatever was drawn at later timesteps, so products of ξ have mean 1 as well.
    for product in (xi[1:], np.cumprod(xi[::-1], axis=0)[:4]):
        error = product.std(axis=1) / np.sqrt(samples)
        assert np.all(np.abs(product.mean(axis=1) - 1) < 5 * error)
    cut = np.mean(xi[-1] == 0)
    expected = float(policy.cut_probability(timesteps - 1, 1))
    assert cut == pytest.approx(expected, abs=5 * np.sqrt(expected / samples))


@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize("cell", CELLS)
def test_given_factors(cell):
    """Per batch and per sample, with masks and resets, against the reference."""
    rng = np.random.default_rng(3)
    problem = data(cell, T, batch=3)
    layer = make(cell)
    mask, resets = rng.random((3, T)) > 0.2, rng.random((3, T)) < 0.2
    for columns in (1, 3):
        xi = np.where(rng.random((T, columns)) < 0.3, 0, rng.uniform(1, 2, (T, columns)))
        xi[0] = 1
        layer.truncation = GivenFactors(xi)
        found = differentiate(layer, *problem, mask=mask, resets=resets)
        assert_same(found, reference(layer, *problem, mask=mask, resets=resets, xi=xi))


@pytest.mark.usefixtures("eager")
def test_one_draw_per_batch_or_one_per_sample():
    """The gradient of one sample's last loss, seen at the first input."""
    x, state, e, _ = data("SimpleRNN", 4, batch=40)
    e[:, :-1] = 0
    for per_sample in (False, True):
        layer = make("SimpleRNN", truncation=Randomized(0.8, per_sample, seed=1))
        alive = []
        for _ in range(8):
            dx, *_ = differentiate(layer, x, state, e)
            alive.append(np.any(dx[:, 0] != 0, axis=-1))
        alive = np.array(alive)
        assert alive.any()
        assert not alive.all()
        varies_within_a_batch = alive.any(axis=1) & ~alive.all(axis=1)
        assert varies_within_a_batch.any() == per_sample


@pytest.mark.usefixtures("eager")
def test_seeds_repeat():
    problem = data("GRU", T)

    def draws(seed):
        layer = make("GRU", truncation=Randomized.artbp(2, 2, seed=seed))
        return np.stack([differentiate(layer, *problem)[3] for _ in range(6)])

    first = draws(7)
    np.testing.assert_array_equal(draws(7), first)
    assert np.any(draws(8) != first)
    # New factors for every backward pass.
    assert len(np.unique(first, axis=0)) > 1


def test_a_model_repeats_under_fit_and_has_no_more_weights():
    x = np.random.default_rng(0).normal(size=(16, T, 3)).astype("float32")

    def train():
        keras.utils.set_random_seed(3)
        layer = kbptt.GRU(4, truncation="artbp")
        model = keras.Sequential([keras.Input((T, 3)), layer])
        randomize(layer)
        model.compile("sgd", "mse")
        model.fit(x, np.ones((16, 4)), batch_size=4, verbose=0)
        return model.get_weights()

    for a, b in zip(train(), train(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert len(train()) == 3


@pytest.mark.usefixtures("eager")
def test_a_policy_may_be_replaced_on_a_built_layer():
    layer = make("GRU")
    problem = data("GRU", T)
    full = differentiate(layer, *problem)[3]
    layer.truncation = Randomized(1e-6, seed=0)
    assert np.any(differentiate(layer, *problem)[3] != full)
    layer.truncation = None
    np.testing.assert_array_equal(differentiate(layer, *problem)[3], full)
