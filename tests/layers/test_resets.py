"""Resets: a batch row may hold several sequences, one after the other."""

from concurrent.futures import ThreadPoolExecutor

import keras
import numpy as np
import pytest
import tensorflow as tf
from recurrent import CELLS, assert_same, data, differentiate, make, randomize, reference

import kbptt
from kbptt.engine import differentiable
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


def stateful(cell, batch, x, **arguments):
    """A layer that has already seen a window, and the states that it carries on."""
    arguments = {"return_sequences": True, "return_state": True, "dtype": "float64", **arguments}
    layer = getattr(kbptt, cell)(4, stateful=True, **arguments)
    layer.build((batch, None, 3))
    randomize(layer)
    layer(3 * x, training=True)
    return layer, [s.numpy() for s in layer.training_states]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("cell", CELLS)
def test_resets_of_a_stateful_layer_go_back_to_a_fresh_start(cell, size):
    """Not to the state that was carried over from the batch before."""
    x, state, e, d = data(cell, T, batch=3)
    rng = np.random.default_rng(6)
    mask, resets = rng.random((3, T)) < 0.7, rng.random((3, T)) < 0.3
    resets[0, 0], resets[1, 0] = True, False
    truncation = Windowed(*size) if size else None
    layer, carried = stateful(cell, 3, x, truncation=truncation)
    given = {"mask": mask, "resets": resets}
    found = differentiate(layer, x, None, e, d, training=True, **given)
    zeros = [0 * s for s in carried]
    expected = reference(layer, x, carried, e, d, *size, restart=zeros, **given)
    expected.state = []
    assert_same(found, expected)
    # A state of the user's own is where resets go back to, as in a layer without a state.
    found = differentiate(layer, x, state, e, d, training=True, **given)
    assert_same(found, reference(layer, x, state, e, d, *size, **given))


@pytest.mark.parametrize("cell", CELLS)
def test_resets_of_a_stateful_layer_in_the_loop_for_any_cell(cell):
    """Of differentiable operations too, on the way to gradients of gradients."""
    x, _, e, d = data(cell, T, batch=2)
    resets = np.zeros((2, T), bool)
    resets[0, 0] = resets[1, 4] = True
    layer, carried = stateful(cell, 2, x)
    expected = reference(layer, x, carried, e, d, restart=[0 * s for s in carried], resets=resets)
    expected.state = []
    with differentiable():
        assert_same(differentiate(layer, x, None, e, d, training=True, resets=resets), expected)
    one = kbptt.RNN(layer.cell, stateful=True, return_sequences=True, return_state=True,
                    dtype="float64")  # fmt: skip
    one.build((2, None, 3))
    for variable, value in zip(one.states, carried, strict=True):
        variable.assign(value)
    assert_same(differentiate(one, x, None, e, d, training=True, resets=resets), expected)


class TrainableStart(keras.layers.GRUCell):
    """A cell whose fresh state is a weight."""

    def build(self, shape):
        super().build(shape)
        self.fresh = self.add_weight(shape=(self.units,), name="fresh", initializer="ones")

    def get_initial_state(self, batch_size=None):
        return [keras.ops.tile(self.fresh[None], (batch_size, 1))]


def test_a_trainable_start_gets_the_gradient_of_every_reset():
    x, _, e, _ = data("GRU", T, batch=2)
    arguments = {"return_sequences": True, "dtype": "float64"}
    layer = kbptt.RNN(TrainableStart(4, dtype="float64"), stateful=True, **arguments)
    layer.build((2, None, 3))
    layer(x, training=True)
    resets = np.zeros((2, T), bool)
    resets[0, 0] = resets[1, 5] = True
    fresh = layer.cell.fresh

    def loss():
        for shown, kept in zip(layer.states, carried, strict=True):
            shown.assign(kept)
        return tf.reduce_sum(e * layer(x, training=True, resets=resets))

    carried = [s.numpy() for s in layer.training_states]
    with tf.GradientTape() as tape:
        value = loss()
    found = tape.gradient(value, fresh.value)
    at, step = fresh.numpy(), 1e-6
    for i in range(4):
        sides = []
        for sign in (1, -1):
            fresh.assign(at + sign * step * np.eye(4)[i])
            sides.append(float(loss()))
        fresh.assign(at)
        np.testing.assert_allclose(found[i], (sides[0] - sides[1]) / (2 * step), rtol=1e-6)
