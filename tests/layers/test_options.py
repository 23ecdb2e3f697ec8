"""Options of the gradient that are set after a model has been compiled and trained."""

import contextlib

import keras
import numpy as np
import pytest
import tensorflow as tf
from recurrent import running_eagerly

import kbptt
from kbptt.engine import native
from kbptt.truncation import Randomized, Windowed

T = 12


def build(cell="GRU", options=(), jit=False):
    """A model that does not learn, so that its gradient stays comparable."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((T, 2))
    rnn = getattr(kbptt, cell)(4, truncation=5, **dict(options))
    model = keras.Sequential([inputs, rnn, keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(0.0), "mse", jit_compile=jit)
    return model, rnn


rng = np.random.default_rng(0)
X, Y = rng.normal(size=(6, T, 2)).astype("float32"), rng.normal(size=(6, 1)).astype("float32")


def reached(layer):
    """From how many timesteps before the end a gradient arrives."""
    return int(np.count_nonzero(layer.gradient_norms))


def fit(model):
    model.fit(X, Y, batch_size=6, verbose=0)


def train_on_batch(model):
    model.train_on_batch(X, Y)


def loop(model):
    with tf.GradientTape() as tape:
        loss = model.compute_loss(X, Y, model(X, training=True))
    tape.gradient(loss, [v.value for v in model.trainable_variables])


@pytest.mark.parametrize(
    ("train", "loops"),
    [(fit, "native"), (train_on_batch, "native"), (loop, "native"), (train_on_batch, "tensorflow")],
)
def test_a_truncation_set_between_two_trainings(train, loops):
    with running_eagerly(loops):
        tf.config.run_functions_eagerly(False)
        model, rnn = build()
        for truncation, expected in [(5, 5), (7, 7), (Windowed(3, 1), 3), (None, T), (2, 2)]:
            rnn.truncation = truncation
            train(model)
            assert reached(rnn) == expected
        rnn.truncation = Randomized(1e-6, seed=0)
        train(model)
        assert reached(rnn) == 1


@pytest.mark.slow
def test_under_xla():
    model, rnn = build(jit=True)
    for truncation in (5, 7):
        rnn.truncation = truncation
        fit(model)
        assert reached(rnn) == truncation


def test_nested_models_and_layers_inside_wrappers():
    keras.utils.set_random_seed(0)
    inner = kbptt.LSTM(3, truncation=5)
    block = keras.Sequential([keras.Input((T, 2)), keras.layers.Bidirectional(inner)])
    inputs = keras.Input((T, 2))
    model = keras.Model(inputs, keras.layers.Dense(1)(block(inputs)))
    model.compile("sgd", "mse")
    fit(model)
    rnn = block.layers[-1].forward_layer
    assert reached(rnn) == 5
    rnn.truncation = 7
    fit(model)
    assert reached(rnn) == 7


def test_a_clip_set_between_two_trainings():
    model, rnn = build()
    fit(model)
    before = rnn.gradient_norms
    rnn.gradient_clip = 1e-3
    fit(model)
    # Norms are those before the clip: the last one stays.
    np.testing.assert_allclose(rnn.gradient_norms[-1], before[-1])
    assert 0 < rnn.gradient_norms[-2] < before[-2] / 2
    for wrong in (0, -1, "a", float("nan"), True):
        with pytest.raises(ValueError, match="Invalid value for argument `gradient_clip`"):
            rnn.gradient_clip = wrong
    assert rnn.gradient_clip == 1e-3


def test_a_regularizer_set_between_two_trainings():
    model, rnn = build("SimpleRNN")
    fit(model)
    assert rnn.gradient_penalty is None
    rnn.gradient_regularizer = "vanishing_gradient"
    fit(model)
    first = rnn.gradient_penalty
    assert first > 0
    rnn.gradient_regularizer = kbptt.regularizers.VanishingGradient(
        2 * rnn.gradient_regularizer.weight
    )
    fit(model)
    np.testing.assert_allclose(rnn.gradient_penalty, 2 * first, rtol=1e-5)
    rnn.gradient_regularizer = None
    rnn.gradient_clip = 1.0
    fit(model)
    assert rnn.get_config()["gradient_regularizer"] is None


def test_recording_switched_off_and_on():
    model, rnn = build()
    fit(model)
    rnn.record_gradient_norms = False
    rnn.truncation = 7
    fit(model)
    assert reached(rnn) == 5
    rnn.record_gradient_norms = True
    fit(model)
    assert reached(rnn) == 7


def test_a_normalization_has_weights_and_is_fixed():
    _, rnn = build()
    with pytest.raises(AttributeError):
        rnn.normalization = "layer"


@pytest.mark.parametrize("loops", ["native", "tensorflow"])
def test_a_function_of_the_users_own(loops):
    """The C loops read the windows when they run; what has been traced otherwise refuses."""
    model, rnn = build()

    @tf.function(autograph=False)
    def step():
        loop(model)

    with native.disabled() if loops == "tensorflow" else running_natively():
        step()
        assert reached(rnn) == 5
        rnn.truncation = 7
        if loops == "native":
            step()
            assert reached(rnn) == 7
            rnn.truncation = Randomized(0.5)
        with pytest.raises(
            tf.errors.InvalidArgumentError, match=r"(?s)options of layer .*gru.*make a new"
        ):
            step()


def running_natively():
    if native.library() is None:
        pytest.skip("no compiled loops")
    return contextlib.nullcontext()


def test_nothing_is_compiled_again_where_nothing_changes():
    model, rnn = build()
    fit(model)
    function = model.train_function
    rnn.truncation = 5
    rnn.record_gradient_norms = True
    assert model.train_function is function
    rnn.truncation = 6
    assert model.train_function is not function


class OwnStep(keras.Model):
    """Whose `train_step` calls a layer, not the model."""

    def __init__(self):
        super().__init__()
        self.rnn = kbptt.GRU(3, reset_after=False, truncation=5)

    def train_step(self, batch):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(self.rnn(batch[0]) ** 2)
        tape.gradient(loss, [v.value for v in self.rnn.trainable_variables])
        return {"loss": loss}


class OwnStepOfAnInnerModel(keras.Model):
    """As a GAN's, whose inner models are not compiled."""

    def __init__(self):
        super().__init__()
        self.rnn = kbptt.RNN(keras.layers.SimpleRNNCell(3), truncation=5)
        self.inner = keras.Sequential([keras.Input((T, 2)), self.rnn])

    def train_step(self, batch):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(self.inner(batch[0]) ** 2)
        tape.gradient(loss, [v.value for v in self.rnn.trainable_variables])
        return {"loss": loss}


