"""The contract of every callback. A new one joins by one line in `CALLBACKS`.

Its own tests say what it does; these, what none of them may break. Models run eagerly, since
tracing would take most of the time; compiled steps are tried with several callbacks at once.
"""

import functools
import itertools
import json

import keras
import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.util import tensor_util

import kbptt
from kbptt import callbacks
from kbptt.callbacks.gradient_transform import GradientTransform

T = 4
RNG = np.random.default_rng(0)
X = RNG.normal(size=(4, T, 2)).astype("float32")
Y = RNG.normal(size=(4, 1)).astype("float32")
DATA = (X[:2], Y[:2])


@keras.saving.register_keras_serializable(package="tests")
class Scale(GradientTransform):
    """A transform of a user."""

    def __init__(self, factor=0.5, **kwargs):
        super().__init__(**kwargs)
        self.factor = factor

    def transform(self, gradients, norms, weights, state):
        return [self.factor * g for g in gradients], None, state

    def get_config(self):
        return {**super().get_config(), "factor": self.factor}


# By name: how to make one, given a directory; and for every attribute that may be set another
# value, and one that is refused.
CALLBACKS = {
    "ClipByValue": (
        lambda d: callbacks.ClipByValue(0.02),
        {"threshold": (0.01, 0), "variables": (["recurrent"], "("), "name": ("n", "")},
    ),
    "ClipByNorm": (lambda d: callbacks.ClipByNorm(0.02), {"threshold": (0.01, "1")}),
    "ClipByGlobalNorm": (lambda d: callbacks.ClipByGlobalNorm(0.02), {"threshold": (0.01, -1)}),
    "AdaptiveGradientClip": (
        lambda d: callbacks.AdaptiveGradientClip(0.02),
        {"clip_factor": (0.01, 0), "epsilon": (0.1, 0)},
    ),
    "AutoClip": (lambda d: callbacks.AutoClip(50, history=8), {"percentile": (10, 101)}),
    "ZClip": (
        lambda d: callbacks.ZClip(0.1, 0.5, warmup_steps=1, maximum_norm=None),
        {
            "z_score": (0.01, 0), "decay": (0.9, 2), "warmup_steps": (50, 0),
            "maximum_norm": (0.02, 0), "epsilon": (1.0, 0),
        },
    ),
    "AdaGC": (
        lambda d: callbacks.AdaGC(warmup_steps=3, warmup_threshold=0.02),
        {
            "relative_threshold": (3.0, 0.9), "decay": (0.5, 1), "warmup_steps": (9, -1),
            "warmup_threshold": (0.01, 0),
        },
    ),
    "AdaClip": (lambda d: callbacks.AdaClip(0.9), {"decay": (0.5, -0.1)}),
    "GradientStabilizer": (
        lambda d: callbacks.GradientStabilizer(),
        {"decay": (0.0, 1), "square_decay": (0.5, 1.5), "epsilon": (0.5, 0)},
    ),
    "GradientNorm": (lambda d: callbacks.GradientNorm(), {"variables": ("dense", [])}),
    "Scale": (lambda d: Scale(), {"factor": (0.25, ...)}),
    "GradientNormPenalty": (
        lambda d: callbacks.GradientNormPenalty(0.1),
        {
            "weight": (0.5, -1), "form": ("exact", "exakt"), "radius": (0.5, 0),
            "squared": (False, "no"),
        },
    ),
    "GradientFlossing": (
        lambda d: callbacks.GradientFlossing(1, "epoch", count=1, timesteps=2),
        {
            "steps": (2, -1), "freq": (1, 0), "repeats": (0, -1), "x": (X, ...),
            "count": (2, 0), "learning_rate": (0.1, 0), "batch_size": (2, 0),
            "timesteps": (3, 0), "burn_in": (1, -1), "seed": (1, -1),
        },
    ),
    "GradientFlow": (
        lambda d: callbacks.GradientFlow(d, log_freq=1, heatmap_freq=None, lag_data=DATA),
        {
            "log_freq": (2, "never"), "heatmap_freq": (1, 0), "max_profiles": (1, 0),
            "lag_data": (None, X), "lag_freq": (2, 0), "max_lags": (2, 1),
            "health": ("states", "gates"),
        },
    ),
    "SpectralMonitor": (
        lambda d: callbacks.SpectralMonitor(d, log_freq=1, x=X[:1]),
        {"log_freq": ("epoch", 0), "x": (None, ...), "exponents": (2, 0)},
    ),
    "AdaptiveTruncation": (
        lambda d: callbacks.AdaptiveTruncation(
            1e9, minimum=2, maximum=3, data=DATA, warmup=0, tau=0, log_dir=d
        ),
        {
            "tolerance": (1e-9, 0), "minimum": (3, 0), "maximum": (4, 1), "data": ((X, Y), X),
            "freq": (2, 0), "warmup": (9, -1), "overlap": (True, ...),
            "scale_learning_rate": (True, ...), "tau": (1, -1), "method": ("quantile", "none"),
        },
    ),
}  # fmt: skip
SHARED = ["variables", "name"]  # of all transforms, tried with the first one
MEMORY_ONLY = [
    "batch_size",
    "interval",
    "on_verdict",
    "thresholds",
]  # change nothing that could be seen
ALIASES = {"AdaptiveGradientClip": ["threshold"]}  # of another attribute
OBSERVERS = ["GradientNorm", "GradientFlow", "SpectralMonitor"]

