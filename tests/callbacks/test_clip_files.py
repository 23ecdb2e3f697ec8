"""Where the state of the clipping callbacks goes, and what is in a model's files."""

import subprocess
import sys

import keras
import numpy as np
import pytest

from kbptt.callbacks import (
    AdaClip,
    AdaGC,
    AutoClip,
    ClipByGlobalNorm,
    GradientNorm,
    GradientNormPenalty,
    GradientStabilizer,
    ZClip,
)

X = np.random.default_rng(0).normal(size=(12, 2)).astype("float32")
X *= np.r_[1:13][:, None]
Y = np.zeros((12, 1), "float32")


def dense(optimizer=None):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, use_bias=False)])
    model.compile(optimizer or keras.optimizers.Adam(0.1), "mse")
    return model


def fit(model, given, part=slice(None), **arguments):
    fixed = {"batch_size": 1, "shuffle": False, "verbose": 0}
    model.fit(X[part], Y[part], callbacks=list(given), **{**fixed, **arguments})


def clips():
    each = [AdaGC(warmup_steps=2), AdaClip(0.5), GradientStabilizer()]
    return [AutoClip(60, history=8), ZClip(1.0, 0.5, warmup_steps=2), *each, GradientNorm()]


FIRST, SECOND = slice(0, 6), slice(6, 12)


@pytest.fixture(scope="module")
def uninterrupted():
    """Weights and states after two fits of one model."""
    model, given = dense(), clips()
    fit(model, given, FIRST)
    fit(model, given, SECOND)
    return model.get_weights(), [memory(clip) for clip in given]


def memory(clip):
    clip.save_own_variables(store := {})
    return store


def assert_equal(model, given, uninterrupted):
    weights, states = uninterrupted
    np.testing.assert_allclose(model.get_weights()[0], weights[0], rtol=1e-6)
    for clip, state in zip(given, states, strict=True):
        for name, value in memory(clip).items():
            np.testing.assert_allclose(value, state[name], rtol=1e-6, err_msg=name)


def test_the_same_callback_continues_after_save_and_load(uninterrupted, tmp_path):
    model, given = dense(), clips()
    fit(model, given, FIRST)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    fit(loaded, given, SECOND)
    assert int(given[1].state["count"]) == 12
    assert_equal(loaded, given, uninterrupted)


def test_it_continues_from_a_file_of_the_last_epoch_of_an_interrupted_fit(uninterrupted, tmp_path):
    def stop(batch, logs):
        if batch == 3 and int(model.optimizer.iterations) > 6:
            raise KeyboardInterrupt

    model, given = dense(), clips()
    save = keras.callbacks.ModelCheckpoint(tmp_path / "model.keras")
    interrupt = keras.callbacks.LambdaCallback(on_train_batch_end=stop)
    with pytest.raises(KeyboardInterrupt):
        fit(model, [*given, save, interrupt], FIRST, epochs=2)
    loaded = keras.models.load_model(tmp_path / "model.keras")
    fit(loaded, given, SECOND)
    assert_equal(loaded, given, uninterrupted)


def test_a_new_callback_continues_from_saved_variables(uninterrupted, tmp_path):
    model, given = dense(), clips()
    fit(model, given, FIRST)
    model.save(tmp_path / "model.keras")
    for number, clip in enumerate(given):
        np.savez(tmp_path / f"{number}.npz", **memory(clip))
    loaded, again = keras.models.load_model(tmp_path / "model.keras"), clips()
    for number, clip in enumerate(again):
        clip.load_own_variables(np.load(tmp_path / f"{number}.npz"))
    fit(loaded, again, SECOND)
    assert_equal(loaded, again, uninterrupted)


def test_a_model_of_a_different_age_starts_over(tmp_path):
    model, clip = dense(), AutoClip()
    fit(model, [clip])
    other = dense()
    fit(other, [], FIRST)
    fit(other, [clip], FIRST)
    assert int(clip.state["count"]) == 6


LOAD = """
import sys

class Blocked:
    def find_spec(self, name, *_):
        if name.partition(".")[0] == "kbptt":
            raise ImportError("blocked")

sys.meta_path.insert(0, Blocked())
import warnings
import keras
import numpy as np

warnings.simplefilter("error", UserWarning)
for path in sys.argv[1:]:
    model = keras.models.load_model(path)
    assert type(model.optimizer).__module__.startswith("keras"), path
    print(int(model.optimizer.iterations))
    model.fit(np.ones((1, 2)), np.ones((1, 1)), verbose=0)
"""


