"""`Clipped` with every option of the optimizer inside, and its state in files.

The gradient of `one_kernel` is its input, so the rows of the data are the gradients, step by step.
"""

import keras
import numpy as np
import pytest

from kbptt import callbacks, optimizers
from kbptt.optimizers import AutoClip, ClipByGlobalNorm, ClipByNorm, Clipped, GradientNorm

RANDOM = np.random.default_rng(0).normal(size=(12, 2)) * np.r_[1:13][:, None]


def mean_output(y_true, y_pred):
    return y_pred


def one_kernel(optimizer, **compile_arguments):
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, use_bias=False, name="d")])
    # Eager steps, because tracing would take most of the time; graphs have tests of their own.
    model.compile(optimizer, mean_output, **{"run_eagerly": True, **compile_arguments})
    model.layers[0].kernel.assign([[0.0], [0.0]])
    return model


def feed(model, gradients, given=(), **arguments):
    fit = {"batch_size": 1, "shuffle": False, "verbose": 0, **arguments}
    gradients = np.asarray(gradients, "float32")
    return model.fit(gradients, np.zeros((len(gradients), 1)), callbacks=list(given), **fit)


def weights_of(model):
    return model.get_weights()[0][:, 0]


def clipped(inner=None, *transforms):
    return Clipped(inner or keras.optimizers.SGD(1.0), transforms or [ClipByGlobalNorm(1.0)])


def remembering(kind=optimizers):
    """All that remember anything, so that every one acts in the first six steps of `RANDOM`."""
    clips = [kind.AutoClip(60, history=8), kind.ZClip(1.0, 0.5, warmup_steps=2)]
    clips += [kind.AdaGC(warmup_steps=2, warmup_threshold=0.5), kind.AdaClip(0.5)]
    return [kind.GradientNorm(), *clips, kind.GradientStabilizer()]


def assert_same_state(one, two):
    assert len(one.variables) == len(two.variables)
    for a, b in zip(one.variables, two.variables, strict=True):
        np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-6, err_msg=a.path)


@pytest.mark.parametrize("compile_arguments", [{"run_eagerly": False}, {"jit_compile": True}])
def test_trains_as_the_callbacks_do(compile_arguments):
    optimizer = Clipped(keras.optimizers.Adam(0.1), remembering())
    model = one_kernel(optimizer, **{"run_eagerly": False, **compile_arguments})
    feed(model, RANDOM)
    given = remembering(callbacks)
    twin = one_kernel(keras.optimizers.Adam(0.1))
    feed(twin, RANDOM, given)
    np.testing.assert_allclose(weights_of(model), weights_of(twin), rtol=1e-5)
    for transform, callback in zip(optimizer.transforms, given, strict=True):
        assert transform.statistics() == pytest.approx(callback.statistics(), rel=1e-5)


def with_keras_clipping(make, **arguments):
    return make(global_clipnorm=0.5, **arguments), Clipped(make(**arguments), ClipByGlobalNorm(0.5))


@pytest.mark.parametrize(
    "arguments",
    [
        {"weight_decay": 0.1},
        {"use_ema": True, "ema_momentum": 0.5},
        {"use_ema": True, "ema_momentum": 0.5, "ema_overwrite_frequency": 2},
        {"gradient_accumulation_steps": 3},
        {"gradient_accumulation_steps": 2, "use_ema": True, "ema_overwrite_frequency": 2},
        {"learning_rate": keras.optimizers.schedules.ExponentialDecay(0.1, 2, 0.5)},
    ],
    ids=["weight decay", "ema", "ema overwrites", "accumulation", "accumulation, ema", "schedule"],
)
def test_equals_the_clipping_of_keras_with_every_option(arguments):
    pair = with_keras_clipping(keras.optimizers.AdamW, **{"learning_rate": 0.1, **arguments})
    theirs, ours = (one_kernel(optimizer) for optimizer in pair)
    for model in (theirs, ours):
        feed(model, RANDOM[:7], epochs=2)
    np.testing.assert_allclose(weights_of(ours), weights_of(theirs), rtol=1e-5)
    assert int(ours.optimizer.iterations) == int(theirs.optimizer.iterations)


def scaled(inner):
    return keras.optimizers.LossScaleOptimizer(inner, initial_scale=1024.0)


