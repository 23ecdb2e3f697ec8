"""The clipping callbacks inside `fit`, on models whose gradient is known.

`given_gradients` has a loss whose gradient with respect to its kernels is the input, so the rows of
the data are the gradients, step by step, and with SGD at learning rate 1 the differences of the
weights are what the optimizer was given.
"""

import keras
import numpy as np
import pytest
from known_gradients import CLIPS, mean_output

import kbptt
from kbptt.callbacks import (
    AdaptiveGradientClip,
    AutoClip,
    ClipByGlobalNorm,
    ClipByNorm,
    ClipByValue,
    GradientNorm,
    ZClip,
)


class Weights(keras.callbacks.Callback):
    """Keeps the flat weights before the first and after every step."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def on_train_begin(self, logs=None):
        self.seen = [self.flat()]

    def on_train_batch_end(self, batch, logs=None):
        self.seen.append(self.flat())

    def flat(self):
        return np.concatenate([w.ravel() for w in self.model.get_weights()])

    def steps(self):
        return -np.diff(np.array(self.seen), axis=0)


def given_gradients(left=2, right=3, start=0.0, run_eagerly=True):
    inputs = [keras.Input((left,), name="a"), keras.Input((right,), name="b")]
    layers = [
        keras.layers.Dense(
            1, use_bias=False, name=n, kernel_initializer=keras.initializers.Constant(start)
        )
        for n in ("left", "right")
    ]
    total = keras.layers.Add()([layer(x) for layer, x in zip(layers, inputs, strict=True)])
    model = keras.Model(inputs, total)
    # Eager steps, because tracing would take most of the time; graphs have tests of their own.
    model.compile(keras.optimizers.SGD(1.0), mean_output, run_eagerly=run_eagerly)
    return model


def feed(model, gradients, callbacks, epochs=1, left=2):
    """Trains on `gradients` (steps, left + right), one row a step; returns what SGD was given."""
    gradients = np.asarray(gradients, "float32")
    data = {"a": gradients[:, :left], "b": gradients[:, left:]}
    weights, target = Weights(), np.zeros((len(gradients), 1))
    history = model.fit(
        data,
        target,
        batch_size=1,
        epochs=epochs,
        shuffle=False,
        verbose=0,
        callbacks=[*callbacks, weights],
    )
    return weights.steps(), history.history


def random_gradients(steps=6, seed=0):
    return np.random.default_rng(seed).normal(size=(steps, 5)).astype("float32")


def recurrent_model(optimizer, **compile_arguments):
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [keras.Input((5, 3)), keras.layers.SimpleRNN(4), keras.layers.Dense(2, name="head")]
    )
    model.compile(optimizer, "mse", **compile_arguments)
    return model


def recurrent_fit(model, callbacks=(), epochs=2, batch_size=4):
    random = np.random.default_rng(0)
    x, y = random.normal(size=(12, 5, 3)), random.normal(size=(12, 2))
    model.fit(
        x,
        y,
        batch_size=batch_size,
        epochs=epochs,
        shuffle=False,
        verbose=0,
        callbacks=list(callbacks),
    )
    return model.get_weights()


def assert_weights_close(left, right, rtol=1e-5, atol=1e-7):
    for a, b in zip(left, right, strict=True):
        np.testing.assert_allclose(a, b, rtol=rtol, atol=atol)


@pytest.mark.parametrize(
    ("clip", "keras_argument"),
    [(ClipByValue, "clipvalue"), (ClipByNorm, "clipnorm"), (ClipByGlobalNorm, "global_clipnorm")],
)
def test_equals_keras_on_one_device(clip, keras_argument):
    theirs = recurrent_model(keras.optimizers.Adam(0.1, **{keras_argument: 0.05}))
    ours = recurrent_model(keras.optimizers.Adam(0.1))
    assert_weights_close(recurrent_fit(ours, [clip(0.05)]), recurrent_fit(theirs))


def every_clip():
    chain = [ClipByNorm(0.5), AdaptiveGradientClip(0.5), AutoClip(50), ZClip(maximum_norm=0.3)]
    return [GradientNorm(), *chain, ClipByValue(0.1)]


@pytest.fixture(scope="module")
def in_a_graph():
    chain = every_clip()
    weights = recurrent_fit(recurrent_model(keras.optimizers.SGD(0.1)), chain)
    return weights, [clip.statistics() for clip in chain]


@pytest.mark.parametrize(
    "compile_arguments", [{"run_eagerly": True}, {"jit_compile": True}, {"steps_per_execution": 2}]
)
def test_same_numbers_however_it_runs(compile_arguments, in_a_graph):
    chain = every_clip()
    model = recurrent_model(keras.optimizers.SGD(0.1), **compile_arguments)
    assert_weights_close(recurrent_fit(model, chain), in_a_graph[0], rtol=1e-4, atol=1e-6)
    for clip, statistics in zip(chain, in_a_graph[1], strict=True):
        assert clip.statistics() == pytest.approx(statistics, rel=1e-4)


def test_the_step_is_the_clipped_gradient_and_the_statistics_say_so():
    gradients = random_gradients()
    norms = np.linalg.norm(gradients, axis=1)
    bound = float(np.median(norms))
    clip = ClipByGlobalNorm(bound)
    steps, history = feed(given_gradients(), gradients, [clip])
    expected = gradients * np.minimum(1, bound / norms)[:, None]
    np.testing.assert_allclose(steps, expected, rtol=1e-5, atol=1e-6)
    statistics = clip.statistics()
    assert statistics["norm_before"] == pytest.approx(norms[-1], rel=1e-6)
    assert statistics["norm_after"] == pytest.approx(min(bound, norms[-1]), rel=1e-6)
    assert statistics["threshold"] == pytest.approx(bound)
    assert statistics["clip_rate"] == pytest.approx(np.mean(norms > bound))
    assert statistics["skipped"] == 0
    assert history["clip_by_global_norm_clip_rate"] == [statistics["clip_rate"]]
    assert history["clip_by_global_norm_norm_before"] == [statistics["norm_before"]]


def test_clip_rate_in_the_logs_is_of_the_epoch():
    gradients = np.array([[3, 4, 0, 0, 0], [0.1, 0, 0, 0, 0]])
    clip = ClipByGlobalNorm(keras.optimizers.schedules.PiecewiseConstantDecay([1], [10.0, 1.0]))
    _, history = feed(given_gradients(), gradients, [clip], epochs=2)
    assert history["clip_by_global_norm_clip_rate"] == [0.0, 0.5]
    assert clip.statistics()["clip_rate"] == 0.25


@pytest.mark.parametrize("clip", CLIPS)
def test_chosen_variables_only(clip):
    gradients = 10 * random_gradients()
    steps, _ = feed(given_gradients(), gradients, [clip(0.1, variables="^right/")])
    np.testing.assert_allclose(steps[:, :2], gradients[:, :2], rtol=1e-5)
    if clip is ClipByValue:
        assert np.abs(steps[:, 2:]).max() == pytest.approx(0.1, rel=1e-4)
    else:
        np.testing.assert_allclose(np.linalg.norm(steps[:, 2:], axis=1), 0.1, rtol=1e-4)


def test_several_act_in_the_order_given():
    gradient = np.array([[3.0, 0, 0, 4.0, 0]])
    raw, middle, end = GradientNorm(), GradientNorm(name="middle"), GradientNorm(name="end")
    chain = [raw, ClipByGlobalNorm(1.0), middle, ClipByValue(0.7), end]
    steps, history = feed(given_gradients(), gradient, chain)
    np.testing.assert_allclose(steps, [[0.6, 0, 0, 0.7, 0]], rtol=1e-6)
    assert history["gradient_norm"] == [5.0]
    assert history["middle"] == pytest.approx([1.0])
    assert history["end"] == pytest.approx([np.hypot(0.6, 0.7)])
    steps, _ = feed(given_gradients(), gradient, [ClipByValue(0.7), ClipByGlobalNorm(1.0)])
    np.testing.assert_allclose(steps, [[0.7, 0, 0, 0.7, 0]], rtol=1e-6)  # norm 0.99: untouched


def test_active_lists_them_during_fit_only():
    class Ask(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            self.answer = kbptt.callbacks.gradient_transform.active(self.model)

    ask, chain, model = Ask(), [ClipByNorm(1.0), ZClip()], given_gradients()
    feed(model, random_gradients(1), [ask, *chain])
    assert ask.answer == chain
    assert kbptt.callbacks.gradient_transform.active(model) == []


def test_logs_of_equal_clips_have_distinct_names():
    chain = [ClipByValue(1.0), ClipByValue(0.5), ClipByValue(0.2, name="last")]
    _, history = feed(given_gradients(), random_gradients(1), chain)
    names = {key.removesuffix("_threshold"): v for key, v in history.items() if "threshold" in key}
    assert names == {
        "clip_by_value": [1.0],
        "clip_by_value_2": [0.5],
        "last": pytest.approx([0.2]),
    }


def test_logs_suit_the_callbacks_of_keras(tmp_path):
    chain = [
        ClipByNorm(1.0),
        keras.callbacks.TensorBoard(tmp_path / "logs"),
        keras.callbacks.CSVLogger(tmp_path / "log.csv"),
        keras.callbacks.EarlyStopping("clip_by_norm_clip_rate", mode="min"),
    ]
    feed(given_gradients(), random_gradients(2), chain, epochs=2)
    assert "clip_by_norm_norm_before" in (tmp_path / "log.csv").read_text()


def test_threshold_follows_a_schedule_without_retracing():
    traced = []

    def schedule(step):
        traced.append(step)
        return 1.0 / (keras.ops.cast(step, "float32") + 1.0)

    gradients = 10 * random_gradients()
    model = given_gradients(run_eagerly=False)
    steps, _ = feed(model, gradients, [ClipByGlobalNorm(schedule)])
    expected = 1 / np.arange(1, 7)
    np.testing.assert_allclose(np.linalg.norm(steps, axis=1), expected, rtol=1e-4)
    assert len(traced) == 2  # once checked at the beginning, once traced


def test_a_schedule_that_asks_for_the_value_of_the_step():
    clip = ClipByGlobalNorm(lambda step: 5.0 if step < 2 else 1.0)
    with pytest.raises(ValueError, match=r"`threshold`.*keras.ops.where"):
        feed(given_gradients(run_eagerly=False), random_gradients(2), [clip])


def test_threshold_set_by_another_callback():
    clip = ClipByGlobalNorm(1.0)

    class Halve(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            clip.threshold = clip.threshold / 2

    steps, _ = feed(given_gradients(), 10 * random_gradients(3), [clip, Halve()])
    np.testing.assert_allclose(np.linalg.norm(steps, axis=1), [1, 0.5, 0.25], rtol=1e-4)


@pytest.mark.parametrize("run_eagerly", [False, True])
def test_threshold_set_between_two_fits(run_eagerly):
    clip, model = ClipByGlobalNorm(1.0), given_gradients(run_eagerly=run_eagerly)
    for threshold in (0.5, lambda step: 0.25 + 0 * keras.ops.cast(step, "float32"), 2.0):
        clip.threshold = threshold
        steps, _ = feed(model, 10 * random_gradients(2), [clip])
        value = threshold(0) if callable(threshold) else threshold
        np.testing.assert_allclose(np.linalg.norm(steps, axis=1), value, rtol=1e-4)


def test_thresholds_below_zero_and_nan_stop_instead_of_turning_the_gradient_around():
    def schedule(step):
        return keras.ops.take(np.array([1.0, -1.0, np.nan], "float32"), step)

    steps, _ = feed(given_gradients(), random_gradients(3), [ClipByGlobalNorm(schedule)])
    assert np.any(steps[0]) and not np.any(steps[1:])


def test_adaptive_gradient_clip_equals_the_paper():
    gradients = random_gradients()
    steps, _ = feed(given_gradients(start=0.5), gradients, [AdaptiveGradientClip(0.1)])
    weights = np.full(5, 0.5)
    for gradient, step in zip(gradients, steps, strict=True):
        for unit in (slice(0, 2), slice(2, 5)):  # each kernel (n, 1) has one output unit
            bound = 0.1 * max(np.linalg.norm(weights[unit]), 1e-3)
            factor = min(1, bound / np.linalg.norm(gradient[unit]))
            np.testing.assert_allclose(step[unit], gradient[unit] * factor, rtol=1e-4, atol=1e-6)
        weights -= step


@pytest.mark.parametrize("history", [1000, 8])
def test_auto_clip_equals_the_percentile_of_the_history(history):
    gradients = random_gradients(20, seed=1)
    norms = np.linalg.norm(gradients.astype("float64"), axis=1)
    clip = AutoClip(percentile=30, history=history)
    steps, _ = feed(given_gradients(), gradients, [clip])
    for t, step in enumerate(steps):
        seen = norms[max(0, t + 1 - history) : t + 1]
        bound = min(norms[t], np.percentile(seen, 30))
        assert np.linalg.norm(step) == pytest.approx(bound, rel=1e-4)
    assert clip.statistics()["threshold"] == pytest.approx(np.percentile(seen, 30), rel=1e-5)


def z_clip_by_hand(norms, z_score, decay, warmup, maximum, epsilon):
    """Norms after ZClip: the algorithm of the paper, one scalar at a time."""
    after = []
    for t, norm in enumerate(norms):
        target = None
        if t >= warmup:
            if t == warmup:
                mean, variance = np.mean(norms[:warmup]), np.var(norms[:warmup])
            z = (norm - mean) / (np.sqrt(variance) + epsilon)
            if z > z_score:
                target = mean + z_score * np.sqrt(variance) / (z / z_score)
            fed = norm if target is None else target
            mean = decay * mean + (1 - decay) * fed
            variance = decay * variance + (1 - decay) * (fed - mean) ** 2
        bound = norm if target is None else target
        after.append(min(bound, norm, maximum))
    return np.array(after)


@pytest.mark.parametrize("maximum", [None, 2.0])
def test_z_clip_equals_the_paper(maximum):
    gradients = random_gradients(40, seed=2)
    gradients[[3, 20, 30, 31]] *= [[3], [4], [10], [10]]  # one spike in warm-up, three after
    norms = np.linalg.norm(gradients.astype("float64"), axis=1)
    clip = ZClip(z_score=2.0, decay=0.9, warmup_steps=10, maximum_norm=maximum)
    steps, _ = feed(given_gradients(), gradients, [clip])
    expected = z_clip_by_hand(norms, 2.0, 0.9, 10, maximum or np.inf, 1e-6)
    np.testing.assert_allclose(np.linalg.norm(steps, axis=1), expected, rtol=1e-4, atol=1e-6)
    assert np.mean(expected < norms * 0.999) == pytest.approx(clip.statistics()["clip_rate"])


def test_z_clip_of_constant_norms_clips_nothing():
    clip = ZClip(warmup_steps=3, maximum_norm=None)
    steps, _ = feed(given_gradients(), np.ones((8, 5)), [clip])
    np.testing.assert_allclose(steps, np.ones((8, 5)), rtol=1e-4)
    assert clip.statistics()["clip_rate"] == 0


@pytest.mark.parametrize(
    "clip",
    [clip(1.0) for clip in [*CLIPS, AdaptiveGradientClip, AutoClip, ZClip]],
    ids=lambda clip: clip.name,
)
def test_zero_gradients_stay_zero(clip):
    steps, _ = feed(given_gradients(), np.zeros((4, 5)), [clip])
    assert not np.any(steps)
    assert clip.statistics()["clip_rate"] == 0
    assert clip.statistics()["skipped"] == 0


def test_schedule_that_starts_at_no_positive_number():
    with pytest.raises(ValueError, match=r"threshold\(optimizer\.iterations\)"):
        feed(given_gradients(), random_gradients(1), [ClipByNorm(lambda step: 0.0)])


def test_pattern_without_match_lists_the_variables():
    with pytest.raises(ValueError, match="Available: left/kernel, right/kernel"):
        feed(given_gradients(), random_gradients(1), [ClipByNorm(1.0, variables="middle")])


def test_a_transform_of_the_user():
    class Halve(kbptt.callbacks.GradientTransform):
        def transform(self, gradients, norms, weights, state):
            return [g / 2 for g in gradients], None, state

    halve = Halve()
    steps, history = feed(given_gradients(), random_gradients(), [halve])
    np.testing.assert_allclose(steps, random_gradients() / 2, rtol=1e-5, atol=1e-6)
    after = np.linalg.norm(random_gradients()[-1]) / 2
    assert history["halve_norm_after"] == pytest.approx([after], rel=1e-5)
