"""State: initial, returned, and kept from batch to batch."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from recurrent import CELLS, STATES, data, differentiate, make, randomize

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
        return [s.numpy() for s in layer.training_states]

    model.fit(x, y, batch_size=2, shuffle=False, verbose=0)
    after_one = training_state()
    assert np.any(after_one[0] != 0)
    # A sequence continues from one batch of `predict` to the next, and starts over after a reset.
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


NOT_STATES = {"x": "'x'", 3.0: "3.0", (None,): "None", ((0.0, 1.0),): "0.0"}


@pytest.mark.parametrize("given", NOT_STATES)
@pytest.mark.parametrize("kind", ["GRU", "LSTM", "RNN"])
def test_initial_states_that_are_none(kind, given):
    layer = kbptt.RNN(keras.layers.GRUCell(4)) if kind == "RNN" else getattr(kbptt, kind)(4)
    given_ = list(given) if isinstance(given, tuple) else given
    with pytest.raises(ValueError, match=f"(?s)`initial_state` of . tensor.*{NOT_STATES[given]}"):
        layer(np.zeros((2, 5, 3), "float32"), initial_state=given_)


def stateful_model(kind, timesteps=5):
    keras.utils.set_random_seed(0)
    if kind == "stacked":
        rnn = kbptt.RNN([keras.layers.GRUCell(4), keras.layers.LSTMCell(4)], stateful=True)
    else:
        rnn = getattr(kbptt, kind)(4, stateful=True)
    model = keras.Sequential([keras.Input(batch_shape=(2, timesteps, 3)), rnn])
    model.compile(keras.optimizers.SGD(0.0), "mse")
    return model, rnn


rng = np.random.default_rng(0)
X, Y = rng.normal(size=(2, 5, 3)).astype("float32"), np.zeros((2, 4), "float32")


def values(rnn):
    return [s.numpy() for s in keras.tree.flatten(rnn.states)]


@pytest.mark.parametrize("kind", [*CELLS, "stacked"])
def test_assigned_states_are_where_the_next_pass_begins(kind):
    """As in Keras, whichever pass comes next."""
    model, rnn = stateful_model(kind)
    twin = {"SimpleRNN": keras.layers.SimpleRNN, "GRU": keras.layers.GRU, "LSTM": keras.layers.LSTM}
    if kind == "stacked":
        other = keras.layers.RNN([keras.layers.GRUCell(4), keras.layers.LSTMCell(4)], stateful=True)
    else:
        other = twin[kind](4, stateful=True)
    reference = keras.Sequential([keras.Input(batch_shape=(2, 5, 3)), other])
    other.set_weights(rnn.get_weights())
    reference.compile("sgd", "mse")
    model.fit(X, Y, batch_size=2, verbose=0)
    for s, t in zip(*map(keras.tree.flatten, (rnn.states, other.states)), strict=True):
        value = np.random.default_rng(3).normal(size=s.shape)
        s.assign(value)
        t.assign(value)
    for _ in range(2):  # the second goes on where the first ended
        np.testing.assert_allclose(
            model.predict(X, verbose=0), reference.predict(X, verbose=0), atol=1e-5
        )
        for a, b in zip(values(rnn), values(other), strict=True):
            np.testing.assert_allclose(a, b, atol=1e-5)
    np.testing.assert_allclose(model(X), reference(X), atol=1e-5)
    for a, b in zip(values(rnn), values(other), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


def test_states_that_are_assigned_as_they_were_read():
    """Training's last states put in on purpose are used by `predict`, though the same."""
    model, rnn = stateful_model("GRU")
    model.predict(X, verbose=0)
    model.fit(X, Y, batch_size=2, verbose=0)
    (kept,) = values(rnn)
    np.testing.assert_array_equal(kept, rnn.training_states[0])
    rnn.states[0].assign(kept)
    predicted = model.predict(X, verbose=0)
    rnn.states[0].assign(kept)
    np.testing.assert_allclose(predicted, model(X), atol=1e-6)
    plain = keras.layers.GRU(4)
    plain.build(X.shape)
    plain.set_weights(rnn.get_weights())
    expected = plain(X, initial_state=[kept])
    np.testing.assert_allclose(predicted, expected, atol=1e-5)


def test_states_show_the_last_pass_and_training_goes_on_from_its_own():
    model, rnn = stateful_model("LSTM")
    model.fit(X, Y, batch_size=2, verbose=0)
    trained = values(rnn)
    for a, b in zip(trained, rnn.training_states, strict=True):
        np.testing.assert_array_equal(a, b)
    model.predict(2 * X, verbose=0)
    for a, b in zip(values(rnn), rnn.inference_states, strict=True):
        np.testing.assert_array_equal(a, b)
    assert np.any(values(rnn)[0] != trained[0])
    plain = kbptt.LSTM(4, return_state=True)
    plain.build((2, 5, 3))
    plain.set_weights(rnn.get_weights())
    _, *expected = plain(X, initial_state=[tf.constant(s) for s in trained])
    model.fit(X, Y, batch_size=2, verbose=0)
    for a, b in zip(values(rnn), expected, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)
    # States are no weights, as in Keras, and no training state is lost in a copy of the weights.
    assert len(rnn.weights) == len(plain.weights)


@pytest.mark.parametrize("run", ["fit", "evaluate", "predict"])
@pytest.mark.parametrize("kind", ["LSTM", "stacked"])
@pytest.mark.parametrize("how", [{}, {"run_eagerly": True}])
def test_a_smaller_last_batch_says_the_same_everywhere(kind, run, how):
    model, rnn = stateful_model(kind)
    model.compile("sgd", "mse", **how)
    x, y = np.zeros((3, 5, 3), "float32"), np.zeros((3, 4), "float32")
    given = {"x": x, "batch_size": 2, "verbose": 0}
    if run != "predict":
        given["y"] = y
    sentence = f"(?s){rnn.name}.* is stateful: the batch size must stay the same, 2"
    with pytest.raises((ValueError, tf.errors.InvalidArgumentError), match=sentence):
        getattr(model, run)(**given)


@pytest.mark.parametrize("run", ["evaluate", "predict"])
def test_a_smaller_last_batch_under_xla(run):
    """XLA would fill it up in silence; it knows no sentences."""
    model, rnn = stateful_model("GRU")
    model.compile("sgd", "mse", jit_compile=True)
    x, y = np.zeros((3, 5, 3), "float32"), np.zeros((3, 4), "float32")
    given = {"x": x, "batch_size": 2, "verbose": 0} | ({"y": y} if run == "evaluate" else {})
    sentence = f"{rnn.name}.*stateful__the_batch_size_must_stay_the_same"
    with pytest.raises(tf.errors.InvalidArgumentError, match=f"(?s){sentence}"):
        getattr(model, run)(**given)