def test_files_of_a_fit_with_callbacks_load_without_kbptt(tmp_path):
    def scaled():
        return keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam(0.1))

    def stop(*_, **__):
        raise KeyboardInterrupt

    paths = [tmp_path / f"{name}.keras" for name in ("inside", "after", "scaled", "interrupted")]
    model = dense()
    save = keras.callbacks.ModelCheckpoint(paths[0])
    fit(model, [save, *clips(), GradientNormPenalty(0.01)])
    model.save(paths[1])
    fit(dense(scaled()), [*clips(), keras.callbacks.ModelCheckpoint(paths[2])])
    with pytest.raises(KeyboardInterrupt):
        fit(model, [*clips(), keras.callbacks.LambdaCallback(on_epoch_end=stop)])
    model.save(paths[3])
    command = [sys.executable, "-c", LOAD, *map(str, paths)]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr[-3000:]
    assert run.stdout.split() == ["12", "12", "12", "24"]


@pytest.mark.parametrize("penalty", [False, True])
@pytest.mark.parametrize("hook", ["on_train_batch_end", "on_epoch_end", "on_test_begin", "step"])
def test_nothing_is_left_behind_when_fit_raises(hook, penalty):
    def stop(*_, **__):
        raise KeyboardInterrupt

    model = dense(keras.optimizers.SGD(0.01))
    model.fit(X, Y, validation_data=(X, Y), verbose=0)
    optimizer, function = model.optimizer, model.train_function
    of_model, of_optimizer = set(vars(model)), set(vars(optimizer))
    given = [GradientNormPenalty(10.0)] if penalty else [ClipByGlobalNorm(1e-3)]
    x = X
    if hook == "step":
        x = np.ones((len(X), 3))  # the layers have other inputs
    else:
        given.append(keras.callbacks.LambdaCallback(**{hook: stop}))
    with pytest.raises((KeyboardInterrupt, ValueError)):
        model.fit(x, Y, validation_data=(X, Y), callbacks=given, verbose=0)
    assert model.optimizer is optimizer
    assert model.train_function is function
    assert set(vars(optimizer)) == of_optimizer
    assert {name for name in set(vars(model)) - of_model if not name.startswith("_")} == set()


@pytest.mark.parametrize("what", ["fit", "train_on_batch", "compile"])
def test_a_fit_that_another_callback_ends_before_its_step_is_undone_by_the_next_use(what):
    def stop(*_, **__):
        raise KeyboardInterrupt

    model, twin = dense(keras.optimizers.SGD(0.01)), dense(keras.optimizers.SGD(0.01))
    optimizer = model.optimizer
    given = [ClipByGlobalNorm(1e-3), keras.callbacks.LambdaCallback(on_train_batch_begin=stop)]
    with pytest.raises(KeyboardInterrupt):
        fit(model, given)
    for one in (model, twin):
        one.set_weights([np.ones((2, 1))])
        if what == "train_on_batch":
            one.train_on_batch(X, Y)
            continue
        if what == "compile":
            one.compile(keras.optimizers.SGD(0.02), "mse")
        fit(one, [], batch_size=12)
    if what == "train_on_batch":
        return  # it belongs to the interrupted fit
    np.testing.assert_array_equal(model.get_weights()[0], twin.get_weights()[0])
    assert (model.optimizer is optimizer) == (what != "compile")


def test_between_the_steps_of_a_fit_the_optimizer_is_the_users_own():
    seen = []

    def look(*_, **__):
        seen.append(model.optimizer)
        model.optimizer.learning_rate = 0.5

    model = dense()
    optimizer = model.optimizer
    fit(model, [*clips(), keras.callbacks.LambdaCallback(on_train_batch_end=look)])
    assert seen
    assert all(one is optimizer for one in seen)
    assert float(optimizer.learning_rate) == 0.5


def test_a_callback_that_trains_on_a_batch_inside_fit():
    def train(*_, **__):
        model.train_on_batch(np.zeros((1, 2), "float32"), np.zeros((1, 1), "float32"))

    model, clip = dense(keras.optimizers.SGD(1.0)), ClipByGlobalNorm(1e-3)
    before = model.get_weights()[0]
    fit(model, [keras.callbacks.LambdaCallback(on_train_batch_end=train), clip], FIRST)
    assert int(clip.step_count) == 6
    assert np.linalg.norm(before - model.get_weights()[0]) < 6.1e-3