@pytest.mark.parametrize(
    "optimizer",
    [
        lambda: scaled(clipped()),
        lambda: clipped(scaled(keras.optimizers.SGD(1.0))),
        lambda: clipped(keras.optimizers.SGD(1.0, loss_scale_factor=8.0)),
        lambda: clipped(clipped(scaled(keras.optimizers.SGD(1.0))), GradientNorm()),
        lambda: clipped(scaled(clipped()), GradientNorm()),
    ],
    ids=["outside", "inside", "static", "twice, inside", "twice, between"],
)
def test_loss_scaling_is_not_a_part_of_the_gradient(optimizer):
    model = one_kernel(optimizer(), run_eagerly=False)
    feed(model, [[3.0, 4.0], [np.nan, 0.0], [0.3, 0.4]])
    np.testing.assert_allclose(weights_of(model), [-0.9, -1.2], rtol=1e-5)
    assert int(model.optimizer.iterations) == 2


@pytest.mark.parametrize("run_eagerly", [False, True])
def test_a_step_that_is_not_finite_is_skipped_and_counted(run_eagerly):
    optimizer = clipped(keras.optimizers.Adam(0.1, use_ema=True), AutoClip(50), ClipByNorm(1.0))
    model = one_kernel(optimizer, run_eagerly=run_eagerly)
    feed(model, [[3.0, 4.0]])
    before = [v.numpy() for v in optimizer.inner.variables]
    feed(model, [[np.inf, 4.0]])
    for a, b in zip(optimizer.inner.variables, before, strict=True):
        np.testing.assert_array_equal(a.numpy(), b)
    counts = [(int(t.step_count), int(t.skipped_count)) for t in optimizer.transforms]
    assert counts == [(1, 1), (1, 1)]
    assert int(optimizer.transforms[0].state["count"]) == 1


def test_a_sparse_gradient_is_clipped_as_the_dense_one():
    model = keras.Sequential([keras.Input((5,), dtype="int32")])
    model.add(keras.layers.Embedding(6, 2, embeddings_initializer="ones"))
    model.add(keras.layers.Lambda(lambda x: keras.ops.sum(x, axis=(1, 2), keepdims=True)))
    model.compile(clipped(), mean_output)
    model.fit(np.array([[4, 1, 4, 4, 0]]), np.zeros((1, 1)), verbose=0)
    dense = np.array([1, 1, 0, 0, 3, 0.0])[:, None] * np.ones(2)
    expected = 1 - dense / np.linalg.norm(dense)
    np.testing.assert_allclose(model.get_weights()[0], expected, rtol=1e-5, atol=1e-6)


def test_a_multi_optimizer():
    inner = keras.optimizers.MultiOptimizer(
        keras.optimizers.OptimizerMap(keras.optimizers.SGD(0.5))
    )
    model = one_kernel(clipped(inner))
    feed(model, [[3.0, 4.0]])
    np.testing.assert_allclose(weights_of(model), [-0.3, -0.4], rtol=1e-5)
    assert not hasattr(model.optimizer, "learning_rate")


def test_a_variable_that_is_overwritten_with_its_gradient():
    optimizer = clipped()
    weight, scale = keras.Variable([0.0, 0.0]), keras.Variable([1.0])
    scale.overwrite_with_gradient = True
    optimizer.apply([np.array([3.0, 4.0], "float32"), np.array([7.0], "float32")], [weight, scale])
    np.testing.assert_allclose(weight, [-0.6, -0.8], rtol=1e-5)
    np.testing.assert_allclose(scale, [7.0])


def test_options_are_those_of_the_inner_optimizer():
    inner = keras.optimizers.Adam(0.1, weight_decay=0.01, beta_1=0.8)
    optimizer = clipped(inner)
    model = one_kernel(optimizer)
    optimizer.learning_rate = 0.2
    optimizer.weight_decay = 0.02
    feed(model, [[3.0, 4.0]])
    assert float(inner.learning_rate) == pytest.approx(0.2)
    assert inner.weight_decay == 0.02
    assert optimizer.beta_1 == 0.8
    assert optimizer.iterations is inner.iterations
    set_rate = keras.callbacks.LearningRateScheduler(lambda epoch: 0.5)
    feed(model, [[3.0, 4.0]], [set_rate])
    assert float(inner.learning_rate) == pytest.approx(0.5)
    with pytest.raises(AttributeError, match="no_such_option"):
        _ = optimizer.no_such_option


def test_a_threshold_set_between_two_steps():
    clip = ClipByGlobalNorm(1.0)
    model = one_kernel(clipped(None, clip), run_eagerly=False)
    for threshold in (0.5, 0.25):
        clip.threshold = threshold
        before = weights_of(model)
        feed(model, [[3.0, 4.0]])
        assert np.linalg.norm(before - weights_of(model)) == pytest.approx(threshold, rel=1e-5)


