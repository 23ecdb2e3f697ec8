"""Resets: a batch row may hold several sequences, one after the other."""

from concurrent.futures import ThreadPoolExecutor

import keras
import numpy as np
import pytest
from recurrent import CELLS, assert_same, data, differentiate, eager, make, reference

import kbptt
from kbptt.truncation import Windowed

T = 9
SIZES = [(), (3,), (4, 2)]

pytestmark = pytest.mark.usefixtures("eager")


@pytest.mark.parametrize("cell", CELLS)
def test_resets(cell):
    problem = data(cell, T, batch=3)
    resets = np.random.default_rng(4).random((3, T)) < 0.3
    resets[1], resets[2, 0], resets[2, -1] = False, True, True
    for size in SIZES:
        layer = make(cell, truncation=Windowed(*size) if size else None)
        found = differentiate(layer, *problem, resets=resets)
        assert_same(found, reference(layer, *problem, *size, resets=resets))


@pytest.mark.parametrize("cell", CELLS)
def test_a_row_with_a_reset_is_two_sequences(cell):
    """Each part is run as a sequence of its own, from the same initial state."""
    layer = make(cell)
    x, state, e, d = data(cell, T, batch=1)
    resets = np.zeros((1, T), bool)
    resets[0, 4] = True
    dx, d_state, d_weights, norms, outputs, final = differentiate(
        layer, x, state, e, d, resets=resets
    )
    none = [0 * v for v in d]
    first = differentiate(layer, x[:, :4], state, e[:, :4], none)
    second = differentiate(layer, x[:, 4:], state, e[:, 4:], d)
    np.testing.assert_allclose(dx, np.concatenate([first[0], second[0]], axis=1), atol=1e-12)
    np.testing.assert_allclose(norms, np.concatenate([first[3], second[3]]), rtol=1e-6)
    np.testing.assert_allclose(outputs, np.concatenate([first[4], second[4]], axis=1), atol=1e-12)
    for a, b, c in zip(d_weights, first[2], second[2], strict=True):
        np.testing.assert_allclose(a, b + c, atol=1e-12)
    # Both parts start from the initial state, whose gradient is the sum.
    for a, b, c in zip(d_state, first[1], second[1], strict=True):
        np.testing.assert_allclose(a, b + c, atol=1e-12)
    for a, b in zip(final, second[5], strict=True):
        np.testing.assert_allclose(a, b, atol=1e-12)


@pytest.mark.parametrize("cell", CELLS)
def test_no_gradient_crosses_a_reset(cell):
    layer = make(cell)
    x, state, e, _ = data(cell, T)
    e[:, :-1] = 0
    resets = np.zeros((2, T), bool)
    resets[0, 5] = True
    dx = differentiate(layer, x, state, e, [], resets=resets)[0]
    assert np.all(dx[0, :5] == 0)
    assert np.all(np.any(dx[0, 5:] != 0, axis=-1))
    assert np.all(np.any(dx[1] != 0, axis=-1))


def test_resets_in_a_layer_that_goes_backwards():
    """The reset stands where its timestep is read."""
    layer = make("GRU", go_backwards=True)
    forward = make("GRU")
    x, state, e, d = data("GRU", T)
    resets = np.random.default_rng(5).random((2, T)) < 0.3
    found = differentiate(layer, x, state, e, d, resets=resets)
    expected = differentiate(forward, x[:, ::-1].copy(), state, e, d, resets=resets[:, ::-1])
    np.testing.assert_allclose(found[0], expected[0][:, ::-1], atol=1e-12)
    np.testing.assert_allclose(found[3], expected[3], rtol=1e-6)


def test_resets_are_an_input_of_a_model():
    x, resets = keras.Input((T, 3)), keras.Input((T,), dtype="bool")
    model = keras.Model([x, resets], kbptt.LSTM(4)(x, resets=resets))
    values = data("LSTM", T)[0].astype("float32")
    at = np.zeros((2, T), bool)
    at[:, 6] = True
    found = model([values, at])
    tail = model.layers[-1](values[:, 6:])
    np.testing.assert_allclose(found, tail, atol=1e-6)


def test_threads_that_share_a_layer_do_not_share_resets():
    layer = make("GRU")
    x = np.repeat(data("GRU", T)[0], 20, axis=1)
    resets = np.random.default_rng(0).random(x.shape[:2]) < 0.3
    given = [resets, None] * 20
    expected = {r is None: layer(x, resets=r)[0].numpy() for r in given[:2]}
    with ThreadPoolExecutor(4) as pool:
        found = pool.map(lambda r: layer(x, resets=r)[0].numpy(), given)
        for r, outputs in zip(given, found, strict=True):
            np.testing.assert_allclose(outputs, expected[r is None], rtol=1e-10)


__all__ = ["eager"]
