"""The clipping callbacks with all kinds of optimizers and gradients."""

import logging

import keras
import numpy as np
import pytest
import tensorflow as tf
from known_gradients import feed, mean_output, one_kernel, weights_of

from kbptt.callbacks import AutoClip, ClipByGlobalNorm, ClipByNorm, ClipByValue, GradientNorm

NAN = float("nan")


def test_unbuilt_model_and_optimizer():
    model = keras.Sequential([keras.layers.Dense(1, use_bias=False, kernel_initializer="zeros")])
    model.compile(keras.optimizers.SGD(1.0), mean_output)
    feed(model, [[3.0, 4.0]], [ClipByGlobalNorm(1.0)])
    np.testing.assert_allclose(weights_of(model), [-0.6, -0.8], rtol=1e-5)


@pytest.mark.parametrize("argument", ["clipnorm", "global_clipnorm", "clipvalue"])
def test_an_optimizer_that_clips_by_itself(argument):
    model = one_kernel(keras.optimizers.SGD(1.0, **{argument: 1.0}))
    with pytest.raises(ValueError, match=f"clips too, after ClipByNorm: {argument}=1.0"):
        feed(model, [[3.0, 4.0]], [ClipByNorm(1.0)])
    norm = GradientNorm()
    feed(model, [[3.0, 4.0]], [norm])
    assert norm.statistics()["norm_before"] == 5


@pytest.mark.parametrize(
    "name", "Adadelta Adafactor Adagrad Adam AdamW Adamax Ftrl Lamb Lion Muon Nadam RMSprop".split()
)
def test_any_optimizer_takes_the_same_step_below_the_bound(name):
    def fit(callbacks):
        model = one_kernel(getattr(keras.optimizers, name)(0.1), run_eagerly=True)
        feed(model, [[3.0, -4.0], [1.0, 0.0]], callbacks)
        return weights_of(model)

    loose = [ClipByGlobalNorm(1e6), ClipByNorm(1e6), ClipByValue(1e6)]
    np.testing.assert_array_equal(fit(loose), fit([]))


def test_static_loss_scale():
    clip = ClipByGlobalNorm(1.0)
    model = one_kernel(keras.optimizers.SGD(1.0, loss_scale_factor=1000.0))
    feed(model, [[3.0, 4.0]], [clip])
    assert clip.statistics()["norm_before"] == pytest.approx(5)
    np.testing.assert_allclose(weights_of(model), [-0.6, -0.8], rtol=1e-5)


@pytest.mark.parametrize("run_eagerly", [False, True])
def test_mixed_precision_clips_the_true_gradient(run_eagerly):
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = one_kernel(run_eagerly=run_eagerly)
    finally:
        keras.config.set_dtype_policy("float32")
    assert isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)
    model.optimizer.initial_scale = 1024.0
    clip = ClipByGlobalNorm(1.0)
    # 1000 times the scale is more than float16 can hold: Keras skips that step.
    feed(model, [[3.0, 4.0], [1000.0, 0.0], [0.3, 0.4]], [clip])
    np.testing.assert_allclose(weights_of(model), [-0.9, -1.2], rtol=1e-3)
    assert clip.statistics()["norm_before"] == pytest.approx(0.5, rel=1e-3)
    assert (int(clip.step_count), int(clip.clip_count), int(clip.skipped_count)) == (2, 1, 1)
    assert float(model.optimizer.dynamic_scale) == 512.0
    assert isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)
    assert type(model.optimizer.inner_optimizer) is keras.optimizers.SGD


@pytest.mark.parametrize("run_eagerly", [False, True])
def test_loss_scale_too_large_at_the_first_step(run_eagerly):
    optimizer = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(1.0), initial_scale=1e38)
    model, clip = one_kernel(optimizer, run_eagerly=run_eagerly), ClipByGlobalNorm(1.0)
    feed(model, [[30.0, 40.0]], [clip])
    assert (int(clip.step_count), int(clip.skipped_count)) == (0, 1)
    np.testing.assert_array_equal(weights_of(model), [0.0, 0.0])
    optimizer.dynamic_scale.assign(8.0)
    feed(model, [[30.0, 40.0]], [clip])
    np.testing.assert_allclose(weights_of(model), [-0.6, -0.8], rtol=1e-5)


