"""AdaGC, AdaClip and GradientStabilizer: clips that remember the norms of each variable.

The references follow the papers in float64, one variable at a time. Weights start at 0 and SGD has
learning rate 1, so what a step does to them is what the optimizer was given.
"""

import keras
import numpy as np
import pytest

from kbptt import clipping
from kbptt.optimizers import AdaClip, AdaGC, Clipped, GradientStabilizer

SHAPES = [(3, 4), (5,)]
SPIKES = {5: 30.0, 12: 1e3, 13: 1e3, 20: 1e8}


def sequence(steps=30):
    """Gradients of two variables, step by step, of other sizes, with spikes."""
    random = np.random.default_rng(0)
    sizes = np.exp(random.normal(scale=0.4, size=(30, 2))) * [0.2, 5.0]
    for step, factor in SPIKES.items():
        sizes[step] *= factor
    draws = [[random.normal(size=shape) for shape in SHAPES] for _ in sizes]
    gradients = [
        [
            (g * size / np.linalg.norm(g)).astype("float32")
            for g, size in zip(draw, row, strict=True)
        ]
        for draw, row in zip(draws, sizes, strict=True)
    ]
    return gradients[:steps]


def given_to(transforms, gradients, optimizer=None):
    """What the inner optimizer was given, step by step, and the `Clipped`."""
    clipped = Clipped(optimizer or keras.optimizers.SGD(1.0), transforms)
    weights = [keras.Variable(np.zeros_like(g), name=f"w{i}") for i, g in enumerate(gradients[0])]
    steps = []
    for step in gradients:
        for weight in weights:
            weight.assign(np.zeros(weight.shape))
        clipped.apply([g if g is None else keras.ops.convert_to_tensor(g) for g in step], weights)
        steps.append([-weight.numpy() for weight in weights])
    return steps, clipped


def norms(steps):
    return np.array([[np.linalg.norm(np.float64(g)) for g in step] for step in steps])


def parallel(steps, gradients):
    for step, before in zip(steps, gradients, strict=True):
        for after, g in zip(step, before, strict=True):
            direction = np.float64(g) / np.linalg.norm(np.float64(g))
            np.testing.assert_allclose(after, direction * np.linalg.norm(after), atol=1e-6)


def ada_gc(found, relative, beta, start, absolute):
    """Norms after AdaGC, from those before (steps, variables): Wang et al., algorithm 1."""
    after, gamma = np.empty_like(found), None
    for t, norm in enumerate(found):
        if t < start:
            after[t] = norm * min(absolute / np.linalg.norm(norm), 1.0)
            gamma = after[t] if gamma is None else np.minimum(gamma, after[t])
        else:
            after[t] = norm * np.minimum(relative * gamma / norm, 1.0)
            gamma = beta * gamma + (1 - beta) * after[t]
    return after, gamma


@pytest.mark.parametrize("start", [3, 10])
def test_ada_gc_equals_the_paper(start):
    gradients = sequence()
    clip = AdaGC(1.2, 0.9, warmup_steps=start, warmup_threshold=2.0)
    steps, optimizer = given_to([clip], gradients)
    expected, gamma = ada_gc(norms(gradients), 1.2, 0.9, start, 2.0)
    np.testing.assert_allclose(norms(steps), expected, rtol=1e-5)
    parallel(steps, gradients)
    np.testing.assert_allclose(optimizer.memory.states["ada_gc"]["average"], gamma, rtol=1e-5)
    # The bound grows slowly, whatever comes.
    growth = 0.9 + 0.1 * 1.2
    bounds = 1.2 * expected[:start].min(axis=0) * growth ** np.arange(30 - start)[:, None]
    assert np.all(norms(steps)[start:] <= bounds * (1 + 1e-5))
    assert clip.statistics()["clip_rate"] == np.mean(np.any(expected < norms(gradients), axis=1))


