"""Clipping the carried gradient at every timestep: its elements (Graves, 2013), or its norm."""

import numpy as np
import pytest
from recurrent import CELLS, assert_same, data, differentiate, make, reference

from kbptt.clipping import ByNorm
from kbptt.truncation import Windowed

pytestmark = pytest.mark.usefixtures("eager")


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("size", [None, (4, 4), (5, 2)])
@pytest.mark.parametrize("by_norm", [False, True])
def test_what_is_carried_back_is_bounded(cell, size, by_norm):
    truncation = None if size is None else Windowed(*size)
    bounded, high = (ByNorm(0.3), ByNorm(1e6)) if by_norm else (0.3, 1e6)
    layer = make(cell, truncation=truncation, gradient_clip=bounded)
    problem = data(cell)
    found = differentiate(layer, *problem)
    bound = {"clip_norm" if by_norm else "clip": 0.3}
    assert_same(found, reference(layer, *problem, *(size or (None, None)), **bound))
    # It did something here, and a bound that nothing reaches does nothing.
    plain = make(cell, truncation=truncation)
    unclipped = differentiate(plain, *problem)
    assert np.any(np.abs(unclipped[0] - found[0]) > 1e-3)
    high = differentiate(make(cell, truncation=truncation, gradient_clip=high), *problem)
    np.testing.assert_array_equal(high[0], unclipped[0])


def test_padding_behind_the_sequence_clips_nothing():
    """The gradient of the final state arrives at the last timestep as it is."""
    problem = data("LSTM")
    for size in [(4, 4, "start"), (5, 2, "start")]:
        layer = make("LSTM", truncation=Windowed(*size), gradient_clip=0.05)
        found = differentiate(layer, *problem)
        assert_same(found, reference(layer, *problem, *size, clip=0.05))


def test_one_step_by_hand():
    """h' = w·h: ∂L/∂h_0 = clip(w·clip(w·e)), computed with three numbers."""
    layer = make("SimpleRNN", 1, 1, activation="linear", use_bias=False, gradient_clip=1.0)
    layer.set_weights([np.ones((1, 1)), np.full((1, 1), 3.0)])
    x = np.zeros((1, 3, 1))
    e = np.array([[[0.1], [0.0], [0.2]]])
    dx, (d_state,), *_ = differentiate(layer, x, [np.zeros((1, 1))], e)
    # 0.2 → 3·0.2 = 0.6 → 3·0.6 = 1.8, clipped to 1, plus 0.1 → 3.3, clipped to 1
    np.testing.assert_allclose(dx[0, :, 0], [1.1, 0.6, 0.2])
    np.testing.assert_allclose(d_state, [[1.0]])


def test_norms_are_measured_before_the_clipping():
    layer = make("SimpleRNN", 1, 1, activation="linear", use_bias=False, gradient_clip=1.0)
    layer.set_weights([np.ones((1, 1)), np.ones((1, 1))])
    norms = differentiate(layer, np.zeros((1, 3, 1)), None, np.full((1, 3, 1), 5.0))[3]
    np.testing.assert_allclose(norms, [6, 6, 5])  # its own 5 and the carried 1


def test_a_gradient_that_is_not_a_number_stays_visible():
    layer = make("GRU", gradient_clip=1.0)
    x, state, e, d = data("GRU")
    e[0, 5, 1] = np.nan
    norms = differentiate(layer, x, state, e, d)[3]
    assert np.all(np.isnan(norms[:6]))
    assert np.all(np.isfinite(norms[6:]))


@pytest.mark.parametrize(
    ("dtype", "size"),
    [
        ("float32", 1e-30),
        ("float32", 1),
        ("float32", 1e30),
        ("float64", 1e-200),
        ("float64", 1e200),
    ],
)
def test_a_norm_is_bounded_also_where_squares_overflow(dtype, size):
    layer = make(
        "SimpleRNN",
        3,
        3,
        dtype=dtype,
        activation="linear",
        use_bias=False,
        gradient_clip=ByNorm(0.5),
    )
    layer.set_weights([np.eye(3), np.eye(3)])
    e = np.zeros([2, 2, 3], dtype)
    e[0, 1] = np.array([3, 0, -4]) * size
    x, state = np.zeros([2, 2, 3], dtype), [np.zeros([2, 3], dtype)]
    dx, (d_state,), *_ = differentiate(layer, x, state, e)
    expected = np.array([0.6, 0, -0.8]) * min(0.5, 5 * size)
    np.testing.assert_allclose(dx[0, 0], expected, rtol=1e-6)
    np.testing.assert_allclose(d_state[0], expected, rtol=1e-6)
    np.testing.assert_array_equal(dx[1], 0)  # samples are apart


def test_an_infinite_gradient_is_bounded_and_one_that_is_not_a_number_stays_visible():
    layer = make("SimpleRNN", 1, 1, activation="linear", use_bias=False, gradient_clip=ByNorm(0.5))
    layer.set_weights([np.ones((1, 1)), np.ones((1, 1))])
    e = np.zeros([3, 2, 1])
    e[:, 1, 0] = np.inf, -np.inf, np.nan
    dx = differentiate(layer, np.zeros([3, 2, 1]), None, e)[0]
    np.testing.assert_array_equal(dx[:, 0, 0], [0.5, -0.5, np.nan])


def test_h_and_c_are_bounded_together():
    layer = make("LSTM", gradient_clip=ByNorm(0.2), truncation=1)
    _, d_state, *_ = differentiate(layer, *data("LSTM", timesteps=1))
    norms = np.linalg.norm(np.hstack(d_state), axis=1)
    np.testing.assert_allclose(norms, 0.2)


def test_a_bound_on_the_norm_is_saved_and_may_be_set_later(tmp_path):
    layer = make("GRU", gradient_clip=ByNorm(0.2))
    assert type(layer).from_config(layer.get_config()).gradient_clip == ByNorm(0.2)
    problem = data("GRU")
    before = differentiate(layer, *problem)
    layer.gradient_clip = 0.2
    other = differentiate(layer, *problem)
    assert np.any(before[0] != other[0])
    layer.gradient_clip = ByNorm(0.2)
    np.testing.assert_array_equal(differentiate(layer, *problem)[0], before[0])
    with pytest.raises(AttributeError, match="belongs to a layer"):
        layer.gradient_clip.norm = 3.0


@pytest.mark.parametrize("bad", [0, -1, "norm", True, np.nan])
def test_other_bounds_are_refused(bad):
    with pytest.raises(ValueError, match=r"gradient_clip.*kbptt\.clipping\.ByNorm"):
        make("LSTM", gradient_clip=bad)
    with pytest.raises(ValueError, match="norm"):
        ByNorm(bad)
