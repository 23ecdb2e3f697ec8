"""`gradient_norms` is the total derivative with respect to h_t, measured and by brute force."""

import io
import re

import keras
import numpy as np
import pytest
import reference_bptt
import tensorflow as tf
from recurrent import CELLS, data, differentiate, make, randomize

import kbptt
from kbptt.truncation import Windowed

T = 7


def brute_force(cell, layer, problem, windows, step=1e-6):
    """Σ_b ‖∂L/∂h_t‖ by moving h_t a little and running on to the end of every window."""
    x, state, e, d = problem
    call, weights = reference_bptt.CELLS[cell], layer.get_weights()
    states = [tuple(map(tf.convert_to_tensor, state))]
    for t in range(x.shape[1]):
        states.append(call(x[:, t], states[-1], weights))

    def loss(window, t, h):
        """Per sample: the losses of the window that come at or after t, with h_t replaced."""
        total, now = 0.0, (h, *states[t + 1][1:])
        for s in range(t, window.end):
            if s > t:
                now = call(x[:, s], now, weights)
            if s >= window.first:
                total = total + tf.reduce_sum(now[0] * e[:, s], axis=-1)
        if window.end == x.shape[1]:
            total += sum(tf.reduce_sum(a * b, axis=-1) for a, b in zip(now, d, strict=True))
        return total

    gradient = np.zeros(e.shape)
    for window in windows:
        for t in range(window.start, window.end):
            for unit in range(e.shape[-1]):
                move = step * np.eye(e.shape[-1])[unit]
                h = states[t + 1][0]
                difference = loss(window, t, h + move) - loss(window, t, h - move)
                gradient[:, t, unit] += difference.numpy() / (2 * step)
    return np.linalg.norm(gradient, axis=-1).sum(axis=0)


@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("size", [(), (3,), (3, 1), (4, 2, "start")], ids=str)
def test_norms_by_brute_force(cell, size):
    layer = make(cell, truncation=Windowed(*size) if size else None)
    problem = data(cell, T, units=4)
    norms = differentiate(layer, *problem)[3]
    expected = brute_force(cell, layer, problem, reference_bptt.windows(T, *size))
    assert norms.dtype == np.float32
    np.testing.assert_allclose(norms, expected, rtol=1e-5)


def model_of(layer, seed=0, **arguments):
    model = keras.Sequential([keras.Input((T, 3)), layer, keras.layers.Dense(1)])
    rng = np.random.default_rng(seed)
    model.set_weights([0.5 * rng.normal(size=w.shape) for w in model.get_weights()])
    model.compile(keras.optimizers.SGD(0.0), "mse", **arguments)
    return model


X = np.random.default_rng(0).normal(size=(12, T, 3)).astype("float32")
Y = np.random.default_rng(1).normal(size=(12, 1)).astype("float32")


def test_the_same_under_graph_eager_and_xla_and_for_any_batch_size():
    """A loss that is a mean over the batch gives the mean norm per sample."""
    found = []
    for arguments in ({}, {"run_eagerly": True}, {"jit_compile": True}):
        layer = kbptt.LSTM(4, truncation=5)
        assert layer.gradient_norms is None
        model = model_of(layer, **arguments)
        assert layer.gradient_norms is None
        model.predict(X, verbose=0)
        model.evaluate(X, Y, verbose=0)
        assert layer.gradient_norms is None
        model.fit(X, Y, batch_size=12, verbose=0)
        found.append(layer.gradient_norms)
        model.evaluate(X[:4], Y[:4], batch_size=4, verbose=0)
        np.testing.assert_array_equal(layer.gradient_norms, found[-1])
    assert np.all(found[0][-5:] > 0)
    assert np.all(found[0][:-5] == 0)
    np.testing.assert_allclose(found[1], found[0], rtol=1e-5)
    np.testing.assert_allclose(found[2], found[0], rtol=1e-5)
    # Two halves: their mean is that of the whole batch. The learning rate is 0.
    halves = []
    for part in (slice(6), slice(6, 12)):
        model.fit(X[part], Y[part], batch_size=6, verbose=0)
        halves.append(layer.gradient_norms)
    np.testing.assert_allclose(np.mean(halves, axis=0), found[0], rtol=1e-5)


def test_nothing_is_added_to_the_model():
    def facts(library):
        layer = library.LSTM(4, name="rnn")
        model = keras.Sequential([keras.Input((T, 3)), layer], name="model")
        text = io.StringIO()
        model.summary(print_fn=lambda line: text.write(line + "\n"))
        model.compile("adam", "mse")
        model.fit(X, np.zeros((12, 4)), verbose=0)
        variables = model.variables + model.optimizer.variables
        return text.getvalue(), [re.sub(r"_\d+", "", v.path) for v in variables]

    assert facts(kbptt) == facts(keras.layers)


def test_saved_files_have_the_same_keys(tmp_path):
    import h5py

    keys = []
    for library in (kbptt, keras.layers):
        model = keras.Sequential([keras.Input((T, 3)), library.LSTM(4, name="rnn")])
        path = tmp_path / f"{library.__name__}.weights.h5"
        model.save_weights(path)
        found = []
        with h5py.File(path) as file:
            file.visit(found.append)
        keys.append(found)
    assert keys[0] == keys[1]
    # Each reads the other's file.
    theirs = model
    ours = keras.Sequential([keras.Input((T, 3)), kbptt.LSTM(4, name="rnn", truncation="artbp")])
    ours.load_weights(path)
    np.testing.assert_allclose(ours.predict(X, verbose=0), theirs.predict(X, verbose=0), atol=1e-6)
    theirs.load_weights(tmp_path / "kbptt.weights.h5")


@pytest.mark.usefixtures("eager")
def test_a_layer_called_with_more_timesteps_than_it_was_built_for():
    layer = kbptt.GRU(4, return_sequences=True, return_state=True)
    layer.build((None, 5, 3))
    for timesteps in (5, 9, 3):
        x, state, e, d = (tf.nest.map_structure(np.float32, v) for v in data("GRU", timesteps))
        norms = differentiate(layer, x, state, e, d)[3]
        assert norms.shape == (timesteps,)
        assert np.all(norms > 0)


@pytest.mark.usefixtures("eager")
def test_infinite_and_zero_gradients_are_kept_as_they_are():
    layer = make("SimpleRNN", truncation=1)
    x, state, e, _ = data("SimpleRNN", 4)
    e[:, 0], e[0, 1, 2], e[1, 2, 0] = 0, np.inf, np.nan
    norms = differentiate(layer, x, state, e, [])[3]
    np.testing.assert_array_equal(norms[:3], [0, np.inf, np.nan])
    assert np.isfinite(norms[3])


def test_a_loop_of_ones_own():
    """Filled by any backward pass, of a GradientTape as well."""
    layer = kbptt.GRU(4)
    x = tf.constant(X)
    layer(x)
    randomize(layer)
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean(layer(x, training=True) ** 2)
    assert layer.gradient_norms is None
    tape.gradient(loss, layer.trainable_variables)
    assert layer.gradient_norms.shape == (T,)
