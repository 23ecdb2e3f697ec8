"""The guide's section 2: recursion == closed sum == central differences."""

import itertools

import numpy as np
import pytest
from reference_bptt import central_difference

from kbptt.analysis import linear_rnn

T, INPUTS, HIDDEN, OUTPUTS = 7, 3, 4, 2


def problem(batch=None, seed=0):
    rng = np.random.default_rng(seed)
    lead = () if batch is None else (batch,)
    return {
        "x": rng.normal(size=(*lead, T, INPUTS)),
        "y": rng.normal(size=(*lead, T, OUTPUTS)),
        "W_hx": rng.normal(size=(HIDDEN, INPUTS)),
        "W_hh": rng.normal(size=(HIDDEN, HIDDEN)) / 2,
        "W_qh": rng.normal(size=(OUTPUTS, HIDDEN)),
        "h_0": rng.normal(size=(*lead, HIDDEN)),
    }


def logistic(o, y):
    return np.sum(np.logaddexp(0, o) - y * o, axis=-1), 1 / (1 + np.exp(-o)) - y


def loss_of(p, step_loss=linear_rnn.squared_error):
    h = linear_rnn.run(p["x"], p["W_hx"], p["W_hh"], p["h_0"])
    return linear_rnn.loss(linear_rnn.output(h, p["W_qh"]), p["y"], step_loss)


@pytest.mark.parametrize("batch", [None, 3])
@pytest.mark.parametrize("step_loss", [linear_rnn.squared_error, logistic])
def test_gradients_equal_central_differences(batch, step_loss):
    p = problem(batch)
    gradients = linear_rnn.bptt(**p, step_loss=step_loss)
    for name in ("W_hx", "W_hh", "W_qh", "x", "h_0"):
        expected = central_difference(lambda: loss_of(p, step_loss), p[name])
        np.testing.assert_allclose(getattr(gradients, name), expected, atol=1e-8, err_msg=name)


@pytest.mark.parametrize("batch", [None, 3])
def test_dL_dh_is_the_total_derivative(batch):
    """∂L/∂h_t by perturbing h_t and running on from there, as the definition says."""
    p = problem(batch)
    h = linear_rnn.run(p["x"], p["W_hx"], p["W_hh"], p["h_0"])
    gradients = linear_rnn.bptt(**p)

    def loss_from(t, state):
        rest = linear_rnn.run(p["x"][..., t + 1 :, :], p["W_hx"], p["W_hh"], state)
        states = np.concatenate([h[..., :t, :], state[..., None, :], rest], axis=-2)
        return linear_rnn.loss(states @ p["W_qh"].T, p["y"])

    for t in range(T - 1):  # the last state has no "rest": equation 2.3, below
        state = h[..., t, :].copy()
        expected = central_difference(lambda t=t, s=state: loss_from(t, s), state)
        np.testing.assert_allclose(gradients.h[..., t, :], expected, atol=1e-8)
    o = linear_rnn.output(h, p["W_qh"])
    steps = np.prod(o.shape[:-1])
    last = (o - p["y"])[..., -1, :] / steps @ p["W_qh"]
    np.testing.assert_allclose(gradients.h[..., -1, :], last, rtol=1e-14)


def test_recursion_equals_the_closed_sum():
    p = problem()
    o = linear_rnn.output(linear_rnn.run(p["x"], p["W_hx"], p["W_hh"]), p["W_qh"])
    do = linear_rnn.dL_do(o, p["y"])
    np.testing.assert_allclose(
        linear_rnn.dL_dh(do, p["W_hh"], p["W_qh"]),
        linear_rnn.dL_dh_closed(do, p["W_hh"], p["W_qh"]),
        rtol=1e-12,
    )