def test_ada_gc_does_not_freeze_a_variable_whose_gradient_was_zero():
    gradients = [[np.zeros(2, "float32"), np.ones(3, "float32")]] * 3
    gradients += [[np.ones(2, "float32"), np.ones(3, "float32")]] * 3
    clip = AdaGC(warmup_steps=2, warmup_threshold=None)
    steps, _ = given_to([clip], gradients)
    for step, expected in zip(steps, gradients, strict=True):
        for a, b in zip(step, expected, strict=True):
            np.testing.assert_array_equal(a, b)


def ada_clip(series, theta):
    """One variable's gradients after AdaClip: the authors' update, with the sums written out."""
    largest = [np.abs(g).max() for g in np.float64(series)]
    after = []
    for t, g in enumerate(np.float64(series), 1):
        shares = (1 - theta) * theta ** np.arange(t)[::-1] / (1 - theta**t)
        bound = shares @ largest[:t]
        after.append(np.where(np.abs(g) > bound, g / np.abs(g).max() * bound, g))
    return after


@pytest.mark.parametrize("theta", [0.5, 0.999])
def test_ada_clip_equals_the_paper(theta):
    gradients = sequence()
    steps, _ = given_to([AdaClip(theta)], gradients)
    for index in range(2):
        expected = ada_clip([step[index] for step in gradients], theta)
        for step, after in zip(steps, expected, strict=True):
            np.testing.assert_allclose(step[index], after, rtol=1e-5)
    for a, b in zip(steps[0], gradients[0], strict=True):
        np.testing.assert_array_equal(a, b)  # the first step is its own maximum


def stabilized(found, gamma1, gamma2, epsilon):
    """Norms after GradientStabilizer, from those before, with the sums written out."""

    def average(values, gamma):
        shares = (1 - gamma) * gamma ** np.arange(len(values))[::-1] / (1 - gamma ** len(values))
        return shares @ values

    return np.array(
        [
            average(found[:t], gamma1) / (np.sqrt(average(found[:t] ** 2, gamma2)) + epsilon)
            for t in range(1, len(found) + 1)
        ]
    )


@pytest.mark.parametrize("decays", [(0.7, 0.9), (0.0, 0.5)])
def test_gradient_stabilizer_is_the_norm_estimate_of_stable_spam_and_keeps_the_direction(decays):
    gradients = sequence()
    clip = GradientStabilizer(*decays)
    steps, _ = given_to([clip], gradients)
    expected = stabilized(norms(gradients), *decays, 1e-8)
    np.testing.assert_allclose(norms(steps), expected, rtol=1e-5)
    parallel(steps, gradients)
    assert clip.statistics()["threshold"] == pytest.approx(np.linalg.norm(expected[-1]), rel=1e-5)


@pytest.mark.parametrize("spike", [1e2, 1e10, 1e30])
def test_no_spike_is_too_large_for_the_stabilizer(spike):
    """However large, it comes out as (1 − γ₁)/√(1 − γ₂), and nothing exceeds the bound."""
    sizes = np.ones(60)
    sizes[40], sizes[50] = spike, 1e-30
    gradients = [[np.float32([0.6, 0.8]) * np.float32(size)] for size in sizes]
    steps, _ = given_to([GradientStabilizer()], gradients)
    after = norms(steps)[:, 0]
    np.testing.assert_allclose(after[:40], 1, rtol=1e-6)
    assert after[40] == pytest.approx(0.3 / np.sqrt(0.1), rel=3e-2)
    assert after.max() <= 0.3 / np.sqrt(0.1 * (1 - 0.49 / 0.9))
    parallel(steps, gradients)


OFF = [AdaGC(1e30, warmup_threshold=None), AdaGC(1e30, warmup_steps=0), AdaClip(0.0)]


@pytest.mark.parametrize("transform", OFF, ids=["AdaGC", "AdaGC, no warm-up", "AdaClip"])
def test_off_is_the_plain_optimizer_bit_for_bit(transform):
    gradients = sequence()
    steps, _ = given_to([transform], gradients, keras.optimizers.Adam(1.0))
    plain = keras.optimizers.Adam(1.0)
    weights = [keras.Variable(np.zeros(shape, "float32")) for shape in SHAPES]
    for step, gradient in zip(steps, gradients, strict=True):
        for weight in weights:
            weight.assign(np.zeros(weight.shape))
        plain.apply([keras.ops.convert_to_tensor(g) for g in gradient], weights)
        for a, b in zip(step, weights, strict=True):
            np.testing.assert_array_equal(a, -b.numpy())