@pytest.mark.parametrize("policy", ["float32", "mixed_float16", "mixed_bfloat16"])
@pytest.mark.parametrize("batches", [None, 2])
@pytest.mark.parametrize(
    "compile_arguments",
    [
        {"run_eagerly": True},
        {"steps_per_execution": 4},
        {"jit_compile": True},
        {"jit_compile": True, "steps_per_execution": 2},
    ],
    ids=str,
)
def test_ways_of_running_together(policy, batches, compile_arguments):
    """Loss scaling, accumulation and ways of running at once, against the definition."""
    gradients = np.array([[3, 4], [6, 8], [0.25, 0.5], [1, 2], [0, 0], [5, 0], [0, -7], [-1, 1.0]])
    expected = np.zeros(2)
    for true in gradients.reshape(-1, batches or 1, 2).mean(axis=1):
        norm = np.linalg.norm(true)
        expected -= np.clip(true * min(1.0, 4.0 / max(norm, 1e-9)), -2.0, 2.0)
    inner = keras.optimizers.SGD(1.0, gradient_accumulation_steps=batches)
    keras.config.set_dtype_policy(policy)
    try:
        scaled = keras.optimizers.LossScaleOptimizer(inner, initial_scale=512.0)
        model = one_kernel(scaled, **compile_arguments)
    finally:
        keras.config.set_dtype_policy("float32")
    chain = [ClipByGlobalNorm(4.0), ClipByValue(2.0)]
    feed(model, gradients, chain)
    tolerance = 1e-5 if policy == "float32" else 2e-2
    np.testing.assert_allclose(weights_of(model), expected, atol=tolerance)
    assert [int(clip.skipped_count) for clip in chain] == [0, 0]


def test_half_precision_weights():
    model = keras.Sequential(
        [
            keras.Input((2,), dtype="float16"),
            keras.layers.Dense(1, use_bias=False, dtype="float16", kernel_initializer="zeros"),
        ]
    )
    model.compile(keras.optimizers.SGD(1.0), mean_output)
    clip = ClipByGlobalNorm(1.0)
    feed(model, [[300.0, 400.0]], [clip])  # the square of 400 overflows float16
    np.testing.assert_allclose(model.get_weights()[0][:, 0], [-0.6, -0.8], rtol=2e-3)


@pytest.mark.parametrize("jit_compile", [False, True])
def test_accumulated_mean_is_clipped_on_update_steps(jit_compile):
    model = one_kernel(
        keras.optimizers.SGD(1.0, gradient_accumulation_steps=2), jit_compile=jit_compile
    )
    clip = ClipByGlobalNorm(1.0)
    # Means 1e12 * (1.5, 2) and (0.3, 0.4): what was accumulated must not leave rounding errors.
    feed(model, [[1e12, 0.0], [2e12, 4e12], [0.6, 0.0], [0.0, 0.8]], [clip])
    assert (int(clip.step_count), int(clip.clip_count)) == (2, 1)
    assert clip.statistics()["norm_before"] == pytest.approx(0.5)
    np.testing.assert_allclose(weights_of(model), [-0.9, -1.2], rtol=1e-5)


def test_accumulation_equals_keras():
    def fit(callbacks, **arguments):
        optimizer = keras.optimizers.Adam(0.1, gradient_accumulation_steps=2, **arguments)
        model = one_kernel(optimizer)
        random = np.random.default_rng(0).normal(size=(7, 2))  # ends in the middle of a pair
        feed(model, random, callbacks, epochs=2)
        return weights_of(model)

    ours = fit([ClipByGlobalNorm(0.5)])
    np.testing.assert_allclose(ours, fit([], global_clipnorm=0.5), rtol=1e-5)


def test_not_finite_batch_is_left_out_of_the_accumulation():
    model = one_kernel(keras.optimizers.SGD(1.0, gradient_accumulation_steps=2))
    clip = ClipByGlobalNorm(100.0)
    feed(model, [[2.0, 0.0], [NAN, 0.0], [4.0, 2.0], [1.0, 1.0]], [clip])
    np.testing.assert_allclose(weights_of(model), [-3.0, -1.0])
    assert (int(clip.step_count), int(clip.skipped_count)) == (1, 1)