def test_config_round_trip():
    schedule = keras.optimizers.schedules.ExponentialDecay(1.0, 10, 0.9)
    transforms = [ClipByNorm(schedule, variables="d/"), *remembering()]
    transforms += [optimizers.ClipByValue(1.0), optimizers.AdaptiveGradientClip(0.1)]
    optimizer = Clipped(scaled(keras.optimizers.Adam(0.1)), transforms)
    again = keras.optimizers.deserialize(keras.optimizers.serialize(optimizer))
    assert again.get_config() == optimizer.get_config()
    assert [type(t) for t in again.transforms] == [type(t) for t in transforms]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Clipped("adam", [1.0]), "`transforms`. Expected objects"),
        (lambda: clipped(keras.optimizers.SGD(clipnorm=1.0)), "clips too, after ClipByGlobalNorm"),
        (lambda: clipped(None, ClipByNorm(lambda step: 0.0)), r"threshold\(optimizer.iterations\)"),
        (lambda: feed(one_kernel(clipped(None, ClipByNorm(1, variables="x"))), [[1, 1]]), "No tr"),
    ],
)
def test_what_cannot_work_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


# Files.

KINDS = {
    "adam": lambda: Clipped(keras.optimizers.Adam(0.1), remembering()),
    "loss scale inside": lambda: Clipped(scaled(keras.optimizers.Adam(0.1)), remembering()),
    "loss scale outside": lambda: scaled(Clipped(keras.optimizers.Adam(0.1), remembering())),
    "accumulation": lambda: Clipped(
        keras.optimizers.Adam(0.1, gradient_accumulation_steps=2, use_ema=True), remembering()
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_resumed_from_a_file_equals_uninterrupted(kind, tmp_path):
    expected = one_kernel(KINDS[kind]())
    feed(expected, RANDOM[:6])
    expected.save(tmp_path / "model.keras")
    expected.save_weights(tmp_path / "model.weights.h5")
    loaded = keras.models.load_model(tmp_path / "model.keras", {"mean_output": mean_output})
    by_weights = one_kernel(KINDS[kind]())
    by_weights.optimizer.build(by_weights.trainable_variables)
    by_weights.load_weights(tmp_path / "model.weights.h5")
    feed(expected, RANDOM[6:])
    for model in (loaded, by_weights):
        feed(model, RANDOM[6:])
        np.testing.assert_allclose(weights_of(model), weights_of(expected), rtol=1e-6)
        assert_same_state(model.optimizer, expected.optimizer)


class Stop(keras.callbacks.Callback):
    def on_epoch_begin(self, epoch, logs=None):
        if epoch == 2:
            raise KeyboardInterrupt


@pytest.mark.parametrize("how", ["optimizer", "callbacks"])
def test_backup_and_restore_equals_uninterrupted(how, tmp_path):
    def make():
        if how == "optimizer":
            return one_kernel(KINDS["adam"]()), []
        return one_kernel(keras.optimizers.Adam(0.1)), remembering(callbacks)

    expected, clips = make()
    feed(expected, RANDOM, clips, epochs=4)
    stopped, again = make()
    backup = keras.callbacks.BackupAndRestore(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        feed(stopped, RANDOM, [*again, backup, Stop()], epochs=4)
    resumed, again = make()
    feed(resumed, RANDOM, [*again, backup], epochs=4)
    np.testing.assert_allclose(weights_of(resumed), weights_of(expected), rtol=1e-6)
    assert_same_state(resumed.optimizer, expected.optimizer)
    for a, b in zip(again, clips, strict=True):
        assert a.statistics() == pytest.approx(b.statistics(), rel=1e-6)


def test_put_around_an_optimizer_that_was_saved_without_it_and_taken_off(tmp_path):
    plain = one_kernel(keras.optimizers.Adam(0.1))
    feed(plain, RANDOM)
    plain.save_weights(tmp_path / "plain.weights.h5")
    around = one_kernel(KINDS["adam"]())
    around.optimizer.build(around.trainable_variables)
    around.load_weights(tmp_path / "plain.weights.h5")
    assert_same_state(around.optimizer.inner, plain.optimizer)
    feed(around, RANDOM)
    around.save_weights(tmp_path / "around.weights.h5")
    plain.load_weights(tmp_path / "around.weights.h5")
    assert_same_state(around.optimizer.inner, plain.optimizer)
