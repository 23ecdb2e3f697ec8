"""λ‖∂L/∂θ‖² in `fit`: against central differences, and in every way of running `fit`."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import kbptt
from kbptt.callbacks import ClipByGlobalNorm, GradientNormPenalty

RNG = np.random.default_rng(0)
X = RNG.normal(size=(8, 4, 2))
Y = RNG.normal(size=(8, 1))


@pytest.fixture
def float64():
    """Losses too are computed in `floatx`."""
    # Read first: Keras makes its global policy from `floatx` when first asked, and keeps it.
    policy = keras.config.dtype_policy()
    keras.config.set_floatx("float64")
    yield
    keras.config.set_floatx("float32")
    keras.config.set_dtype_policy(policy)


def recurrent(cell="SimpleRNN", dtype="float64", dropout=0.0, **compiled):
    keras.utils.set_random_seed(1)
    layer = getattr(keras.layers, cell)(2, dropout=dropout, dtype=dtype, seed=3)
    head = keras.layers.Dense(1, dtype=dtype, kernel_regularizer="l2")
    model = keras.Sequential([keras.Input((4, 2), dtype=dtype.removeprefix("mixed_")), layer, head])
    model.compile(**{"optimizer": keras.optimizers.SGD(1.0), "loss": "mse", **compiled})
    return model


def dense(**compiled):
    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3, "tanh")])
    model.add(keras.layers.Dense(1))
    model.compile(**{"optimizer": keras.optimizers.SGD(0.1), "loss": "mse", **compiled})
    return model


DENSE = (X[:, 0].astype("float32"), Y.astype("float32"))


def step(model, *callbacks, data=(X, Y), **arguments):
    """What one fit step subtracts from the weights: with SGD(1), the gradient it used."""
    before = model.get_weights()
    arguments = {"batch_size": 8, "shuffle": False, "verbose": 0, **arguments}
    model.fit(*data, callbacks=list(callbacks), **arguments)
    return [b - a for b, a in zip(before, model.get_weights(), strict=True)]


def loss_gradient(model, weights):
    model.set_weights(weights)
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean(tf.square(model(X, training=True) - Y)) + sum(model.losses)
    return [g.numpy() for g in tape.gradient(loss, model.trainable_variables)]


def penalty_by_central_differences(model, weight, squared, h=1e-5):
    """∇ of λ‖∇L‖² (or λ‖∇L‖), perturbing one weight at a time."""

    def penalty(weights):
        square = sum(np.sum(g**2) for g in loss_gradient(model, weights))
        return weight * (square if squared else np.sqrt(square))

    start = model.get_weights()
    result = [np.zeros_like(w) for w in start]
    for k, array in enumerate(start):
        for i in np.ndindex(array.shape):
            values = []
            for sign in (1, -1):
                weights = [w.copy() for w in start]
                weights[k][i] += sign * h
                values.append(penalty(weights))
            result[k][i] = (values[0] - values[1]) / (2 * h)
    model.set_weights(start)
    return result


@pytest.mark.parametrize(
    ("cell", "squared"), [("SimpleRNN", True), ("SimpleRNN", False), ("LSTM", True)]
)
def test_both_forms_equal_central_differences(float64, cell, squared):
    model = recurrent(cell)
    start = model.get_weights()
    plain = loss_gradient(model, start)
    expected = penalty_by_central_differences(model, 0.3, squared)
    for form, radius, rtol in [("exact", 1.0, 1e-6), ("finite_difference", 1e-7, 1e-4)]:
        model.set_weights(start)
        used = step(model, GradientNormPenalty(0.3, form, radius, squared))
        for u, p, e in zip(used, plain, expected, strict=True):
            np.testing.assert_allclose(u - p, e, rtol=rtol, atol=rtol * 1e-2, err_msg=form)


def test_the_finite_difference_is_its_formula(float64):
    """g + (λ/r)(∇L(θ + r·g/‖g‖) − g), with a radius large enough to tell it from the limit."""
    model, weight, radius = recurrent(), 0.3, 0.5
    start = model.get_weights()
    g = loss_gradient(model, start)
    norm = np.sqrt(sum(np.sum(a**2) for a in g))
    there = loss_gradient(model, [w + radius * a / norm for w, a in zip(start, g, strict=True)])
    model.set_weights(start)
    used = step(model, GradientNormPenalty(weight, radius=radius, squared=False))
    for u, a, b in zip(used, g, there, strict=True):
        np.testing.assert_allclose(u, a + weight / radius * (b - a), rtol=1e-9, atol=1e-12)


def test_both_evaluations_see_the_same_dropout_masks(float64):
    """With other masks the difference would be noise / r; so it equals the exact form."""
    exact = step(recurrent(dropout=0.5), GradientNormPenalty(0.1, "exact"))
    difference = step(recurrent(dropout=0.5), GradientNormPenalty(0.1, radius=1e-7))
    plain = step(recurrent(dropout=0.5))
    for e, d in zip(exact, difference, strict=True):
        np.testing.assert_allclose(d, e, rtol=1e-5, atol=1e-5)
    assert max(np.abs(e - p).max() for e, p in zip(exact, plain, strict=True)) > 1e-3


@pytest.mark.parametrize("option", [{"h_detach": 0.5}, {"truncation": "artbp"}])
def test_both_evaluations_see_the_same_draws_of_the_backward_pass(float64, option):
    """With others the difference would be noise / r, ten times as large for a tenth of r."""
    found = []
    for radius in (1e-4, 1e-5):
        keras.utils.set_random_seed(1)
        layer = kbptt.LSTM(2, seed=3, dtype="float64", **option)
        model = keras.Sequential([keras.Input((4, 2), dtype="float64"), layer])
        model.compile(keras.optimizers.SGD(1.0), "mse")
        found.append(step(model, GradientNormPenalty(0.1, radius=radius), data=(X, Y), epochs=3))
        count = layer.random_states()[0].numpy()
    for a, b in zip(*found, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-2, atol=1e-4)
    assert count[1] == 3  # one draw for each step, as without the penalty


@pytest.mark.parametrize("form", ["finite_difference", "exact"])
@pytest.mark.parametrize("how", [{"run_eagerly": True}, {"jit_compile": True}])
def test_eager_graph_and_xla_agree(form, how):
    expected = step(dense(), GradientNormPenalty(0.3, form), data=DENSE, epochs=3)
    actual = step(dense(**how), GradientNormPenalty(0.3, form), data=DENSE, epochs=3)
    for a, e in zip(actual, expected, strict=True):
        np.testing.assert_allclose(a, e, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("form", ["finite_difference", "exact"])
def test_mixed_precision_penalizes_the_true_gradient(form):
    """The loss scale (32768 at first) must not enter λ‖g‖², nor float16 lose it."""
    data = (X.astype("float32"), Y.astype("float32"))
    penalty = GradientNormPenalty(0.3, form, radius=0.1)
    full = step(recurrent(dtype="float32"), GradientNormPenalty(0.3, form, 0.1), data=data)
    mixed = step(recurrent(dtype="mixed_float16"), penalty, data=data)
    # Keras wraps the optimizer only for a global policy: do here what it does there.
    scaled_model = recurrent(
        dtype="mixed_float16",
        optimizer=keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(1.0), 1024),
    )
    scaled_penalty = GradientNormPenalty(0.3, form, radius=0.1)
    scaled = step(scaled_model, scaled_penalty, data=data)
    for f, m, s in zip(full, mixed, scaled, strict=True):
        np.testing.assert_allclose(m, f, rtol=0.1, atol=0.03)
        np.testing.assert_allclose(s, f, rtol=0.1, atol=0.03)
    for p in (penalty, scaled_penalty):
        assert p.statistics()["penalty"] == pytest.approx(
            0.3 * p.statistics()["gradient_norm"] ** 2, rel=1e-4
        )
    assert scaled_penalty.statistics()["gradient_norm"] == pytest.approx(
        penalty.statistics()["gradient_norm"], rel=1e-2
    )


def test_embeddings_masks_and_sample_weights():
    keras.utils.set_random_seed(1)
    tokens = keras.Input((4,), dtype="int32")
    h = keras.layers.Embedding(5, 3, mask_zero=True)(tokens)
    model = keras.Model(tokens, keras.layers.Dense(1)(keras.layers.GRU(3)(h)))
    model.compile(keras.optimizers.SGD(1.0), "mse")
    start = model.get_weights()
    data = (RNG.integers(0, 5, (8, 4)), Y, RNG.random(8))
    used = {}
    for form in ("exact", "finite_difference"):
        model.set_weights(start)
        used[form] = step(
            model, GradientNormPenalty(0.3, form, 0.01), data=data[:2], sample_weight=data[2]
        )
    for e, d in zip(*used.values(), strict=True):
        np.testing.assert_allclose(d, e, atol=5e-3)


class Subclass(keras.Model):
    """No `training` argument, a layer with state, a variable that gets no gradient."""

    def __init__(self):
        super().__init__()
        self.unused = keras.layers.Dense(2)
        self.unused.build((None, 2))
        self.norm = keras.layers.BatchNormalization(momentum=0.5)
        self.head = keras.layers.Dense(1)

    def call(self, x):
        return self.head(self.norm(x, training=True))


@pytest.mark.filterwarnings("ignore:Gradients do not exist for variables")
@pytest.mark.parametrize("form", ["finite_difference", "exact"])
def test_subclass_models_update_their_state_once(form):
    x, y = DENSE
    moving = []
    for callbacks in ([], [GradientNormPenalty(0.3, form)]):
        keras.utils.set_random_seed(1)
        model = Subclass()
        model.compile(keras.optimizers.SGD(0.1), "mse")
        unused = model.unused.get_weights()
        loss = model.fit(x, y, batch_size=8, verbose=0, callbacks=callbacks).history["loss"]
        moving.append((model.norm.moving_mean.numpy(), model.norm.moving_variance.numpy(), loss))
        for before, after in zip(unused, model.unused.get_weights(), strict=True):
            np.testing.assert_array_equal(before, after)
    for plain, penalized in zip(*moving, strict=True):
        np.testing.assert_allclose(penalized, plain, rtol=1e-6)


def test_a_model_with_its_own_train_step_is_refused():
    class Own(keras.Sequential):
        def train_step(self, data):
            return super().train_step(data)

    model = Own([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    with pytest.raises(ValueError, match="Received: Own, which overrides `train_step`"):
        model.fit(*DENSE, verbose=0, callbacks=[GradientNormPenalty()])
    assert not {"train_step", "make_train_function"} & set(vars(model))


def test_a_train_step_put_on_the_model_is_refused():
    model = dense()
    model.train_step = lambda data: {"loss": tf.reduce_sum(model(data[0]))}
    with pytest.raises(ValueError, match=r"Sequential, which overrides `train_step`"):
        model.fit(*DENSE, verbose=0, callbacks=[GradientNormPenalty()])


def test_fit_without_the_callback_is_plain_again():
    model, twin, penalty = dense(), dense(), GradientNormPenalty(0.3)
    start = model.get_weights()
    first = step(model, penalty, data=DENSE)
    assert not {"train_step", "make_train_function"} & set(vars(model))
    model.set_weights(start)
    expected = step(twin, data=DENSE)
    for a, e, f in zip(step(model, data=DENSE), expected, first, strict=True):
        np.testing.assert_array_equal(a, e)
        assert np.abs(f - e).max() > 1e-5
    model.set_weights(start)
    for a, f in zip(step(model, penalty, data=DENSE), first, strict=True):
        np.testing.assert_array_equal(a, f)


class Interrupt(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("run_eagerly", "clip"),
    [(True, "none"), (False, "none"), (False, "before"), (False, "after")],
)
def test_an_exception_in_fit_leaves_nothing_behind(run_eagerly, clip):
    def chain():
        callbacks = [GradientNormPenalty(0.3)]
        if clip != "none":
            callbacks.insert(0 if clip == "before" else 1, ClipByGlobalNorm(1e-3))
        return callbacks

    model = dense(run_eagerly=run_eagerly)
    start = model.get_weights()
    with pytest.raises(KeyboardInterrupt):
        model.fit(*DENSE, batch_size=8, verbose=0, callbacks=[*chain(), Interrupt()])
    model.set_weights(start)
    expected = step(dense(run_eagerly=run_eagerly), data=DENSE)
    for a, e in zip(step(model, data=DENSE), expected, strict=True):
        np.testing.assert_allclose(a, e, rtol=1e-6, atol=1e-7)
    model.set_weights(start)
    expected = step(dense(run_eagerly=run_eagerly), *chain(), data=DENSE)
    for a, e in zip(step(model, *chain(), data=DENSE), expected, strict=True):
        np.testing.assert_allclose(a, e, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("first", ["clip", "penalty"])
def test_clipping_sees_the_sum_in_either_order(first):
    summed = step(dense(), GradientNormPenalty(0.3), data=DENSE)
    clip, penalty = ClipByGlobalNorm(1e-2), GradientNormPenalty(0.3)
    callbacks = [clip, penalty] if first == "clip" else [penalty, clip]
    clipped = step(dense(), *callbacks, data=DENSE)
    norm = np.sqrt(sum(np.sum((a / 0.1) ** 2) for a in summed))  # the learning rate is 0.1
    assert clip.statistics()["norm_before"] == pytest.approx(norm, rel=1e-4)
    for c, a in zip(clipped, summed, strict=True):
        np.testing.assert_allclose(c, a * 1e-2 / norm, rtol=1e-3, atol=1e-7)


def test_two_models_and_a_new_weight_without_retracing():
    penalty = GradientNormPenalty(0.3)
    step(dense(), penalty, data=DENSE)
    model = dense()
    traces = []
    compute = model.compute_loss
    model.compute_loss = lambda *args, **kwargs: traces.append(1) or compute(*args, **kwargs)

    class Schedule(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            penalty.weight = 0.3 if epoch == 0 else 0.0

    used = step(model, Schedule(), penalty, data=DENSE, epochs=2)
    assert len(traces) <= 4  # symbolic build, and the two evaluations of one trace
    assert penalty.statistics()["penalty"] == 0.0
    expected_model = dense()
    first = step(expected_model, GradientNormPenalty(0.3), data=DENSE)
    second = step(expected_model, data=DENSE)
    for u, a, b in zip(used, first, second, strict=True):
        np.testing.assert_allclose(u, a + b, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("form", ["finite_difference", "exact"])
@pytest.mark.parametrize("squared", [True, False])
def test_at_a_zero_gradient_the_penalty_is_zero(form, squared):
    model = dense()
    model.set_weights([np.zeros_like(w) for w in model.get_weights()])
    data = (DENSE[0], np.zeros((8, 1), "float32"))
    for change in step(model, GradientNormPenalty(1.0, form, squared=squared), data=data):
        np.testing.assert_array_equal(change, 0.0)


def test_a_penalty_that_is_not_finite_is_left_out_and_counted():
    @keras.saving.register_keras_serializable(package="kbptt_tests")
    def cliff(x):  # finite at the weights, NaN one step along the gradient
        return tf.where(tf.reduce_max(tf.abs(x)) > 1e3, x * np.nan, x)

    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, activation=cliff)])
    model.compile(keras.optimizers.SGD(0.1), "mse")
    start = model.get_weights()
    expected = step(model, data=DENSE)
    model.set_weights(start)
    penalty = GradientNormPenalty(1.0, radius=1e6)
    for a, e in zip(step(model, penalty, data=DENSE), expected, strict=True):
        np.testing.assert_allclose(a, e, rtol=1e-6)
    assert penalty.statistics()["skipped"] == 1


def test_evaluate_predict_and_history():
    model, penalty = dense(), GradientNormPenalty(0.01)
    expected = model.evaluate(*DENSE, verbose=0), model.predict(DENSE[0], verbose=0)
    assert model.evaluate(*DENSE, verbose=0, callbacks=[penalty]) == expected[0]
    np.testing.assert_array_equal(
        model.predict(DENSE[0], verbose=0, callbacks=[penalty]), expected[1]
    )
    history = model.fit(
        *DENSE, validation_data=DENSE, epochs=30, batch_size=8, verbose=0, callbacks=[penalty]
    ).history
    assert history["gradient_penalty_norm"][-1] < history["gradient_penalty_norm"][0]
    assert history["gradient_norm_penalty"][0] == pytest.approx(
        0.01 * history["gradient_penalty_norm"][0] ** 2, rel=1e-4
    )


def test_two_penalties_in_one_fit_are_refused():
    with pytest.raises(ValueError, match="Two GradientNormPenalty"):
        dense().fit(*DENSE, verbose=0, callbacks=[GradientNormPenalty(), GradientNormPenalty(0.1)])


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ({"weight": -1}, "weight"),
        ({"weight": float("nan")}, "weight"),
        ({"weight": "0.1"}, "weight"),
        ({"form": "newton"}, "form"),
        ({"radius": 0}, "radius"),
        ({"squared": 1}, "squared"),
    ],
)
def test_invalid_arguments_name_the_argument(arguments, name):
    with pytest.raises(ValueError, match=f"`{name}`"):
        GradientNormPenalty(**arguments)


def test_config_round_trip():
    penalty = GradientNormPenalty(0.3, "exact", 0.5, False)
    again = GradientNormPenalty.from_config(penalty.get_config())
    assert again.get_config() == penalty.get_config()
