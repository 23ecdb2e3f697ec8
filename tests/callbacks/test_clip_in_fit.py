"""The clipping callbacks against all that `fit` can do: what it leaves behind, and what breaks."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from known_gradients import feed, mean_output, one_kernel, weights_of

from kbptt.callbacks import (
    AutoClip,
    ClipByGlobalNorm,
    ClipByNorm,
    ClipByValue,
    GradientNormPenalty,
)
from kbptt.callbacks.gradient_transform import active


class Count(ClipByGlobalNorm):
    """Counts how often it is traced."""

    traces = 0

    def transform(self, *arguments):
        self.traces += 1
        return super().transform(*arguments)


class Fail(keras.callbacks.Callback):
    """Raises on the way through `fit`."""

    def __init__(self, method, error=KeyboardInterrupt):
        super().__init__()
        setattr(self, method, self.fail)
        self.error = error

    def fail(self, *arguments, **keywords):
        raise self.error("stop")


def assert_untouched(model):
    """A fit without callbacks clips nothing, and everything is the user's own again."""
    before = weights_of(model)
    feed(model, [[30.0, 40.0]])
    np.testing.assert_allclose(before - weights_of(model), [30.0, 40.0], rtol=1e-5)
    assert active(model) == []
    assert type(model.optimizer) is keras.optimizers.SGD
    assert "make_train_function" not in vars(model)


def test_optimizer_and_model_are_left_as_they_were():
    model = one_kernel()
    feed(model, [[1.0, 1.0]])
    attributes, function = set(vars(model.optimizer)), model.train_function
    optimizer = model.optimizer
    feed(model, [[3.0, 4.0]], [ClipByGlobalNorm(1.0)])
    assert model.optimizer is optimizer
    assert set(vars(model.optimizer)) == attributes
    assert model.train_function is function
    assert_untouched(model)


@pytest.mark.parametrize(
    "method", ["on_train_begin", "on_epoch_begin", "on_train_batch_begin", "on_train_batch_end"]
)
@pytest.mark.parametrize("order", [1, -1])
def test_interrupted_fit_leaves_nothing(method, order):
    model, clip = one_kernel(), ClipByGlobalNorm(1.0)
    with pytest.raises(KeyboardInterrupt):
        feed(model, [[3.0, 4.0]], [clip, Fail(method)][::order])
    assert_untouched(model)
    before = weights_of(model)
    feed(model, [[3.0, 4.0]], [clip])
    np.testing.assert_allclose(before - weights_of(model), [0.6, 0.8], atol=1e-5)


def test_interrupted_fit_then_fit_with_another_clip():
    model = one_kernel()
    with pytest.raises(KeyboardInterrupt):
        feed(model, [[3.0, 4.0]], [ClipByValue(0.1), Fail("on_train_batch_begin")])
    other = ClipByGlobalNorm(1.0)
    feed(model, [[3.0, 4.0]], [other])
    np.testing.assert_allclose(weights_of(model), [-0.6, -0.8], rtol=1e-5)
    assert_untouched(model)


def test_error_inside_the_step_leaves_nothing():
    causes = [ArithmeticError("in the loss")]

    def broken(y_true, y_pred):
        if causes:
            raise causes.pop()
        return y_pred

    model = one_kernel(run_eagerly=True)
    model.compile(keras.optimizers.SGD(1.0), broken)
    with pytest.raises(ArithmeticError):
        feed(model, [[3.0, 4.0]], [ClipByGlobalNorm(1.0)])
    assert_untouched(model)


def test_train_on_batch_and_custom_loop_after_an_interrupted_fit():
    model = one_kernel()
    with pytest.raises(KeyboardInterrupt):
        feed(model, [[3.0, 4.0]], [ClipByGlobalNorm(1.0), Fail("on_train_batch_end")])
    before = weights_of(model)
    model.train_on_batch(np.array([[30.0, 40.0]]), np.zeros((1, 1)))
    np.testing.assert_allclose(before - weights_of(model), [30, 40], rtol=1e-5)
    before = weights_of(model)
    model.optimizer.apply_gradients([(tf.constant([[3.0], [4.0]]), model.layers[0].kernel)])
    np.testing.assert_allclose(before - weights_of(model), [3, 4], rtol=1e-4)


def test_two_fits_trace_once_and_go_on():
    model, clip, auto = one_kernel(), Count(1.0), AutoClip(50)
    feed(model, [[3.0, 4.0]], [clip, auto], epochs=3)
    traces = clip.traces
    feed(model, [[6.0, 8.0]], [clip, auto])
    assert clip.traces == traces
    assert clip.statistics()["norm_before"] == pytest.approx(10)
    assert int(auto.state["count"]) == 4  # the history goes on
    assert int(clip.step_count) == 1  # the counts are of the fit
    assert_untouched(model)


@pytest.mark.parametrize("method", ["on_train_begin", "on_epoch_end"])
def test_compiled_again_inside_fit_is_refused(method):
    def again(*_):
        model.compile(keras.optimizers.SGD(1.0), mean_output)

    model = one_kernel()
    callbacks = [ClipByGlobalNorm(1.0), keras.callbacks.LambdaCallback(**{method: again})]
    with pytest.raises(ValueError, match="recompiled"):
        feed(model, [[3.0, 4.0]], callbacks, epochs=2)
    assert_untouched(model)