EVERY = {
    "AdaGC": lambda **k: AdaGC(warmup_steps=2, **k),
    "AdaClip": lambda **k: AdaClip(0.5, **k),
    "GradientStabilizer": GradientStabilizer,
}
every = pytest.mark.parametrize("name", EVERY)


@every
def test_each_variable_has_a_memory_of_its_own(name):
    """Not finite gradients, steps without a gradient, and variables not chosen leave it alone."""
    gradients = sequence(12)
    steps, _ = given_to([EVERY[name](variables="w1")], gradients)
    for step, before in zip(steps, gradients, strict=True):
        np.testing.assert_array_equal(step[0], before[0])
    if name == "AdaGC":  # whose warm-up is about all chosen variables together
        alone, _ = given_to([EVERY[name]()], [[before[1]] for before in gradients])
    else:
        both, _ = given_to([EVERY[name]()], gradients)
        alone = [step[1:] for step in both]
    for step, expected in zip(steps, alone, strict=True):
        np.testing.assert_allclose(step[1], expected[0], rtol=1e-6)

    bad = [np.full(shape, np.nan, "float32") for shape in SHAPES]
    disturbed = [*gradients[:6], bad, *gradients[6:]]
    again, optimizer = given_to([EVERY[name]()], disturbed)
    expected, _ = given_to([EVERY[name]()], gradients)
    for step, other in zip(again[:6] + again[7:], expected, strict=True):
        for a, b in zip(step, other, strict=True):
            np.testing.assert_array_equal(a, b)
    assert not any(np.any(g) for g in again[6])
    assert int(optimizer.transforms[0].skipped_count) == 1


@every
@pytest.mark.filterwarnings("ignore:Gradients do not exist")
def test_a_step_without_one_of_the_gradients(name):
    gradients = sequence(8)
    given = [[None, step[1]] if number % 2 else step for number, step in enumerate(gradients)]
    steps, optimizer = given_to([EVERY[name]()], given)
    assert all(np.all(np.isfinite(g)) for step in steps for g in step)
    if name != "AdaGC":
        alone, _ = given_to([EVERY[name]()], [[step[0]] for step in gradients[::2]])
        for step, expected in zip(steps[::2], alone, strict=True):
            np.testing.assert_allclose(step[0], expected[0], rtol=1e-6)
        assert optimizer.transforms[0].state["count"].numpy().tolist() == [4, 8]


@every
def test_a_variable_that_came_later_is_refused(name):
    _, clipped = given_to([EVERY[name]()], sequence(2)[:1])
    with pytest.raises(ValueError, match="late was not among the trainable variables"):
        clipped.apply([np.ones(2, "float32")], [keras.Variable(np.zeros(2), name="late")])


@every
def test_sparse_gradients_are_measured_by_their_rows(name):
    import tensorflow as tf

    rows = [np.float32([[1, 2], [3, 4], [5, 6]]) * scale for scale in (1, 4, 0.5, 9)]
    results = []
    for sparse in (True, False):
        clipped = Clipped(keras.optimizers.SGD(1.0), [EVERY[name]()])
        table = keras.Variable(np.zeros((4, 2)))
        for values in rows:
            gradient = tf.IndexedSlices(values, [1, 3, 1], [4, 2])
            clipped.apply([gradient if sparse else tf.convert_to_tensor(gradient)], [table])
        results.append(table.numpy())
    np.testing.assert_allclose(results[0], results[1], rtol=1e-5)
    assert np.any(results[0])


def test_running_mean_takes_the_first_and_a_constant_value_exactly():
    mean = 0.0
    for count in range(5):
        mean = clipping.running_mean(mean, np.float64(0.1), np.int64(count), 0.999)
        assert float(mean) == 0.1
