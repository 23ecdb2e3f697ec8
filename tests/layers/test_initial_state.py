"""`trainable_initial_state`: what sequences begin with, and resets go back to, is learned."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from recurrent import randomize
from stream_loop import RECURRENT

import kbptt


def build(cell, **arguments):
    layers = RECURRENT[cell](dtype="float64", trainable_initial_state=True, **arguments)
    model = keras.Sequential([keras.Input((None, 3), dtype="float64"), *layers])
    for layer in layers:
        randomize(layer)
    return model


def initial(model):
    return [v for v in model.trainable_variables if "initial_state" in v.name]


@pytest.mark.usefixtures("eager", "float64")
@pytest.mark.parametrize("cell", RECURRENT)
def test_the_gradient_against_finite_differences(cell):
    model = build(cell)
    rng = np.random.default_rng(2)
    x = tf.constant(rng.normal(size=(2, 6, 3)))
    resets = np.zeros((2, 6), bool)
    resets[0, 3] = resets[1, 0] = True

    def loss():
        h = x
        for layer in model.layers:
            h = layer(h, resets=resets)
        return tf.reduce_sum(h**3)

    variables = initial(model)
    assert variables
    with tf.GradientTape() as tape:
        value = loss()
    gradients = tape.gradient(value, [v.value for v in variables])
    for variable, gradient in zip(variables, gradients, strict=True):
        for index in range(variable.shape[0]):
            step = 1e-6 * np.eye(variable.shape[0])[index]
            at = variable.numpy()
            variable.assign(at + step)
            above = loss()
            variable.assign(at - step)
            below = loss()
            variable.assign(at)
            np.testing.assert_allclose(
                gradient[index], (above - below) / 2e-6, rtol=1e-5, atol=1e-7
            )


@pytest.mark.parametrize("cell", RECURRENT)
def test_weights_begin_at_the_states_of_the_cell_and_are_saved(cell, tmp_path):
    layers = RECURRENT[cell](trainable_initial_state=True)
    model = keras.Sequential([keras.Input((None, 3)), *layers])
    plain = keras.Sequential([keras.Input((None, 3)), *RECURRENT[cell]()])
    x = np.random.default_rng(0).normal(size=(2, 5, 3)).astype("float32")
    states = initial(model)
    assert all(np.all(v.numpy() == 0) and len(v.shape) == 1 for v in states)
    others = [v for v in model.weights if not any(v is s for s in states)]
    for one, other in zip(plain.weights, others, strict=True):
        one.assign(other)
    np.testing.assert_array_equal(model(x), plain(x))
    if cell == "own cell":
        return
    for v in states:
        v.assign(np.arange(v.shape[0]) / 10 + 0.1)
    assert np.any(np.asarray(model(x)) != np.asarray(plain(x)))
    model.save(tmp_path / "m.keras")
    again = keras.models.load_model(tmp_path / "m.keras")
    np.testing.assert_array_equal(again(x), model(x))


def test_a_stateful_layer_goes_back_to_what_is_learned():
    layer = kbptt.LSTM(
        4, stateful=True, trainable_initial_state=True, dtype="float64", return_sequences=True
    )
    plain = kbptt.LSTM(4, trainable_initial_state=True, dtype="float64", return_sequences=True)
    x = tf.constant(np.random.default_rng(0).normal(size=(2, 5, 3)))
    for one in (layer, plain):
        one.build(x.shape)
        randomize(one)

    def gradient(one, x):
        with tf.GradientTape() as tape:
            outputs = one(x, training=True)
            loss = tf.reduce_sum(outputs**2)
        weights = [v.value for v in one.trainable_variables]
        return outputs, tape.gradient(loss, weights, unconnected_gradients="zero")

    first, expected = gradient(plain, x)
    for _ in range(2):
        outputs, found = gradient(layer, x)
        np.testing.assert_array_equal(outputs, first)
        for a, b in zip(found, expected, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-12)
        later, found = gradient(layer, x)
        assert np.any(np.asarray(later) != np.asarray(first))
        assert all(np.all(g == 0) for g in found[:2])
        layer.reset_state()
        np.testing.assert_array_equal(layer.states[0], np.tile(layer.weights[0].numpy(), (2, 1)))
    # Also when the weights have changed since the reset, in passes of either kind.
    for one in (layer, plain):
        one.weights[0].assign(one.weights[0] + 1)
    expected = plain(x)
    np.testing.assert_array_equal(layer(x, training=False), expected)
    np.testing.assert_array_equal(layer(x, training=True), expected)
    assert np.any(np.asarray(layer(x, training=False)) != np.asarray(expected))
    # A value that is assigned comes first.
    layer.reset_state()
    for state in layer.states:
        state.assign(np.zeros(state.shape))
    zeros = plain(x, initial_state=[np.zeros((2, 4))] * 2)
    np.testing.assert_array_equal(layer(x), zeros)


@pytest.mark.parametrize("wrap", ["Bidirectional", "convert"])
def test_inside_of_others(wrap):
    layer = kbptt.GRU(4, trainable_initial_state=True)
    if wrap == "Bidirectional":
        layer = keras.layers.Bidirectional(layer)
    model = keras.Sequential([keras.Input((5, 3)), layer])
    assert len(initial(model)) == (2 if wrap == "Bidirectional" else 1)
    for v in initial(model):
        v.assign(np.ones(4))
    x = np.random.default_rng(0).normal(size=(2, 5, 3))
    if wrap == "convert":
        again = kbptt.convert(model, truncation=2)
        np.testing.assert_array_equal(again(x), model(x))
    model.compile("sgd", "mse")
    model.fit(x, np.ones((2, 8 if wrap == "Bidirectional" else 4)), verbose=0)
    assert all(np.any(v.numpy() != 1) for v in initial(model))