@pytest.mark.parametrize(
    ("length", "stride"), [(1, 1), (2, 1), (2, 2), (3, 1), (3, 2), (3, 3), (7, 1), (7, 3)]
)
def test_windows_equal_the_sum_of_kept_paths(length, stride):
    """Each loss s reaches back to the start of its window and not one step further."""
    p = problem()
    o = linear_rnn.output(linear_rnn.run(p["x"], p["W_hx"], p["W_hh"]), p["W_qh"])
    do = linear_rnn.dL_do(o, p["y"])
    expected = np.zeros((T, HIDDEN))
    for s in range(T):
        end = T - (T - 1 - s) // stride * stride
        for t in range(max(0, end - length), s + 1):
            power = np.linalg.matrix_power(p["W_hh"].T, s - t)
            expected[t] += power @ p["W_qh"].T @ do[s]
    actual = linear_rnn.dL_dh_windowed(do, p["W_hh"], p["W_qh"], length, stride)
    np.testing.assert_allclose(actual, expected, rtol=1e-12, atol=1e-14)


def test_chunks_equal_zero_xi_at_the_cuts():
    p = problem()
    xi = np.ones(T)
    xi[[1, 4]] = 0.0  # chunks of 3 from the end: 0 | 1 2 3 | 4 5 6
    expected = linear_rnn.bptt(**p, xi=xi)
    actual = linear_rnn.bptt(**p, length=3)
    for name in ("W_hx", "W_hh", "W_qh", "h", "x", "h_0"):
        np.testing.assert_allclose(getattr(actual, name), getattr(expected, name), rtol=1e-12)


def test_a_window_of_all_steps_is_full_bptt():
    p = problem(batch=2)
    for length in (T, T + 5):
        np.testing.assert_array_equal(
            linear_rnn.bptt(**p, length=length).W_hh, linear_rnn.bptt(**p).W_hh
        )


def test_randomized_truncation_is_unbiased():
    """Every pattern of ξ_t, weighed by its probability, averages to the full gradient."""
    p = problem()
    pi = 0.7
    mean = np.zeros((HIDDEN, HIDDEN))
    for pattern in itertools.product([0, 1], repeat=T - 1):
        probability = np.prod([pi if keep else 1 - pi for keep in pattern])
        xi = np.concatenate([[1.0], np.array(pattern) / pi])
        mean += probability * linear_rnn.bptt(**p, xi=xi).W_hh
    np.testing.assert_allclose(mean, linear_rnn.bptt(**p).W_hh, rtol=1e-12)


def test_norms_sum_over_the_batch_and_do_not_change_with_its_size():
    p = problem(batch=3)
    norms = linear_rnn.gradient_norms(linear_rnn.bptt(**p).h)
    assert norms.shape == (T,)
    tiled = {k: np.concatenate([v, v]) if k in ("x", "y", "h_0") else v for k, v in p.items()}
    np.testing.assert_allclose(
        linear_rnn.gradient_norms(linear_rnn.bptt(**tiled).h), norms, rtol=1e-12
    )


@pytest.mark.parametrize("radius", [0.8, 1.0, 1.2])
def test_the_gradient_decays_by_the_spectral_radius(radius):
    """With one loss at the end, ‖∂L/∂h_t‖ changes by |λ₁| per step: the guide's remark to 2.4."""
    rng = np.random.default_rng(1)
    q, _ = np.linalg.qr(rng.normal(size=(HIDDEN, HIDDEN)))
    W_hh = q @ np.diag([1.0, 0.6, -0.4, 0.2]) @ q.T * radius
    do = np.zeros((60, OUTPUTS))
    do[-1] = 1.0
    norms = linear_rnn.gradient_norms(linear_rnn.dL_dh(do, W_hh, rng.normal(size=(OUTPUTS, 4))))
    np.testing.assert_allclose(norms[:30] / norms[1:31], radius, rtol=1e-4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"length": 0}, "`length`"),
        ({"length": True}, "`length`"),
        ({"length": 2.5}, "`length`"),
        ({"length": 2, "stride": 3}, "at most `length`"),
        ({"stride": 3}, "needs `length`"),
        ({"length": 2, "xi": np.ones(T)}, "either"),
    ],
)
def test_invalid_truncation_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        linear_rnn.bptt(**problem(), **arguments)


def test_wrong_shapes_are_refused():
    p = problem()
    with pytest.raises(ValueError, match="timesteps"):
        linear_rnn.run(np.zeros((0, INPUTS)), p["W_hx"], p["W_hh"])
    with pytest.raises(ValueError, match="W_hx"):
        linear_rnn.run(p["x"], p["W_hx"].T, p["W_hh"])