every_callback = pytest.mark.parametrize("name", CALLBACKS)
# Directories are used by several models on purpose; what Keras's arrays mean for states is not
# the subject here.
pytestmark = pytest.mark.filterwarnings("ignore:kbptt writes to", "ignore:.*stateful")


def recurrent(timesteps=T, stateful=False, **compile_arguments):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((timesteps, 2), batch_size=2 if stateful else None)
    layer = kbptt.SimpleRNN(2, truncation=T, stateful=stateful, name="rnn")
    model = keras.Sequential([inputs, layer, keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(0.1), "mse", **{"run_eagerly": True, **compile_arguments})
    return model


def dense(**compile_arguments):
    keras.utils.set_random_seed(0)
    layers = [keras.Input((T, 2)), keras.layers.Flatten(), keras.layers.Dense(1, name="dense")]
    model = keras.Sequential([*layers, keras.layers.Dense(1, name="recurrent")])
    model.compile(keras.optimizers.SGD(0.1), "mse", **compile_arguments)
    return model


def fit(model, *given, **arguments):
    """Trains on `X`, `Y`; returns the weights."""
    arguments = {"batch_size": 2, "shuffle": False, "verbose": 0, **arguments}
    model.fit(X, Y, callbacks=list(given), **arguments)
    return model.get_weights()


def assert_equal(found, expected, **tolerance):
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, **{"rtol": 1e-5, "atol": 1e-7, **tolerance})


@pytest.fixture
def make(tmp_path):
    return lambda name: CALLBACKS[name][0](tmp_path / name)


def test_every_callback_is_here():
    classes = {name for name in dir(callbacks) if isinstance(getattr(callbacks, name), type)}
    # StreamState belongs to its data: tests/streams.
    assert classes - {"GradientTransform", "StreamState"} <= set(CALLBACKS)


@every_callback
def test_config_round_trip(name, make):
    callback = make(name)
    others = {key: value for key, (value, _) in CALLBACKS[name][1].items()}
    for settings in ({}, others):
        for key, value in settings.items():
            setattr(callback, key, value)
        config = callback.get_config()
        json.dumps(config)
        assert set(CALLBACKS[name][1]) <= set(config)
        assert type(callback).from_config(config).get_config() == config
        again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(callback))
        assert type(again) is type(callback)
        assert again.get_config() == config


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    """The weights after one fit of one model with a callback of its own, by name."""
    directory = tmp_path_factory.mktemp("expected")
    return functools.cache(
        lambda name: fit(recurrent(), *([CALLBACKS[name][0](directory / name)] if name else []))
    )