def test_compiled_again_it_starts_over():
    model, auto = one_kernel(), AutoClip()
    feed(model, [[3.0, 4.0]], [auto])
    model.compile(keras.optimizers.SGD(1.0), mean_output)
    feed(model, [[6.0, 8.0]], [auto])
    assert int(auto.state["count"]) == 1
    assert auto.statistics()["threshold"] == pytest.approx(10)


def test_same_callback_on_two_models():
    first, second, auto = one_kernel(), one_kernel(), AutoClip()
    feed(first, [[3.0, 4.0]], [auto])
    feed(second, [[6.0, 8.0]], [auto])
    assert auto.statistics()["threshold"] == pytest.approx(10)
    feed(first, [[3.0, 4.0]], [auto])
    assert auto.statistics()["threshold"] == pytest.approx(5)
    assert int(auto.state["count"]) == 2
    assert_untouched(first)
    assert_untouched(second)


def test_same_object_twice_in_one_list():
    clip = ClipByGlobalNorm(1.0)
    with pytest.raises(ValueError, match="in the list of callbacks twice"):
        feed(one_kernel(), [[3.0, 4.0]], [clip, clip])


def test_validation_between_the_steps():
    model = one_kernel()
    data = (np.ones((2, 2)), np.zeros((2, 1)))
    feed(model, [[3.0, 4.0]], [ClipByGlobalNorm(1.0)], validation_data=data, epochs=2)
    np.testing.assert_allclose(weights_of(model), [-1.2, -1.6], rtol=1e-5)


@pytest.mark.parametrize("method", ["on_epoch_begin", "on_train_batch_begin"])
def test_another_callback_has_the_train_function_rebuilt(method):
    class Rebuild(keras.callbacks.Callback):
        pass

    rebuild = Rebuild()
    setattr(rebuild, method, lambda *a, **k: rebuild.model.make_train_function(force=True))
    model = one_kernel()
    feed(model, [[0.0, 0.0]])
    before = model.train_function
    feed(model, [[3.0, 4.0]] * 2, [rebuild, ClipByGlobalNorm(1.0)], epochs=2)
    np.testing.assert_allclose(weights_of(model), [-2.4, -3.2], rtol=1e-5)
    assert model.train_function is not before  # it may be out of date
    assert_untouched(model)


@pytest.mark.parametrize("order", [1, -1])
def test_clips_the_gradient_with_its_penalty(order):
    def fit(callbacks):
        model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
        model.compile(keras.optimizers.SGD(1.0), "mse", run_eagerly=True)
        model.layers[0].kernel.assign([[1.0], [2.0]])
        before = weights_of(model)
        feed(model, [[3.0, 4.0]], callbacks)
        return before - weights_of(model)

    penalized = fit([GradientNormPenalty(0.1)])
    clip = ClipByGlobalNorm(1.0, variables="kernel")
    step = fit([GradientNormPenalty(0.1), clip][::order])
    np.testing.assert_allclose(step, penalized / np.linalg.norm(penalized), rtol=1e-4)
    assert clip.statistics()["norm_before"] == pytest.approx(np.linalg.norm(penalized), rel=1e-4)


def test_custom_train_step():
    class Model(keras.Model):
        def train_step(self, data):
            x, _ = data
            with tf.GradientTape() as tape:
                loss = tf.reduce_mean(self(x, training=True))
            weights = self.trainable_variables
            self.optimizer.apply(tape.gradient(loss, weights), weights)
            return {"loss": loss}

    inputs = keras.Input((2,))
    layer = keras.layers.Dense(1, use_bias=False, kernel_initializer="zeros")
    model = Model(inputs, layer(inputs))
    model.compile(keras.optimizers.SGD(1.0))
    feed(model, [[3.0, 4.0]], [ClipByGlobalNorm(1.0)])
    np.testing.assert_allclose(weights_of(model), [-0.6, -0.8], rtol=1e-5)


def test_train_step_past_the_optimizer():
    class Model(keras.Model):
        def train_step(self, data):
            return {"loss": tf.reduce_mean(self(data[0]))}

    inputs = keras.Input((2,))
    model = Model(inputs, keras.layers.Dense(1)(inputs))
    model.compile(keras.optimizers.SGD(1.0))
    with pytest.raises(ValueError, match="ClipByNorm saw no gradient"):
        feed(model, [[3.0, 4.0]], [ClipByNorm(1.0)])


def test_last_batch_smaller():
    model, clip = one_kernel(), Count(1.0)
    feed(model, np.ones((5, 2)), [clip], batch_size=2, epochs=2)
    assert int(clip.step_count) == 6
    assert clip.traces <= 2  # Keras traces itself once more for the smaller batch


def test_saved_and_loaded_in_the_middle_of_fit(tmp_path):
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile("adam", "mse")
    path = tmp_path / "model.keras"
    save = keras.callbacks.ModelCheckpoint(path)
    feed(model, [[3.0, 4.0]], [ClipByGlobalNorm(1.0), save])
    loaded = keras.models.load_model(path)
    for a, b in zip(loaded.optimizer.variables, model.optimizer.variables, strict=True):
        np.testing.assert_array_equal(a, b)
