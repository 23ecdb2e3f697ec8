"""Zoneout and h-detach against the equations, in both loops."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from numpy_zoneout import held, philox
from recurrent import CELLS, STATES, assert_same, data, differentiate, make, reference

import kbptt
from kbptt.truncation import Windowed

RATES = {"SimpleRNN": 0.4, "GRU": (0.4,), "LSTM": (0.2, 0.6)}
SIZES = [None, (4, 4), (5, 2)]


def rates(layer):
    given = layer.zoneout
    return given if isinstance(given, tuple) else (given,) * STATES[type(layer).__name__]


def masks(layer, training, batch, timesteps, units=4):
    """What the next call holds of each state, ``(timesteps, batch, units)``."""
    seed, count = map(int, layer.cell.seed_generator.state.numpy())
    key = np.array([seed + count * 2**32, 0], np.uint64) if training else None
    steps = [held(rates(layer), key, t, batch, units) for t in range(timesteps)]
    return [np.stack(state) for state in zip(*steps, strict=True)]


def test_the_generator_is_that_of_its_authors():
    """Known answers of Random123 1.14, `kat_vectors`: philox4x32 10."""
    zeros = [hex(int(w)) for w in philox(0, np.array([0]))[:, 0]]
    assert zeros == ["0x6627e8d5", "0xe169c58d", "0xbc57ac4c", "0x9b00dbd8"]


@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("training", [True, False])
def test_states_and_gradients_are_those_of_the_paper(cell, size, training):
    truncation = None if size is None else Windowed(*size)
    layer = make(cell, zoneout=RATES[cell], truncation=truncation, seed=7)
    problem = data(cell, timesteps=8, batch=3)
    kept = masks(layer, training, 3, 8)
    found = differentiate(layer, *problem, training=training)
    assert_same(found, reference(layer, *problem, *(size or (None, None)), held=kept))


@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize("cell", CELLS)
def test_with_masks_resets_and_clipping(cell):
    rng = np.random.default_rng(3)
    mask, resets = rng.random((3, 8)) > 0.3, rng.random((3, 8)) > 0.7
    clip = kbptt.clipping.ByNorm(0.4)
    layer = make(cell, zoneout=RATES[cell], truncation=5, seed=7, gradient_clip=clip)
    problem = data(cell, timesteps=8, batch=3)
    kept = masks(layer, True, 3, 8)
    found = differentiate(layer, *problem, training=True, mask=mask, resets=resets)
    more = {"mask": mask, "resets": resets, "clip_norm": 0.4, "held": kept}
    assert_same(found, reference(layer, *problem, 5, **more))


@pytest.mark.parametrize("cell", CELLS)
def test_compiled_loops_draw_the_same_numbers(cell):
    """C++ and XLA, in float32, and where nothing is kept of the gates."""
    x = np.random.default_rng(0).normal(size=(5, 7, 3)).astype("float32")
    found = []
    for settings in ({}, {"kept_gates": 0}, {"native": False}):
        layer = make(cell, units=9, zoneout=0.5, seed=3, dtype="float32", return_state=False)
        with kbptt.engine.using(**settings), tf.GradientTape() as tape:
            loss = tf.reduce_sum(tf.sin(layer(x, training=True)))
        found.append(tape.gradient(loss, [v.value for v in layer.trainable_variables]))
    for other in found[1:]:
        for a, b in zip(found[0], other, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize("cell", CELLS)
def test_rate_0_is_the_layer_without_it(cell):
    layers = make(cell), make(cell, zoneout=0.0, **({} if cell == "SimpleRNN" else {"h_detach": 0}))
    found = [differentiate(layer, *data(cell), training=True) for layer in layers]
    for a, b in zip(*map(keras.tree.flatten, found), strict=True):
        np.testing.assert_array_equal(a, b)
    assert layers[0].get_config().keys() == layers[1].get_config().keys()


@pytest.mark.usefixtures("eager")
def test_every_call_draws_anew_and_a_seed_repeats_it():
    x = data("GRU")[0]
    first, second = make("GRU", zoneout=0.5, seed=1), make("GRU", zoneout=0.5, seed=1)
    one, two = (first(x, training=True)[0].numpy() for _ in range(2))
    assert np.any(one != two)
    np.testing.assert_array_equal(second(x, training=True)[0], one)
    # Inference neither draws nor moves what training draws.
    np.testing.assert_array_equal(first(x)[0], second(x)[0])
    np.testing.assert_array_equal(second(x, training=True)[0], two)


@pytest.mark.usefixtures("eager")
def test_as_many_units_are_held_as_the_rate_says():
    layer = make("SimpleRNN", units=50, zoneout=0.3, seed=1)
    h = layer(data(timesteps=40, batch=20, units=50)[0], training=True)[0].numpy()
    same = h[:, 1:] == h[:, :-1]
    deviation = (0.3 * 0.7 / same.size) ** 0.5
    assert abs(same.mean() - 0.3) < 5 * deviation
    assert np.all(same.mean(axis=(0, 1)) > 0.2)  # every unit, and none always
    assert np.all(same.mean(axis=(0, 1)) < 0.4)


@pytest.mark.usefixtures("eager")
def test_burn_in_goes_on_with_the_numbers_of_the_call():
    x = data("LSTM")[0]
    whole, burnt = (make("LSTM", zoneout=0.5, seed=1) for _ in range(2))
    expected = whole(x, training=True)[0]
    np.testing.assert_allclose(burnt(x, training=True, burn_in=4)[0], expected, rtol=1e-12)


def test_it_trains_in_half_precision_and_is_saved(tmp_path):
    layer = kbptt.LSTM(8, zoneout=(0.1, 0.5), h_detach=0.25, truncation=4, dtype="mixed_bfloat16")
    model = keras.Sequential([keras.Input((6, 3)), layer, keras.layers.Dense(1, dtype="float32")])
    model.compile("adam", "mse")
    x = np.random.default_rng(0).normal(size=(8, 6, 3)).astype("float32")
    history = model.fit(x, x[:, -1, :1], epochs=2, verbose=0)
    assert np.isfinite(history.history["loss"]).all()
    model.save(tmp_path / "m.keras")
    loaded = keras.models.load_model(tmp_path / "m.keras")
    assert (loaded.layers[0].zoneout, loaded.layers[0].h_detach) == ((0.1, 0.5), 0.25)
    np.testing.assert_array_equal(loaded.predict(x, verbose=0), model.predict(x, verbose=0))


@pytest.mark.parametrize("bad", [-0.1, 1.0, 1.5, "0.1", True, None, (0.1, 1.0)])
def test_impossible_rates_are_refused(bad):
    with pytest.raises(ValueError, match="zoneout"):
        kbptt.LSTM(3, zoneout=bad)


def test_rates_may_be_an_array():
    assert kbptt.LSTM(3, zoneout=np.array([0.25, 0.5])).zoneout == (0.25, 0.5)
    with pytest.raises(ValueError, match=r"at least 0 and below 1.*Received: zoneout=1"):
        kbptt.LSTM(3, zoneout=1)


def test_there_is_one_rate_for_all_states_or_one_for_each():
    with pytest.raises(ValueError, match=r"one per state \(h\)"):
        kbptt.GRU(3, zoneout=(0.1, 0.2))


# h-detach ------------------------------------------------------------------------------------


def let_through(layer, timesteps):
    """What the next backward pass draws: 0 where nothing flows through h, ``(timesteps, 1)``."""
    (state,) = layer.changing_variables()
    seed = state.numpy() % (2**31 - 2)
    uniform = tf.random.stateless_uniform([timesteps, 1], tf.constant(seed, tf.int32))
    return np.float64(uniform.numpy() >= layer.h_detach)


@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize("cell", ["GRU", "LSTM"])
@pytest.mark.parametrize("size", SIZES)
def test_detached_timesteps_pass_gradients_by_the_cell_state_alone(cell, size):
    truncation = None if size is None else Windowed(*size)
    layer = make(cell, h_detach=0.5, truncation=truncation, seed=5)
    problem = data(cell)
    for _ in range(2):  # new numbers for every backward pass
        through = let_through(layer, 9)
        assert 0 < through[1:].mean() < 1
        found = differentiate(layer, *problem)
        assert_same(found, reference(layer, *problem, *(size or (None, None)), through=through))


@pytest.mark.usefixtures("eager")
def test_all_timesteps_detached_leave_the_product_of_the_forget_gates():
    """∂c_T/∂c_0 = Π f_t (Kanuparthi et al., 2019): with U = 0 it is what autodiff finds, too."""
    layer = make("LSTM", h_detach=1.0)
    x, state, e, d = data("LSTM")
    e, d = np.zeros_like(e), [np.zeros_like(d[0]), np.ones_like(d[1])]
    _, (dh, dc), *_ = differentiate(layer, x, state, e, d)
    np.testing.assert_array_equal(dh, 0)
    kernel, recurrent, bias = map(np.array, layer.get_weights())
    h, c, product = *state, 1.0
    for t in range(x.shape[1]):
        i, f, g, o = np.split(x[:, t] @ kernel + h @ recurrent + bias, 4, axis=1)
        i, f, o = (1 / (1 + np.exp(-z)) for z in (i, f, o))
        c = f * c + i * np.tanh(g)
        h, product = o * np.tanh(c), product * f
    np.testing.assert_allclose(dc, product, rtol=1e-10)


def test_a_cell_without_a_second_path_has_no_h_detach():
    with pytest.raises(ValueError, match="h_detach"):
        kbptt.SimpleRNN(3, h_detach=0.5)
    layer = kbptt.SimpleRNN(3)
    with pytest.raises(ValueError, match="second gradient path"):
        layer.h_detach = 0.5
    with pytest.raises(ValueError, match="h_detach"):
        kbptt.LSTM(3, h_detach=1.5)
    layer = make("LSTM", h_detach=0.5)
    with kbptt.engine.differentiable(), pytest.raises(ValueError, match="h_detach == 0"):
        differentiate(layer, *data("LSTM"))