@every_callback
def test_each_model_is_trained_as_with_a_callback_of_its_own(name, make, expected):
    callback = make(name)
    for _ in range(2):
        assert_equal(fit(recurrent(), callback), expected(name))
    if name in OBSERVERS:
        assert_equal(expected(name), expected(None), rtol=0, atol=0)


@every_callback
def test_an_exception_in_fit_leaves_nothing_behind(name, make, expected):
    def stop(*_, **__):
        raise KeyboardInterrupt

    model, callback = recurrent(), make(name)
    start = model.get_weights()
    with pytest.raises(KeyboardInterrupt):
        fit(model, callback, keras.callbacks.LambdaCallback(on_train_batch_end=stop))
    model.set_weights(start)
    model.layers[0].truncation = T
    assert_equal(fit(model), expected(None))
    assert_equal(fit(recurrent(), callback), expected(name))


@every_callback
def test_validation_evaluation_prediction_and_files(name, make, expected, tmp_path):
    model, callback = recurrent(), make(name)
    save = keras.callbacks.ModelCheckpoint(tmp_path / "model.keras")
    weights = fit(model, callback, save, validation_data=(X, Y))
    assert_equal(weights, expected(name))
    loaded = keras.models.load_model(tmp_path / "model.keras")
    results = [
        (m.evaluate(X, Y, verbose=0, callbacks=c), m.predict(X, verbose=0, callbacks=c))
        for m, c in ((model, []), (model, [callback]), (loaded, []))
    ]
    assert_equal(results[0], results[1])
    assert_equal(results[0], results[2])
    assert_equal(model.get_weights(), weights, rtol=0, atol=0)
    assert not np.allclose(fit(loaded, callback)[0], weights[0])


@every_callback
def test_the_number_of_timesteps_changes(name, make):
    found = []
    for given in [[make(name)], []][: 1 + (name in OBSERVERS)]:
        model = recurrent(timesteps=None)
        batches = (
            (np.resize(X, (2, timesteps, 2)), Y[:2]) for timesteps in itertools.cycle([4, 3, 6])
        )
        model.fit(batches, steps_per_epoch=3, callbacks=given, shuffle=False, verbose=0)
        found.append(model.get_weights())
    assert all(np.all(np.isfinite(w)) for w in found[0])
    assert_equal(found[0], found[-1])


@every_callback
def test_a_stateful_model(name, make):
    found = []
    for given in [[make(name)], []][: 1 + (name in OBSERVERS)]:
        model = recurrent(stateful=True)
        fit(model, *given)
        found.append([*model.get_weights(), *(s.numpy() for s in model.layers[0].states)])
    assert np.any(found[0][-1])
    assert_equal(found[0], found[-1])


@every_callback
def test_mixed_precision(name, make, expected):
    """The loss is scaled by 2¹⁵ there, which no callback may mistake for a part of the gradient."""
    keras.config.set_dtype_policy("mixed_float16")
    try:
        found = fit(recurrent(), make(name))
    finally:
        keras.config.set_dtype_policy("float32")
    assert_equal(found, expected(name), atol=5e-3)


@pytest.mark.parametrize(
    "how", [{"steps_per_execution": 2}, pytest.param({"jit_compile": True}, marks=pytest.mark.slow)]
)
def test_all_together_compiled(how, make, tmp_path):
    found = []
    for arguments in ({"run_eagerly": True}, {"run_eagerly": False, **how}):
        model, given = recurrent(**arguments), [make(name) for name in CALLBACKS]
        model.fit(X, Y, batch_size=2, shuffle=False, verbose=0, callbacks=given)
        found.append(model.get_weights())
    assert_equal(*found, rtol=1e-4, atol=1e-5)


# Attributes.


