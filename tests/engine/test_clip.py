"""Clipping the carried gradient at every timestep (Graves, 2013)."""

import numpy as np
import pytest
from recurrent import CELLS, assert_same, data, differentiate, make, reference

from kbptt.truncation import Windowed

pytestmark = pytest.mark.usefixtures("eager")


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("size", [None, (4, 4), (5, 2)])
def test_every_element_that_is_carried_back_is_bounded(cell, size):
    truncation = None if size is None else Windowed(*size)
    layer = make(cell, truncation=truncation, gradient_clip=0.3)
    problem = data(cell)
    found = differentiate(layer, *problem)
    assert_same(found, reference(layer, *problem, *(size or (None, None)), clip=0.3))
    # It did something here, and a bound that nothing reaches does nothing.
    plain = make(cell, truncation=truncation)
    unclipped = differentiate(plain, *problem)
    assert np.any(np.abs(unclipped[0] - found[0]) > 1e-3)
    high = differentiate(make(cell, truncation=truncation, gradient_clip=1e6), *problem)
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
