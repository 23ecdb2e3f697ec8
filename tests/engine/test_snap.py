"""SnAp-1 against influence matrices that NumPy carries forward in time, as the paper defines them."""

import numpy as np
import numpy_snap
import pytest
import tensorflow as tf
from recurrent import CELLS, STATES, data, differentiate, make, running_eagerly

import kbptt
from kbptt.truncation import SnAp

ENGINES = ["tensorflow", "native"]


def forward_in_time(layer, x, state, e, d, mask=None, resets=None, pattern=numpy_snap.own_units):
    """Gradients of Σ e·outputs + Σ d·(final state) of the weights, summed over the batch."""
    weights = [np.float64(w) for w in layer.get_weights()]
    start, last = np.concatenate(state, axis=1), np.concatenate(d, axis=1)
    total = [np.zeros_like(w) for w in weights]
    for b in range(len(x)):
        kept, reset = (None if m is None else m[b] for m in (mask, resets))
        found, _, j = numpy_snap.gradient(
            numpy_snap.CELLS[type(layer).__name__],
            weights,
            x[b],
            e[b],
            start[b],
            kept=kept,
            resets=reset,
            mask=pattern,
        )
        final = numpy_snap.unpack(last[b] @ j, weights)
        total = [t + f + g for t, f, g in zip(total, found, final, strict=True)]
    return total


def assert_close(found, expected, tolerance=1e-10):
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * max(1, np.abs(b).max()))


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("cell", CELLS)
def test_is_what_the_paper_defines(cell, engine):
    """Also under a mask and with resets; a net whose units act on each other, so not BPTT."""
    x, state, e, d = data(cell, timesteps=7, units=3, features=2)
    state = [np.zeros_like(s) for s in state]  # what numpy_snap's resets go back to
    rng = np.random.default_rng(5)
    mask, resets = rng.random([2, 7]) < 0.7, rng.random([2, 7]) < 0.2
    layer = make(cell, units=3, features=2, truncation=SnAp(1))
    plain = make(cell, units=3, features=2)
    plain.set_weights(layer.get_weights())
    with running_eagerly(engine):
        for more in ({}, {"mask": mask, "resets": resets}):
            arguments = {name: tf.constant(value) for name, value in more.items()}
            e_seen = e  # a masked output repeats the one before: zeros before the first step
            if more:
                begun = np.cumsum(mask, axis=1) > 0
                e_seen = e * begun[:, :, None]
            found = differentiate(layer, x, state, e, d, **arguments)[2]
            assert_close(found, forward_in_time(layer, x, state, e_seen, d, **more))
        _, d_state, full, _, outputs, _ = differentiate(plain, x, state, e, d)
        _, _, found, _, same, _ = differentiate(layer, x, state, e, d)
    np.testing.assert_array_equal(outputs, same)
    assert all(np.abs(a - b).max() > 1e-3 for a, b in zip(full, found, strict=True))


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("cell", CELLS)
def test_exact_where_units_do_not_act_on_each_other(cell, engine):
    x, state, e, d = data(cell, timesteps=9, units=4)
    layers = [make(cell, truncation=t) for t in (SnAp(), None)]
    gates = layers[0].get_weights()[1].shape[1] // 4
    with running_eagerly(engine):
        found = []
        for layer in layers:
            kernel, recurrent, bias = layer.get_weights()
            recurrent *= np.tile(np.eye(4), gates)
            layer.set_weights([kernel, recurrent, bias])
            found.append(differentiate(layer, x, state, e, d))
    snap, full = found
    assert_close([snap[0], *snap[1]], [full[0], *full[1]], 1e-13)
    # Of U the diagonals, which are all that such a net has.
    eye = np.tile(np.eye(4), gates)
    full[2][1], snap[2][1] = full[2][1] * eye, snap[2][1] * eye
    assert_close(snap[2], full[2], 1e-13)
    np.testing.assert_allclose(snap[3], full[3], rtol=1e-6)


def test_a_linear_unit():
    """h_t = a h_{t−1} + w x_t with x = 1: ∂h_T/∂w = Σ a^k, ∂h_T/∂a = Σ k a^(k−1) w."""
    a, w, steps = 0.9, 0.5, 20
    layer = kbptt.SimpleRNN(
        1, activation=None, use_bias=False, truncation="snap1", dtype="float64"
    )
    x = tf.ones([1, steps, 1], tf.float64)
    layer.build(x.shape)
    layer.set_weights([np.array([[w]]), np.array([[a]])])
    with tf.GradientTape() as tape:
        h = layer(x)
    d_w, d_a = tape.gradient(h, [v.value for v in layer.trainable_variables])
    k = np.arange(steps)
    powers = a**k
    np.testing.assert_allclose(d_w, [[powers.sum()]], rtol=1e-12)
    # ∂h_t/∂a = Σ_s a^(t−s) h_{s−1},  h_s = w Σ_{k<s} a^k
    h = w * np.concatenate([[0], np.cumsum(powers)])
    np.testing.assert_allclose(d_a, [[np.sum(powers[::-1] * h[:-1])]], rtol=1e-12)
