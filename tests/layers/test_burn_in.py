"""`burn_in`: the gradient is that of a call that begins with the burnt-in state."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from recurrent import CELLS, STATES, make, randomize
from stream_loop import RECURRENT

import kbptt
from kbptt.truncation import Randomized, Windowed

T, K = 9, 4

pytestmark = pytest.mark.usefixtures("eager")


def numbers(batch=3):
    rng = np.random.default_rng(0)
    return rng.normal(size=(batch, T, 3)), rng.normal(size=(batch, T, 4))


def gradients(layer, call, *more):
    weights = [v.value for v in layer.trainable_variables]
    with tf.GradientTape() as tape:
        tape.watch(more)
        loss = call()
    return tape.gradient(loss, [*weights, *more], unconnected_gradients="zero")


def build(cell, **arguments):
    layers = RECURRENT[cell](dtype="float64", **arguments)
    if len(layers) > 1:
        pytest.skip("layers burn in one by one")
    layers[0].build((None, None, 3))
    randomize(layers[0])
    return layers[0]


@pytest.mark.parametrize("truncation", [None, 2, Windowed(3, 1), Windowed(3, align="start")])
@pytest.mark.parametrize("cell", RECURRENT)
def test_the_gradient_is_that_of_a_call_from_the_burnt_in_state(cell, truncation):
    x, e = map(tf.constant, numbers())
    layer = build(cell, truncation=truncation)
    layer.return_state = True
    outputs, *_ = layer(x)

    def burnt():
        found, *final = layer(x, burn_in=K)
        np.testing.assert_allclose(found, outputs, rtol=1e-12, atol=1e-13)
        return tf.reduce_sum(found * e) + tf.reduce_sum(keras.tree.flatten(final)[0] ** 2)

    def rest():
        _, *state = layer(x[:, :K])
        state = keras.tree.map_structure(tf.stop_gradient, state)
        found, *final = layer(x[:, K:], initial_state=state)
        return tf.reduce_sum(found * e[:, K:]) + tf.reduce_sum(keras.tree.flatten(final)[0] ** 2)

    found = gradients(layer, burnt, x)
    norms = layer.gradient_norms
    expected = gradients(layer, rest, x)
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12)
    assert np.all(found[-1][:, :K] == 0)
    # Norms stand where their timesteps do.
    np.testing.assert_array_equal(norms[:K], 0)
    np.testing.assert_allclose(norms[K:], layer.gradient_norms, rtol=1e-6)


@pytest.mark.parametrize("zero", [False, True])
@pytest.mark.parametrize("sequences", [False, True])
@pytest.mark.parametrize("cell", ["LSTM", "own cell"])
def test_masks(cell, sequences, zero):
    """Outputs are those without burn-in; a sample that has not begun keeps its initial state."""
    x, _ = numbers(4)
    mask = np.ones((4, T), bool)
    mask[0, : K + 2] = mask[1, K - 1 : K + 1] = mask[2, 2:] = mask[3, K:] = False
    layer = build(cell, zero_output_for_mask=zero, trainable_initial_state=True)
    layer.return_sequences = sequences
    expected = layer(x, mask=mask)
    np.testing.assert_allclose(layer(x, mask=mask, burn_in=K), expected, atol=1e-13)
    for weights in layer.weights[: STATES.get(cell, 1)]:
        assert weights.path.split("/")[-1].startswith("initial_state")
    for samples, learns in [([0], True), ([1, 2, 3], False)]:

        def loss(samples=samples):
            return tf.reduce_sum(tf.gather(layer(x, mask=mask, burn_in=K), samples) ** 2)

        gradient = gradients(layer, loss)[0]
        assert bool(np.any(gradient != 0)) == learns


@pytest.mark.parametrize("cell", CELLS)
def test_resets_and_a_layer_that_reads_backwards(cell):
    x, e = map(tf.constant, numbers())
    resets = np.zeros((3, T), bool)
    resets[0, 2] = resets[1, K] = resets[2, K + 2] = True
    forward, backward = make(cell), make(cell, go_backwards=True)
    forward.return_state = backward.return_state = False

    def one():
        return tf.reduce_sum(forward(x, resets=resets, burn_in=K) * e)

    def other():
        return tf.reduce_sum(backward(x[:, ::-1], resets=resets[:, ::-1], burn_in=K) * e)

    for a, b in zip(gradients(forward, one, x), gradients(backward, other, x), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-13)
    # A reset in the burn-in is one of the state that is burnt in.
    first = forward(x[:1, 2:])
    np.testing.assert_allclose(forward(x, resets=resets, burn_in=K)[:1, 2:], first, atol=1e-13)


def test_dropout_is_that_of_one_call():
    """Both parts drop the same units."""
    x, _ = numbers()
    outputs = []
    for burn_in in (0, K):
        layer = kbptt.LSTM(
            4, dropout=0.5, recurrent_dropout=0.5, seed=3, return_sequences=True, dtype="float64"
        )
        layer.build(x.shape)
        randomize(layer)
        outputs.append(layer(x, training=True, burn_in=burn_in))
    np.testing.assert_allclose(*outputs, atol=1e-13)


def test_in_a_model_that_is_saved(tmp_path):
    inputs = keras.Input((T, 3))
    model = keras.Model(inputs, kbptt.GRU(4, return_sequences=True)(inputs, burn_in=K))
    model.compile("sgd", "mse", run_eagerly=True)
    x, y = numbers()
    model.train_on_batch(x, y)
    assert np.all(model.layers[-1].gradient_norms[:K] == 0)
    model.save(tmp_path / "m.keras")
    again = keras.models.load_model(tmp_path / "m.keras")
    again.train_on_batch(x, y)
    assert np.all(again.layers[-1].gradient_norms[:K] == 0)
    np.testing.assert_array_less(0, again.layers[-1].gradient_norms[K:])


def test_a_number_of_numpy():
    layer, (x, _) = kbptt.GRU(4), numbers()
    np.testing.assert_array_equal(layer(x, burn_in=np.int64(K)), layer(x, burn_in=K))


def test_what_is_refused():
    layer = kbptt.GRU(4, truncation=Randomized(0.5))
    x, _ = numbers()
    with pytest.raises(ValueError, match="expected `burn_in` below the number of timesteps, 9"):
        layer(x, burn_in=T)
    for wrong in (-1, 1.5, True, "all"):
        with pytest.raises(ValueError, match="burn_in"):
            layer(x, burn_in=wrong)