@pytest.mark.parametrize("kind", [OwnStep, OwnStepOfAnInnerModel])
def test_a_train_step_of_the_users_own(kind):
    model = kind()
    model.compile("sgd")
    fit(model)
    assert reached(model.rnn) == 5
    model.rnn.truncation = 2
    fit(model)
    assert reached(model.rnn) == 2


def test_an_object_that_a_layer_has_taken_cannot_be_changed():
    """The change would be ignored."""
    layer = kbptt.GRU(
        3,
        truncation=Windowed(5),
        normalization="layer",
        gradient_regularizer="vanishing_gradient",
    )
    for option, name in [
        (layer.truncation, "length"),
        (layer.normalization, "epsilon"),
        (layer.gradient_regularizer, "weight"),
    ]:
        before = option.get_config()
        with pytest.raises(AttributeError, match=f"belongs to a layer.*{name}=3"):
            setattr(option, name, 3)
        assert option.get_config() == before
    free = Windowed(5)
    free.length = free.stride = 4
    assert kbptt.GRU(3, truncation=free).truncation == Windowed(4)


@pytest.mark.parametrize("trained", [False, True])
def test_zoneout_set_later_is_that_of_evaluation_and_prediction(trained):
    """Unlike the other options it changes what the layer returns."""
    model, rnn = build(options={"return_state": False}.items())
    if trained:
        fit(model)
    for rate in (0.5, 0.9, 0.0):
        model.predict(X, verbose=0), model.evaluate(X, Y, verbose=0)  # traced with the rate before
        rnn.zoneout = rate
        expected = model(X, training=False)
        np.testing.assert_allclose(model.predict(X, verbose=0), expected, rtol=1e-5, atol=1e-6)
        loss = model.evaluate(X, Y, verbose=0)
        assert loss == pytest.approx(np.mean((expected - Y) ** 2), rel=1e-5)


def test_options_for_a_while():
    """Each option that `temporarily` takes acts in its scope; another is refused, not ignored."""
    layer = kbptt.LSTM(3, zoneout=0.5, h_detach=0.5, seed=1)
    x = np.ones((2, 5, 2), "float32")
    layer(x)
    with layer.temporarily(zoneout=(0.0, 0.25), h_detach=0.0, gradient_clip=2):
        assert (layer.zoneout, layer.h_detach, layer.gradient_clip) == ((0.0, 0.25), 0.0, 2.0)
        held = layer(x, training=True)
    assert (layer.zoneout, layer.h_detach, layer.gradient_clip) == (0.5, 0.5, None)
    other = kbptt.LSTM(3, zoneout=(0.0, 0.25), seed=1)
    other.build(x.shape)
    other.set_weights(layer.get_weights())
    np.testing.assert_allclose(held, other(x, training=True), atol=1e-6)
    for name, value in (
        ("dropout", 0.5),
        ("zone_out", 0.5),
        ("normalization", "layer"),
        ("carry", 1),
    ):
        with pytest.raises(TypeError, match=name), layer.temporarily(**{name: value}):
            pass
    for name, value in (("truncation", -1), ("record_gradient_norms", "no"), ("h_detach", 2)):
        with pytest.raises(ValueError, match=name), layer.temporarily(**{name: value}):
            pass


@pytest.mark.parametrize("option", [{"h_detach": 0.5}, {"truncation": Randomized(0.5, seed=3)}])
def test_scopes_go_on_with_what_they_draw(option):
    layer = kbptt.LSTM(3, seed=1)
    x = tf.constant(rng.normal(size=(2, 9, 2)), tf.float32)
    layer(x)
    gradients = []
    for _ in range(6):
        with layer.temporarily(**option), tf.GradientTape() as tape:
            loss = tf.reduce_sum(layer(x))
        gradients.append(tape.gradient(loss, layer.trainable_variables[1].value))
    assert len({g.numpy().tobytes() for g in gradients}) > 1