def test_multi_optimizer():
    def choose(variable):
        return slow if "slow" in variable.path else fast

    slow, fast = keras.optimizers.SGD(0.5), keras.optimizers.SGD(1.0)
    inputs = keras.Input((2,))
    first, second = (
        keras.layers.Dense(1, use_bias=False, name=n, kernel_initializer="zeros")(inputs)
        for n in ("slow", "fast")
    )
    model = keras.Model(inputs, keras.layers.Add()([first, second]))
    model.compile(keras.optimizers.MultiOptimizer(choose), mean_output)
    clip = ClipByGlobalNorm(1.0)
    feed(model, [[3.0, 4.0], [NAN, 0.0]], [clip])
    assert clip.statistics()["norm_before"] == pytest.approx(5 * np.sqrt(2))
    applied = np.array([0.6, 0.8]) / np.sqrt(2)
    np.testing.assert_allclose(model.get_weights()[0][:, 0], -0.5 * applied, rtol=1e-5)
    np.testing.assert_allclose(model.get_weights()[1][:, 0], -applied, rtol=1e-5)
    assert int(clip.skipped_count) == 1


@pytest.mark.parametrize(
    ("bad", "compile_arguments"),
    [(NAN, {}), (float("inf"), {"run_eagerly": True}), (NAN, {"jit_compile": True})],
    ids=str,
)
def test_a_step_that_is_not_finite_is_skipped_whole(bad, compile_arguments, caplog):
    def fit(gradients):
        keras.utils.set_random_seed(0)
        optimizer = keras.optimizers.Adam(
            0.1, use_ema=True, ema_momentum=0.5, ema_overwrite_frequency=2, weight_decay=0.1
        )
        model, clip = one_kernel(optimizer, **compile_arguments), ClipByGlobalNorm(1.0)
        feed(model, gradients, [clip, GradientNorm()])
        return model, clip

    good = [[3.0, 4.0], [1.0, -1.0], [2.0, 0.5]]
    expected, _ = fit(good)
    with caplog.at_level(logging.WARNING, logger="kbptt"):
        model, clip = fit([good[0], [bad, 1.0], *good[1:]])
    for a, b in zip(model.optimizer.variables, expected.optimizer.variables, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(weights_of(model), weights_of(expected), rtol=1e-5)
    assert int(model.optimizer.iterations) == 3
    assert (int(clip.step_count), int(clip.skipped_count)) == (3, 1)
    assert clip.statistics()["skipped"] == 1
    assert [record.message for record in caplog.records] == [
        "Epoch 1: 1 of 4 steps were skipped because a gradient was NaN or Inf."
    ]


def test_not_finite_outside_the_chosen_variables_skips_too():
    inputs = [keras.Input((1,)), keras.Input((1,))]
    outputs = [
        keras.layers.Dense(1, use_bias=False, name=n, kernel_initializer="zeros")(x)
        for n, x in zip("ab", inputs, strict=True)
    ]
    model = keras.Model(inputs, keras.layers.Add()(outputs))
    model.compile(keras.optimizers.SGD(1.0), mean_output)
    clip = ClipByNorm(1.0, variables="a/")
    model.fit([np.ones((1, 1)), np.full((1, 1), NAN)], np.zeros((1, 1)), callbacks=[clip])
    assert int(clip.skipped_count) == 1
    assert not np.any(model.get_weights())


def test_an_observer_changes_nothing_not_even_nan():
    model, norm = one_kernel(), GradientNorm()
    history = feed(model, [[3.0, 4.0], [NAN, 0.0]], [norm]).history
    assert np.isnan(weights_of(model)[0])
    assert np.isnan(history["gradient_norm"][0])
    assert int(model.optimizer.iterations) == 2


def test_variables_without_gradient():
    class Spare(keras.layers.Dense):
        def build(self, shape):
            super().build(shape)
            self.spare = self.add_weight(shape=(3,), name="spare")

    model = keras.Sequential(
        [keras.Input((2,)), Spare(1, use_bias=False, kernel_initializer="zeros")]
    )
    model.compile(keras.optimizers.SGD(1.0), mean_output)
    assert len(model.trainable_variables) == 2
    idle = ClipByGlobalNorm(1e-3, variables="spare/spare")
    with pytest.warns(UserWarning, match="Gradients do not exist"):
        feed(model, [[3.0, 4.0]], [ClipByGlobalNorm(1.0), idle])
    assert idle.statistics()["norm_before"] == idle.statistics()["clip_rate"] == 0
    np.testing.assert_allclose(weights_of(model), [-0.6, -0.8], rtol=1e-5)


class EmbeddingSum(keras.Model):
    """An embedding whose gradient counts its tokens."""

    def __init__(self):
        super().__init__()
        self.embedding = keras.layers.Embedding(6, 2, embeddings_initializer="ones")

    def call(self, tokens):
        return keras.ops.sum(self.embedding(tokens), axis=(1, 2), keepdims=True)


@pytest.mark.parametrize(
    ("clip", "jit_compile"),
    [(ClipByGlobalNorm(1.0), False), (ClipByValue(1.5), True), (AutoClip(), False)],
)
def test_sparse_gradient_is_clipped_as_the_dense_one(clip, jit_compile):
    model = EmbeddingSum()
    model.compile(keras.optimizers.SGD(1.0), mean_output, jit_compile=jit_compile)
    tokens = np.array([[4, 1, 4, 4, 0]])  # token 4 three times: one row, (3, 3)
    model.fit(tokens, np.zeros((1, 1)), verbose=0, callbacks=[clip])
    dense = np.array([1, 1, 0, 0, 3, 0.0])[:, None] * np.ones(2)
    assert clip.statistics()["norm_before"] == pytest.approx(np.linalg.norm(dense))
    expected = {
        "clip_by_global_norm": dense / np.linalg.norm(dense),
        "clip_by_value": np.minimum(dense, 1.5),
        "auto_clip": dense,
    }[clip.name]
    np.testing.assert_allclose(1 - model.get_weights()[0], expected, rtol=1e-5, atol=1e-6)


def test_sparse_gradient_below_the_bound_is_untouched_with_any_optimizer():
    def fit(callbacks):
        model = EmbeddingSum()
        model.compile(keras.optimizers.Adam(0.1), mean_output)
        # Adam squares slices of equal index one by one, so adding them up would change its step.
        tokens = np.array([[4, 1, 4, 4, 0], [4, 4, 2, 2, 0]])
        model.fit(tokens, np.zeros((2, 1)), batch_size=1, epochs=2, verbose=0, callbacks=callbacks)
        return model.get_weights()[0]

    keras.utils.set_random_seed(0)
    expected = fit([])
    keras.utils.set_random_seed(0)
    np.testing.assert_array_equal(fit([ClipByGlobalNorm(100.0), ClipByValue(100.0)]), expected)


def test_sparse_gradient_accumulated():
    model = EmbeddingSum()
    model.compile(keras.optimizers.SGD(1.0, gradient_accumulation_steps=2), mean_output)
    clip = ClipByGlobalNorm(1.0)
    tokens = np.array([[2, 2], [2, 5]])
    arguments = {"batch_size": 1, "shuffle": False, "verbose": 0, "callbacks": [clip]}
    model.fit(tokens, np.zeros((2, 1)), **arguments)
    mean = np.array([0, 0, 1.5, 0, 0, 0.5])[:, None] * np.ones(2)
    expected = mean / np.linalg.norm(mean)
    np.testing.assert_allclose(1 - model.get_weights()[0], expected, rtol=1e-5, atol=1e-6)


def test_sparse_gradient_stays_sparse():
    seen = []

    class Look(keras.optimizers.SGD):
        def update_step(self, gradient, variable, learning_rate):
            seen.append(gradient)
            super().update_step(gradient, variable, learning_rate)

    model = EmbeddingSum()
    model.compile(Look(1.0), mean_output)
    model.fit(np.array([[1, 2]]), np.zeros((1, 1)), verbose=0, callbacks=[ClipByNorm(1.0)])
    assert all(isinstance(gradient, tf.IndexedSlices) for gradient in seen)


def test_huge_gradients_have_a_norm():
    model, clip = one_kernel(), ClipByGlobalNorm(1.0)
    feed(model, [[3e25, 4e25]], [clip])
    assert clip.statistics()["norm_before"] == pytest.approx(5e25)
    np.testing.assert_allclose(weights_of(model), [-0.6, -0.8], rtol=1e-5)
