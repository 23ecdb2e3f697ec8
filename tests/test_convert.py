"""`kbptt.convert`: Keras models with their recurrent layers replaced, weights kept."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import kbptt
from kbptt.layers import find
from kbptt.truncation import Windowed

T = 6
X = np.random.default_rng(0).normal(size=(2, T, 3)).astype("float32")
layers = keras.layers

pytestmark = pytest.mark.usefixtures("eager")


def sequential():
    return keras.Sequential(
        [
            keras.Input((T, 3)),
            layers.LSTM(4, return_sequences=True, name="first", dropout=0.1),
            layers.GRU(4, reset_after=False, return_sequences=True),
            layers.SimpleRNN(3),
            layers.Dense(2),
        ]
    )


def functional():
    inputs = keras.Input((T, 3))
    shared = layers.GRU(3, return_sequences=True, name="shared")
    a, b = shared(inputs), shared(layers.Dense(3)(inputs))
    both = layers.Bidirectional(layers.LSTM(4, return_sequences=True), name="both")(a)
    stack = layers.RNN([layers.GRUCell(3), layers.LSTMCell(2)], return_state=True)(b)
    return keras.Model(inputs, [both, *stack])


def nested():
    inner = keras.Sequential([keras.Input((T, 3)), layers.GRU(4, return_sequences=True)], name="in")
    inputs = keras.Input((T, 3))
    return keras.Model(inputs, layers.LSTM(3)(inner(inputs)))


def distributed():
    inputs = keras.Input((2, T, 3))
    one_by_one = layers.TimeDistributed(layers.Bidirectional(layers.GRU(3)))(inputs)
    backward = layers.LSTM(3, go_backwards=True, activation="relu")
    return keras.Model(
        inputs, layers.Bidirectional(layers.GRU(3), backward_layer=backward)(one_by_one)
    )


@pytest.mark.parametrize("build", [sequential, functional, nested, distributed])
def test_weights_and_outputs_are_kept(build):
    model = build()
    x = X if build is not distributed else np.stack([X, 2 * X], axis=1)
    converted = kbptt.convert(model, truncation=Windowed(4, 2))
    assert type(converted) is type(model)
    for a, b in zip(converted.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert [w.path.split("/")[-1] for w in converted.weights] == [
        w.path.split("/")[-1] for w in model.weights
    ]
    assert names(converted) == names(model)
    for a, b in zip(tf.nest.flatten(converted(x)), tf.nest.flatten(model(x)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    recurrent = find.recurrent_layers(converted)
    assert recurrent
    assert all(type(one).__module__.startswith("kbptt.") for one in recurrent)
    assert all(one.truncation == Windowed(4, 2) for one in recurrent)
    # A copy: training it leaves the original alone.
    converted.set_weights([w + 1 for w in converted.get_weights()])
    assert np.any(converted.get_weights()[0] != model.get_weights()[0])


def names(model):
    return [one.name for one in model.layers if not isinstance(one, layers.InputLayer)]


def test_shared_layers_stay_shared():
    converted = kbptt.convert(functional())
    assert type(converted.get_layer("shared")) is kbptt.GRU
    assert len(converted.get_layer("shared")._inbound_nodes) == 2


def test_gradients_without_truncation_are_those_of_the_model():
    model = sequential()
    converted = kbptt.convert(model)
    found = []
    for one in (model, converted):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(one(X) ** 2)
        found.append(tape.gradient(loss, one.trainable_weights))
    for a, b in zip(*found, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


def test_options_and_frozen_layers_are_kept():
    model = sequential()
    model.layers[1].trainable = False
    converted = kbptt.convert(model, 3)
    assert converted.layers[0].dropout == 0.1
    assert not converted.layers[1].reset_after
    assert [one.trainable for one in converted.layers] == [True, False, True, True]
    assert len(converted.trainable_weights) == len(model.trainable_weights)


def test_frozen_layers_inside_wrappers_and_models_are_kept():
    model = functional()
    model.get_layer("both").forward_layer.trainable = False
    converted = kbptt.convert(model, 3)
    assert not converted.get_layer("both").forward_layer.trainable
    assert converted.get_layer("both").backward_layer.trainable
    model = nested()
    model.get_layer("in").layers[0].trainable = False
    assert not kbptt.convert(model, 3).get_layer("in").layers[0].trainable


def test_layers_of_ours_get_the_new_truncation():
    model = keras.Sequential(
        [keras.Input((T, 3)), kbptt.GRU(4, truncation=2, gradient_clip=0.5, name="ours")]
    )
    converted = kbptt.convert(model, "artbp").layers[0]
    assert converted.truncation == kbptt.truncation.get("artbp")
    assert converted.gradient_clip == 0.5
    assert kbptt.convert(model).layers[0].truncation == kbptt.truncation.Full()
    assert model.layers[0].truncation == Windowed(2)


def test_a_converted_model_trains_and_is_saved(tmp_path):
    converted = kbptt.convert(sequential(), 3)
    converted.compile("sgd", "mse", run_eagerly=True)
    converted.train_on_batch(X, np.zeros((2, 2)))
    converted.save(tmp_path / "m.keras")
    again = keras.models.load_model(tmp_path / "m.keras")
    assert again.layers[0].truncation == Windowed(3)
    np.testing.assert_allclose(again(X), converted(X), rtol=1e-5, atol=1e-6)


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.rnn = layers.GRU(3)

    def call(self, x):
        return self.rnn(x)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (Subclassed(), r"Sequential or functional model.*Received: Subclassed.*kbptt\.LSTM"),
        (layers.GRU(3), r"Sequential or functional model.*Received: GRU"),
        ("model", r"Sequential or functional model.*Received: str"),
        (keras.Sequential([layers.GRU(3)]), r"expected a built model.*keras\.Input"),
        (
            keras.Sequential([keras.Input((3,)), layers.Dense(2, name="head")]),
            r"found no SimpleRNN, GRU, LSTM or RNN layer.*\['head'\]",
        ),
    ],
)
def test_models_that_cannot_be_converted(model, message):
    with pytest.raises(ValueError, match=message):
        kbptt.convert(model, 3)


def test_a_bad_truncation_is_refused_before_anything_is_copied():
    with pytest.raises(ValueError, match="`truncation`"):
        kbptt.convert(sequential(), 0)


def test_subclasses_that_are_not_converted_are_named():
    class OwnLSTM(keras.layers.LSTM):
        pass

    inputs = keras.Input((6, 3))
    x = OwnLSTM(2, return_sequences=True, name="own")(inputs)
    model = keras.Model(inputs, keras.layers.GRU(2)(x))
    with pytest.warns(UserWarning, match="did not convert 'own': OwnLSTM subclasses"):
        converted = kbptt.convert(model, 3)
    assert type(converted.get_layer("own")) is OwnLSTM


@keras.saving.register_keras_serializable(package="tests")
class Block(layers.Layer):
    """A layer of a user, with a recurrent layer inside."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.rnn = kbptt.GRU(2, truncation=2)

    def build(self, shape):
        self.rnn.build(shape)

    def call(self, x):
        return self.rnn(x)


def test_kbptt_layers_inside_layers_of_a_user_get_the_new_truncation():
    model = keras.Sequential([keras.Input((T, 3)), Block(name="block")])
    converted = kbptt.convert(model, 3)
    assert converted.layers[0].rnn.truncation == Windowed(3)
    assert model.layers[0].rnn.truncation == Windowed(2)
    np.testing.assert_array_equal(converted(X), model(X))
