"""`kbptt.streaming`: step by step the same as in one pass."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from steppers import (
    BATCH,
    CALLS,
    CELLS,
    RNG,
    TOKENS,
    Subclassed,
    T,
    X,
    policy,
    randomize,
    sequential,
    stepped,
)

import kbptt
from kbptt.engine import native, using

IN_C = ("LSTM", "GRU", "SimpleRNN", "normalized", "RNN", "stack", "learned", "zeros")


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("loops", ["native", "tensorflow"])
def test_every_cell_step_by_step(cell, loops):
    if loops == "native" and cell not in IN_C:
        pytest.skip("runs in TensorFlow alone")
    dtype = "float32" if loops == "native" else "float64"
    with policy(dtype), using(native=loops == "native"):
        model = sequential(CELLS[cell](return_sequences=True))
        stepper = kbptt.streaming(model)
        full = np.asarray(model(X, training=False))
        found, _ = stepped(stepper, X)
        whole, _ = stepper(X, stepper.initial_states(BATCH))
    assert found.dtype == full.dtype and np.abs(full).max() > 0.1
    if loops == "native" and native.library() is not None:
        np.testing.assert_array_equal(found, full)
        np.testing.assert_array_equal(whole, full)
        assert "cpu" in model.layers[0].loops
    np.testing.assert_allclose(found, full, rtol=0, atol=1e-10 if dtype == "float64" else 1e-6)
    np.testing.assert_allclose(whole, full, rtol=0, atol=1e-10 if dtype == "float64" else 1e-6)


@pytest.mark.parametrize("cell", CELLS)
def test_masked_timesteps(cell):
    """A masked timestep at the beginning of a call repeats the output of an earlier call."""
    with policy("float64"):
        model = sequential(
            layers.Embedding(7, 4, mask_zero=True),
            layers.Dropout(0.5),
            CELLS[cell](return_sequences=True),
            kbptt.GRU(3, return_sequences=True),
            layers.Dense(2),
            shape=(None,),
        )
        stepper = kbptt.streaming(model)
        every = [(t, t + 1) for t in range(T)]
        for calls in (CALLS, every):
            found, _ = stepped(stepper, TOKENS, calls)
            full = np.asarray(model(TOKENS, training=False))
            np.testing.assert_allclose(found, full, rtol=0, atol=1e-10)


@pytest.mark.parametrize("cell", CELLS)
def test_the_last_output_alone(cell):
    with policy("float64"):
        model = sequential(layers.Embedding(7, 4, mask_zero=True), CELLS[cell](), shape=(None,))
        stepper, states = kbptt.streaming(model), None
        states = stepper.initial_states(BATCH)
        for first, stop in CALLS:
            outputs, states = stepper(TOKENS[:, first:stop], states)
            expected = model(TOKENS[:, :stop], training=False)
            np.testing.assert_allclose(outputs, expected, rtol=0, atol=1e-10)


def test_several_layers_in_float32_are_the_same_bit_by_bit():
    if native.library() is None:
        pytest.skip("no compiled loops")
    model = sequential(kbptt.LSTM(8, return_sequences=True), kbptt.GRU(5, return_sequences=True))
    found, states = stepped(kbptt.streaming(model), X)
    np.testing.assert_array_equal(found, model(X, training=False))
    # The state after the sequence is its last output.
    np.testing.assert_array_equal(states[model.layers[1].name][0], found[:, -1])


@pytest.mark.parametrize("cell", ["LSTM", "GRU", "RNN", "own cell", "own stack"])
@pytest.mark.parametrize("name", ["mixed_float16", "mixed_bfloat16", "float16"])
def test_half_precision_is_not_rounded_between_calls(cell, name):
    with policy(name):
        model = sequential(CELLS[cell](return_sequences=True))
        stepper = kbptt.streaming(model)
        found, states = stepped(stepper, X)
        full = np.asarray(model(X, training=False))
    assert {s.dtype for own in states.values() for s in own} == {tf.float32}
    np.testing.assert_array_equal(found.astype("float32"), full.astype("float32"))


# Models -----------------------------------------------------------------------------------------


def test_a_model_of_fixed_timesteps_takes_any_and_stays_as_it_was():
    inner_input = keras.Input((T, 4))
    inner = keras.Model(inner_input, kbptt.GRU(5, return_sequences=True)(inner_input))
    inputs = keras.Input((T, 4))
    model = keras.Model(inputs, layers.Dense(2)(inner(inputs)))
    randomize(model)
    before = model.get_config(), model.input_spec[0].shape, inner.input_spec[0].shape
    found, _ = stepped(kbptt.streaming(model), X)
    np.testing.assert_allclose(found, model(X, training=False), rtol=0, atol=1e-6)
    assert (model.input_spec[0].shape, inner.input_spec[0].shape) == before[1:]
    assert model.get_config() == before[0]
    for one in (model, inner):
        with pytest.raises(ValueError, match="shape"):
            one(X[:, :5])
    inner.input_spec = keras.layers.InputSpec(shape=(None, T, 4))
    given = inner.input_spec
    stepped(kbptt.streaming(model), X)
    assert inner.input_spec is given


def test_a_fixed_batch_of_a_stateful_model():
    model = randomize(
        keras.Sequential(
            [
                keras.Input(batch_shape=(BATCH, T, 4)),
                kbptt.LSTM(5, stateful=True, return_sequences=True),
            ]
        )
    )
    expected = np.asarray(model(X))
    kept = [np.asarray(s) for s in model.layers[0].states]
    found, _ = stepped(kbptt.streaming(model), X)
    one, _ = stepped(kbptt.streaming(model), X[:1])
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)
    np.testing.assert_allclose(one, expected[:1], rtol=0, atol=1e-6)
    for state, was in zip(model.layers[0].states, kept, strict=True):
        np.testing.assert_array_equal(state, was)


def test_a_subclassed_model_with_several_outputs():
    model = Subclassed()
    model(X)
    randomize(model)
    stepper = kbptt.streaming(model)
    states, found = stepper.initial_states(BATCH), []
    assert set(states) == {"first", "second"}
    for first, stop in CALLS:
        outputs, states = stepper(X[:, first:stop], states)
        found.append(outputs)
    for name, expected in model(X, training=False).items():
        all_calls = np.concatenate([one[name] for one in found], axis=1)
        np.testing.assert_allclose(all_calls, expected, rtol=0, atol=1e-6)


def test_several_inputs_one_of_which_is_a_mask():
    with policy("float64"):
        x, mask = keras.Input((None, 4)), keras.Input((None,), dtype="bool")
        outputs = CELLS["learned"](return_sequences=True)(x, mask=mask)
        model = randomize(keras.Model([x, mask], outputs))
        stepper, found = kbptt.streaming(model), []
        states = stepper.initial_states(BATCH)
        for t in range(T):
            outputs, states = stepper([X[:, t : t + 1], TOKENS[:, t : t + 1] > 0], states)
            found.append(outputs)
        expected = model([X, TOKENS > 0], training=False)
    np.testing.assert_allclose(np.concatenate(found, 1), expected, rtol=0, atol=1e-10)


def test_weights_that_are_trained_later_are_seen():
    model = sequential(
        kbptt.LSTM(5, return_sequences=True, trainable_initial_state=True), layers.Dense(1)
    )
    stepper = kbptt.streaming(model)
    before, _ = stepped(stepper, X)
    model.compile("sgd", "mse")
    model.fit(X, np.ones((BATCH, T, 1)), epochs=2, verbose=0)
    after, _ = stepped(stepper, X)
    assert np.abs(after - before).max() > 1e-3
    np.testing.assert_allclose(after, model(X, training=False), rtol=0, atol=1e-6)


def test_nothing_is_kept():
    model = sequential(
        kbptt.LSTM(5, return_sequences=True, activity_regularizer="l2"),
        layers.BatchNormalization(),
        kbptt.GRU(4, return_sequences=True, gradient_regularizer="vanishing_gradient"),
    )
    weights = model.get_weights()
    stepper = kbptt.streaming(model)
    first, after = stepped(stepper, X)
    again, _ = stepped(stepper, X)
    np.testing.assert_array_equal(first, again)
    assert model.losses == []
    for a, b in zip(weights, model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    # States may be used again, and rows taken out.
    other = RNG.normal(size=(BATCH, 2, 4)).astype("float32")
    twice = [stepper(other, after)[0].numpy() for _ in range(2)]
    np.testing.assert_array_equal(*twice)
    rows = {name: [s[1:2].numpy() for s in own] for name, own in after.items()}
    one, _ = stepper(other[1:2], rows)
    np.testing.assert_allclose(one, twice[0][1:2], rtol=0, atol=1e-6)


def test_initial_states():
    model = sequential(
        kbptt.LSTM(5, return_sequences=True, trainable_initial_state=True, name="a"),
        kbptt.RNN([layers.GRUCell(3), layers.LSTMCell(2)], name="b"),
    )
    states = kbptt.streaming(model).initial_states(2)
    assert list(states) == ["a", "b"]
    assert [s.shape.as_list() for s in states["b"]] == [[2, 3], [2, 2], [2, 2]]
    learned = [w.numpy() for w in model.layers[0].weights if "initial_state" in w.name]
    for state, weight in zip(states["a"], learned, strict=True):
        assert np.abs(weight).max() > 0
        np.testing.assert_array_equal(state, np.stack([weight] * 2))


def test_in_a_function_of_the_users_own_with_a_gradient():
    model = sequential(kbptt.GRU(5, return_sequences=True))
    stepper = kbptt.streaming(model)

    @tf.function
    def both(x):
        states = stepper.initial_states(tf.shape(x)[0])
        with tf.GradientTape() as tape:
            first, states = stepper(x[:, :5], states)
            second, _ = stepper(x[:, 5:], states)
            outputs = tf.concat([first, second], 1)
            loss = tf.reduce_sum(outputs**2)
        return outputs, tape.gradient(loss, model.trainable_variables[0].value)

    outputs, gradient = both(X)
    np.testing.assert_allclose(outputs, model(X), rtol=0, atol=1e-6)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(model(X, training=False) ** 2)
    expected = tape.gradient(loss, model.trainable_variables[0].value)
    np.testing.assert_allclose(gradient, expected, rtol=1e-4, atol=1e-5)


def test_many_lengths_are_not_traced_one_by_one():
    traces = []

    class Counts(layers.Layer):
        def call(self, x):
            if not kbptt._keras.is_symbolic() or not tf.executing_eagerly():
                traces.append(x.shape)
            return x

    model = sequential(Counts(), kbptt.GRU(5, return_sequences=True))
    stepper = kbptt.streaming(model)
    traces.clear()
    for length in range(1, 9):
        stepper(X[:, :length], stepper.initial_states(BATCH))
    assert 1 <= len(traces) <= 2
    # What is fixed stays so.
    with pytest.raises(ValueError, match=r"timesteps, 4\).*\(3, 5, 3\)"):
        stepper(X[:, :5, :3], stepper.initial_states(BATCH))
    with pytest.raises(ValueError, match=r"at least one row and timestep.*\(3, 0, 4\)"):
        stepper(X[:, :0], stepper.initial_states(BATCH))
    stepper(X[:, :5], stepper.initial_states(BATCH))


# Errors -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("inner", "error"),
    [
        (lambda: [layers.Bidirectional(kbptt.GRU(3))], "reads a window from its end"),
        (lambda: [kbptt.GRU(3, go_backwards=True)], "reads a window from its end"),
        (lambda: [layers.GRU(3, name="theirs")], "'theirs' is one of Keras's.*kbptt.convert"),
        (lambda: [layers.Dense(3)], "no recurrent kbptt layer"),
    ],
)
def test_layers_that_cannot_carry_their_states(inner, error):
    with pytest.raises(ValueError, match=error):
        kbptt.streaming(sequential(*inner()))


def test_models_that_are_refused():
    with pytest.raises(ValueError, match=r"`model` expected a keras\.Model.*GRU"):
        kbptt.streaming(kbptt.GRU(3))
    with pytest.raises(ValueError, match="expected to be built"):
        kbptt.streaming(keras.Sequential([kbptt.GRU(3)]))
    one, two = (sequential(kbptt.GRU(4, return_sequences=True, name="rnn")) for _ in range(2))
    with pytest.raises(ValueError, match="two recurrent layers are named 'rnn'"):
        kbptt.streaming(sequential(one, two))
    layer, x = kbptt.GRU(4, return_sequences=True, name="rnn"), keras.Input((None, 4))
    stepper = kbptt.streaming(keras.Model(x, layer(layer(x))))
    with pytest.raises(ValueError, match="'rnn' is called twice"):
        stepper(X, stepper.initial_states(BATCH))
    first = kbptt.GRU(4, return_sequences=True, return_state=True)(x)
    second = kbptt.GRU(4, name="decoder")(first[0], initial_state=[first[1]])
    stepper = kbptt.streaming(keras.Model(x, second))
    with pytest.raises(ValueError, match="'decoder' gets an `initial_state`"):
        stepper(X, stepper.initial_states(BATCH))


def test_a_mask_from_nowhere_is_refused_where_the_output_before_is_unknown():
    x = keras.Input((None, 4))
    outputs = CELLS["learned"](name="rnn")(x, mask=keras.ops.any(x != 0, axis=-1))
    stepper = kbptt.streaming(keras.Model(x, outputs))
    with pytest.raises(ValueError, match="'rnn' received a mask"):
        stepper(X, stepper.initial_states(BATCH))


def test_states_that_are_refused():
    model = sequential(kbptt.LSTM(5, name="rnn"))
    stepper = kbptt.streaming(model)
    states = stepper.initial_states(BATCH)
    h, c = states["rnn"]
    for wrong in (None, [h, c], {}, {"rnn": [h]}, {"gru": [h, c]}, states | {"more": [h]}):
        with pytest.raises(ValueError, match=r"`states` expected a dict.*\{'rnn': 2\}.*initial_s"):
            stepper(X, wrong)
    for wrong in ([h[:1], c[:1]], [h, c[:, :2]], [h[0], c[0]]):
        with pytest.raises(ValueError, match=r"'rnn' expected the shape.*\(3, 5\)"):
            stepper(X, {"rnn": wrong})
    for wrong in (0, -1, 1.0, True, "one"):
        with pytest.raises(ValueError, match="`batch_size`"):
            stepper.initial_states(wrong)
