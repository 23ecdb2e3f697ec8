"""Inputs of every shape and type: each works, or fails with one clear sentence."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from recurrent import CELLS, data, differentiate, make

import kbptt
from kbptt.truncation import Windowed


@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("truncation", [None, 1, 4, Windowed(4, 2)], ids=repr)
def test_one_timestep(cell, truncation):
    layer, twin = make(cell, truncation=truncation), make(cell, library=keras.layers)
    problem = data(cell, 1)
    found, expected = differentiate(layer, *problem), differentiate(twin, *problem)
    for index in (1, 2):
        for a, b in zip(found[index], expected[index], strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-10)
    assert found[3].shape == (1,)


@pytest.mark.parametrize("shape", [(2, 0, 3), (2, 3), (3,)])
def test_no_timesteps_or_no_time_at_all(shape):
    x = np.zeros(shape, "float32")
    ours = r"expected sequences of shape \(batch, timesteps, features\) with at least one timestep"
    for cell in CELLS:  # whose rank Keras itself checks
        with pytest.raises(ValueError, match=f"expected ndim=3, found ndim={len(shape)}|{ours}"):
            getattr(kbptt, cell)(4)(x)
    with pytest.raises(ValueError, match=ours):
        kbptt.RNN(keras.layers.GRUCell(4))(x)


def test_ragged_sequences():
    ragged = tf.RaggedTensor.from_row_lengths(np.ones((5, 3), "float32"), [2, 3])
    with pytest.raises(ValueError, match=r"dense tensor.*RaggedTensor.*to_tensor\(\).*mask"):
        kbptt.GRU(4)(ragged)


@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize("cell", CELLS)
def test_integers(cell):
    x = np.random.default_rng(0).integers(0, 5, (2, 6, 3))
    ours, theirs = (make(cell, library=lib, dtype="float32") for lib in (kbptt, keras.layers))
    np.testing.assert_allclose(ours(x)[0], theirs(x)[0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("truncation", [None, 4, Windowed(4, 2)], ids=repr)
def test_an_empty_batch(truncation):
    layer = make("LSTM", truncation=truncation)
    x, state, e, d = data("LSTM", 6)
    dx, _, d_weights, norms, outputs, _ = differentiate(
        layer, x[:0], [s[:0] for s in state], e[:0], [v[:0] for v in d]
    )
    assert dx.shape == (0, 6, 3)
    assert outputs.shape == (0, 6, 4)
    assert all(np.all(g == 0) for g in d_weights)
    np.testing.assert_array_equal(norms, np.zeros(6))


def test_another_backend_is_named(monkeypatch):
    monkeypatch.setattr("keras.backend.backend", lambda: "jax")
    with pytest.raises(RuntimeError, match=r"backend 'tensorflow'. Received: 'jax'. Set the env"):
        kbptt.LSTM(4)


@pytest.mark.parametrize("kind", [*CELLS, "RNN"])
@pytest.mark.parametrize("variable", [keras.Variable, tf.Variable])
def test_variables_as_inputs(kind, variable):
    """As the sequences, the initial states and the mask; their gradients too."""
    layer = kbptt.RNN(keras.layers.GRUCell(4)) if kind == "RNN" else getattr(kbptt, kind)(4)
    x, state, *_ = (v for v in data("GRU" if kind == "RNN" else kind))
    x, state = x.astype("float32"), [s.astype("float32") for s in state]
    mask = np.random.default_rng(0).random(x.shape[:2]) < 0.7
    expected = layer(x, initial_state=[tf.constant(s) for s in state], mask=mask)
    given, states = variable(x), [variable(s) for s in state]
    with tf.GradientTape() as tape:
        found = layer(given, initial_state=states, mask=variable(mask, dtype="bool"))
        loss = tf.reduce_sum(found)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    value = given.value if variable is keras.Variable else given
    assert tape.gradient(loss, value) is not None
    resets = np.random.default_rng(1).random(x.shape[:2]) < 0.3
    np.testing.assert_allclose(
        layer(x, resets=variable(resets, dtype="bool")), layer(x, resets=resets), atol=1e-6
    )
