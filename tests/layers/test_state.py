"""State: initial, returned, and kept from batch to batch."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from recurrent import CELLS, STATES, data, differentiate, eager, make, randomize

import kbptt


@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize("cell", CELLS)
def test_stateful_batches_are_one_long_sequence(cell):
    x, _, e, _ = data(cell, 9)
    plain = make(cell)
    outputs, *final = plain(x)
    layer = stateful(cell)
    for start, end in [(0, 4), (4, 5), (5, 9)]:
        part, *states = layer(x[:, start:end], training=True)
        np.testing.assert_allclose(part, outputs[:, start:end], rtol=1e-12, atol=1e-12)
    for a, b in zip(states, final, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12)
    # The gradient does not cross from one batch to the next.
    previous = [s.numpy() for s in states]
    dx, _, d_weights, *_ = differentiate(layer, x, None, e, [], training=True)
    expected = differentiate(plain, x, previous, e, [])
    np.testing.assert_allclose(dx, expected[0], rtol=1e-10, atol=1e-12)
    for a, b in zip(d_weights, expected[2], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12)
    layer.reset_state()
    np.testing.assert_allclose(layer(x, training=True)[0], outputs, rtol=1e-12, atol=1e-12)


def stateful(cell, **arguments):
    layer = getattr(kbptt, cell)(
        4, stateful=True, return_sequences=True, return_state=True, dtype="float64", **arguments
    )
    layer.build((2, None, 3))
    randomize(layer)
    return layer


@pytest.mark.parametrize("cell", ["LSTM", "stacked"])
def test_validation_and_prediction_leave_the_state_of_training_alone(cell):
    if cell == "stacked":
        layer = kbptt.RNN([keras.layers.GRUCell(4), keras.layers.LSTMCell(4)], stateful=True)
    else:
        layer = kbptt.LSTM(4, stateful=True)
    model = keras.Sequential([keras.Input(batch_shape=(2, 5, 3)), layer])
    model.compile(keras.optimizers.SGD(0.0), "mse")
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(4, 5, 3)), rng.normal(size=(4, 4))

    def training_state():
        return [s.numpy() for s in keras.tree.flatten(layer.states)]

    model.fit(x, y, batch_size=2, shuffle=False, verbose=0)
    after_one = training_state()
    assert np.any(after_one[0] != 0)
    # A sequence goes on from one batch of `predict` to the next, and starts anew after a reset.
    first = model.predict(x, batch_size=2, verbose=0)
    long = model.layers[-1]
    assert np.any(np.abs(model.predict(x, batch_size=2, verbose=0) - first) > 1e-6)
    model.evaluate(x, y, batch_size=2, verbose=0)
    for a, b in zip(training_state(), after_one, strict=True):
        np.testing.assert_array_equal(a, b)
    long.reset_state()
    np.testing.assert_allclose(model.predict(x, batch_size=2, verbose=0), first, atol=1e-6)
    assert all(np.all(s == 0) for s in training_state())

    # Two epochs with validation train on the same states as two without.
    model.fit(x, y, batch_size=2, shuffle=False, epochs=2, verbose=0)
    without = training_state()
    long.reset_state()
    model.fit(
        x, y, batch_size=2, shuffle=False, epochs=2, verbose=0,
        validation_data=(x, y), validation_batch_size=2,
    )  # fmt: skip
    for a, b in zip(training_state(), without, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)
    assert len(model.get_weights()) == len(model.trainable_weights)


def test_another_batch_size_is_refused_where_states_are_kept():
    layer = stateful("GRU")
    with pytest.raises(
        ValueError, match=r"stateful: the batch size must stay the same, 2\. Received a batch of 3"
    ):
        layer(np.zeros((3, 5, 3)))

    @tf.function(input_signature=[tf.TensorSpec([None, 5, 3], "float64")], autograph=False)
    def call(x):
        return layer(x)

    call(np.zeros((2, 5, 3)))
    with pytest.raises(tf.errors.InvalidArgumentError, match="batch size must stay the same"):
        call(np.zeros((3, 5, 3)))


@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize("cell", CELLS)
def test_initial_states_of_the_wrong_shape(cell):
    layer = make(cell)
    x, (state, *_), *_ = data(cell)
    count = STATES[cell]
    for wrong in ([state] * (count + 1), [state[:, :3]] * count, [state[:1]] * count):
        with pytest.raises(ValueError, match=rf"`initial_state` of {count} tensor"):
            layer(x, initial_state=[tf.constant(s) for s in wrong])


def test_states_go_from_an_encoder_to_a_decoder():
    """The gradient of an initial state, in a functional model, as with the layers of Keras."""
    x, y = (v.astype("float32") for v in (data("LSTM", 6)[0], data("LSTM", 4)[2]))

    def gradients(library):
        keras.utils.set_random_seed(2)
        source, target = keras.Input((None, 3)), keras.Input((None, 4))
        _, *states = library.LSTM(5, return_state=True)(source)
        decoded = library.LSTM(5, return_sequences=True)(target, initial_state=states)
        model = keras.Model([source, target], decoded)
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(model([x, y]) ** 2)
        return tape.gradient(loss, model.trainable_weights)

    for a, b in zip(gradients(kbptt), gradients(keras.layers), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


__all__ = ["eager"]