def seen(model, callback, directory):
    """All that a fit shows: logs, weights, what was recorded and written."""
    epochs = 1 if isinstance(callback, GradientTransform) else 2
    if isinstance(model.layers[0], kbptt.SimpleRNN):
        model.layers[0].truncation = T  # for AdaptiveTruncation to change
    history = model.fit(
        X, Y, batch_size=2, epochs=epochs, shuffle=False, verbose=0, callbacks=[callback]
    ).history
    logs = {f"log {key}": np.array(value) for key, value in history.items()}
    accumulator = EventAccumulator(str(directory), size_guidance={"tensors": 0})
    if directory.exists():
        accumulator.Reload()
        for tag in accumulator.Tags()["tensors"]:
            events = accumulator.Tensors(tag)
            logs[tag] = [(e.step, tensor_util.make_ndarray(e.tensor_proto)) for e in events]
    return {**logs, "weights": model.get_weights(), "records": recorded(callback)}


def recorded(callback):
    if isinstance(callback, GradientTransform):
        callback.save_own_variables(memory := {})
        return memory
    history = getattr(callback, "history", None)
    return dict(history) if isinstance(history, dict) else {}


def differences(a, b):
    """The keys whose values differ."""

    def same(key):
        try:
            keras.tree.map_structure(
                lambda u, v: np.testing.assert_allclose(u, v, rtol=1e-4, atol=1e-6), a[key], b[key]
            )
        except (AssertionError, ValueError, KeyError):
            return False
        return True

    return [key for key in {**a, **b} if not same(key)]


def is_transform(name):
    return issubclass(getattr(callbacks, name, Scale), GradientTransform)


def stages(name, directory, settings, **compile_arguments):
    """What is seen of a fit, and of one after each `(attribute, value)`; None sets nothing."""
    build = dense if is_transform(name) else recurrent
    model, callback = build(**compile_arguments), CALLBACKS[name][0](directory)
    found = [seen(model, callback, directory)]
    for setting in settings:
        if setting is not None:
            setattr(callback, *setting)
        found.append(seen(model, callback, directory))
    return found


@every_callback
def test_an_attribute_set_after_a_fit_takes_effect_in_the_next(name, tmp_path):
    settings = [(key, value) for key, (value, _) in CALLBACKS[name][1].items()]
    *_, unchanged = stages(name, tmp_path / "unchanged", [None], run_eagerly=True)
    for key, value in settings:
        *_, changed = stages(name, tmp_path / key, [(key, value)], run_eagerly=True)
        assert differences(changed, unchanged), f"{key} = {value} changes nothing"
    if is_transform(name):  # else nothing of it is compiled
        eager = stages(name, tmp_path / "eager", settings, run_eagerly=True)
        compiled = stages(name, tmp_path / "compiled", settings)
        for number, (a, b) in enumerate(zip(compiled, eager, strict=True)):
            assert not differences(a, b), f"compiled, after {settings[:number]}"


@every_callback
def test_what_is_set_is_checked(name, make):
    callback = make(name)
    for key, (value, refused) in CALLBACKS[name][1].items():
        if refused is not ...:
            before = callback.get_config()
            with pytest.raises(ValueError, match=f"`{key}`. Expected"):
                setattr(callback, key, refused)
            assert callback.get_config() == before
        setattr(callback, key, value)


@every_callback
def test_every_other_attribute_is_fixed(name, make):
    callback = make(name)
    classes = [vars(cls) for cls in type(callback).__mro__ if cls is not keras.callbacks.Callback]
    descriptors = {k for c in classes for k, v in c.items() if hasattr(type(v), "__set__")}
    public = {k for k in descriptors | set(vars(callback)) if not k.startswith("_")}
    public -= {"params", *CALLBACKS[name][1], *SHARED, *MEMORY_ONLY, *ALIASES.get(name, [])}
    for attribute in public:
        with pytest.raises(AttributeError, match=attribute):
            setattr(callback, attribute, 1.0)
