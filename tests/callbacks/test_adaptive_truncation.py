"""AdaptiveTruncation sets the length that `kbptt.analysis` estimates, and training uses it."""

import keras
import numpy as np
import pytest
from tensorboard.backend.event_processing import event_accumulator

import kbptt
from kbptt.analysis import adaptive, lags
from kbptt.callbacks import AdaptiveTruncation, ClipByGlobalNorm, GradientFlow
from kbptt.engine import using
from kbptt.layers import find

T = 8
RNG = np.random.default_rng(0)
X = RNG.normal(size=(6, T, 2)).astype("float32")
Y = np.cumsum(X.sum(axis=-1, keepdims=True), axis=1)


# Re-emitted by `pytest.warns` as if it were ours: Keras reading TensorFlow's eager tensors.
eager_tensors = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


@pytest.fixture(autouse=True)
def without_xla():
    """Compiling takes longer than these tests, and changes no number."""
    with using(jit=False):
        yield


def build(truncation=None, layers=1, eager=True, dtype="float32", **compiled):
    keras.utils.set_random_seed(1)
    arguments = {"return_sequences": True, "truncation": truncation, "dtype": dtype}
    stack = [kbptt.SimpleRNN(3, name=f"rnn_{i}", **arguments) for i in range(layers)]
    model = keras.Sequential([keras.Input((T, 2)), *stack, keras.layers.Dense(1, dtype=dtype)])
    optimizer = keras.optimizers.SGD(0.01)
    if dtype == "mixed_float16":
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer, initial_scale=64.0)
    model.compile(optimizer, "mse", run_eagerly=eager, **compiled)
    return model


def make(**arguments):
    arguments = {"tolerance": 0.3, "minimum": 2, "maximum": 8, "data": (X, Y), **arguments}
    return AdaptiveTruncation(**arguments)


def fit(model, *callbacks, epochs=1, **arguments):
    return model.fit(
        X,
        Y,
        batch_size=3,
        epochs=epochs,
        verbose=0,
        shuffle=False,
        callbacks=callbacks,
        **arguments,
    )


def fixed_estimates(monkeypatch, *lengths):
    """Has the estimates come out as `lengths`, one after the other, then the last one."""
    remaining = list(lengths)

    def estimate_window(norms, truncated, *args, **kwargs):
        length = remaining.pop(0) if len(remaining) > 1 else remaining[0]
        return adaptive.WindowEstimate(length, 0.5, 0.1, np.full(len(norms), 0.1))

    monkeypatch.setattr(adaptive, "estimate_window", estimate_window)


def test_sets_the_estimated_length_after_the_warmup():
    model, adapt = build(truncation=3), make()
    (layer,) = find.truncated_layers(model)
    fit(model, adapt)
    assert layer.truncation.length == 3 and adapt.history["truncation"] == []
    profile = lags.lag_profile(model, X, Y, 8)
    estimate = profile.estimate(0.3, minimum=2)
    fit(model, adapt)
    length = adaptive.round_up(estimate.length, adaptive.length_grid(2, 8))
    assert layer.truncation == kbptt.truncation.Windowed(length)
    assert adapt.history["truncation"] == [length] and adapt.history["step"] == [2]
    assert adapt.history["rnn_0/lag_decay"] == [estimate.beta]
    assert adapt.history["rnn_0/relative_bias"] == [estimate.biases[length - 1]]


@pytest.mark.parametrize(
    ("how", "clip"),
    [
        ({}, False),
        ({}, True),
        ({"steps_per_execution": 2}, False),
        ({"steps_per_execution": 2}, True),
        pytest.param({"jit_compile": True}, False, marks=pytest.mark.slow),
        pytest.param({"jit_compile": True}, True, marks=pytest.mark.slow),
        ({"dtype": "mixed_float16"}, True),
    ],
    ids=str,
)
def test_the_next_step_has_the_new_length(monkeypatch, how, clip):
    """Equal to a model that had these lengths from the start of each epoch."""
    fixed_estimates(monkeypatch, 2, 4, 4)  # 4 is rounded up to 5
    model = build(eager=False, **how)
    adapt = make()
    clips = [ClipByGlobalNorm(0.5)] if clip else []
    history = fit(model, adapt, *clips, epochs=4)
    assert adapt.history["truncation"] == [2, 5, 5]
    assert history.history["truncation"] == [np.inf, 2, 5, 5]
    # Once more by hand: each epoch a new model with the weights of the one before.
    dtype = how.get("dtype", "float32")
    weights = build(dtype=dtype).get_weights()
    for truncation in (None, 2, 5, 5):
        other = build(truncation, dtype=dtype)
        other.set_weights(weights)
        fit(other, *([ClipByGlobalNorm(0.5)] if clip else []))
        weights = other.get_weights()
    for a, b in zip(model.get_weights(), weights, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)


def test_half_precision_gives_the_same_estimate():
    """The loss scale is in no norm, and small gradients are not lost without it."""
    histories = []
    for dtype in ("float32", "mixed_float16"):
        adapt = make(warmup=0)
        fit(build(dtype=dtype), adapt)
        histories.append(adapt.history)
    assert histories[1]["truncation"] == histories[0]["truncation"]
    for name in ("rnn_0/lag_decay", "rnn_0/relative_bias"):
        np.testing.assert_allclose(histories[1][name], histories[0][name], rtol=1e-2)


def test_compiles_again_only_when_the_length_changes(monkeypatch):
    fixed_estimates(monkeypatch, 2, 3)
    model, adapt = build(truncation=2, eager=False), make()
    forced = []
    original = model.make_train_function

    def make_train_function(force=False):
        forced.append(force)
        original(force)

    monkeypatch.setattr(model, "make_train_function", make_train_function)
    fit(model, adapt, epochs=4)
    assert forced.count(True) == 1
    assert adapt.history["truncation"] == [2, 3, 3]


def test_every_other_epoch_and_from_the_first(monkeypatch):
    fixed_estimates(monkeypatch, 2)
    adapt = make(freq=2, warmup=0)
    model = build(truncation=2)
    fit(model, adapt, epochs=3)
    fit(model, adapt, epochs=2)  # goes on counting
    assert adapt.history["step"] == [0, 4, 8]


def test_of_several_layers_the_longest_counts(monkeypatch):
    fixed_estimates(monkeypatch, 2, 5)
    model, adapt = build(layers=2), make(warmup=0)
    fit(model, adapt)
    assert [one.truncation.length for one in find.truncated_layers(model)] == [5, 5]


def test_overlap_reaches_the_length_from_every_loss(monkeypatch):
    fixed_estimates(monkeypatch, 3)
    model = build()
    fit(model, make(warmup=0, overlap=True))
    (layer,) = find.truncated_layers(model)
    assert layer.truncation == kbptt.truncation.Windowed(5, stride=3)


def test_scales_the_learning_rate(monkeypatch):
    fixed_estimates(monkeypatch, 2, 8, 2)
    model, adapt = build(truncation=2), make(scale_learning_rate=True, warmup=0)
    rates = []
    record = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: rates.append(float(model.optimizer.learning_rate.value))
    )
    fit(model, adapt, record, epochs=3)
    np.testing.assert_allclose(rates, [0.01, 0.02, 0.01], rtol=1e-6)
    schedule = keras.optimizers.schedules.ExponentialDecay(0.1, 10, 0.9)
    model.compile(keras.optimizers.SGD(schedule), "mse")
    with pytest.raises(ValueError, match="needs a learning rate that is a number"):
        fit(model, adapt)


def test_writes_what_history_holds(tmp_path):
    model = build(truncation=3)
    adapt = make(log_dir=tmp_path)
    flow = GradientFlow(tmp_path, heatmap_freq=None)
    fit(model, adapt, flow, epochs=3)
    profiles = flow.history["rnn_0"][1]
    accumulator = event_accumulator.EventAccumulator(str(tmp_path), size_guidance={"tensors": 0})
    accumulator.Reload()
    for name in ("truncation", "lag_decay", "relative_bias"):
        events = accumulator.Tensors(f"gradient_flow_stats/rnn_0/{name}")
        assert [e.step for e in events] == adapt.history["step"] == [2, 4]
        key = name if name == "truncation" else f"rnn_0/{name}"
        values = [e.tensor_proto.float_val[0] for e in events]
        np.testing.assert_allclose(values, adapt.history[key], rtol=1e-6)
    # Measuring does not show in what GradientFlow records.
    other, plain = build(truncation=3), GradientFlow(tmp_path / "plain", heatmap_freq=None)
    fit(other, plain)
    np.testing.assert_array_equal(plain.history["rnn_0"][1][0], profiles[0])


def test_after_an_exception_and_with_another_model(monkeypatch):
    fixed_estimates(monkeypatch, 2)
    model, adapt = build(), make()

    def fail(batch, logs):
        raise RuntimeError("stop")

    fit(model, adapt)
    with pytest.raises(RuntimeError, match="stop"):
        fit(model, adapt, keras.callbacks.LambdaCallback(on_train_batch_end=fail))
    (layer,) = find.truncated_layers(model)
    assert layer.truncation.length == 2
    norms = layer.gradient_norms
    fit(model, adapt)
    assert np.any(layer.gradient_norms != norms)  # they are recorded again
    assert len(adapt.history["step"]) == 2
    model.compile(keras.optimizers.SGD(0.01), "mse")  # the iterations start again
    fit(model, adapt)
    assert np.all(np.diff(adapt.history["step"]) >= 0)
    other = build()
    fit(other, adapt)
    assert adapt.history["step"] == [] and find.truncated_layers(other)[0].truncation.length is None


@eager_tensors
def test_does_not_change_the_windows_without_a_gradient_to_measure():
    for data, problem in [((X * np.nan, Y), "not finite"), ((X, Y, np.zeros((6, T))), "all zero")]:
        model, adapt = build(truncation=3), make(data=data, warmup=0)
        with pytest.warns(UserWarning, match=f"does not change the windows: .* {problem}"):
            fit(model, adapt)
        assert find.truncated_layers(model)[0].truncation.length == 3
        assert adapt.history["truncation"] == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"tolerance": 0}, "`tolerance`"),
        ({"minimum": 9}, "`maximum`. Expected at least `minimum`"),
        ({"minimum": 1, "maximum": 1}, "`maximum`. Expected at least 2"),
        ({"data": None}, r"`data`. Expected \(x, y\)"),
        ({"freq": 0}, "`freq`"),
        ({"warmup": -1}, "`warmup`"),
        ({"method": "mean"}, "`method`"),
        ({"log_dir": 3}, "`log_dir`"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        make(**arguments)


def test_a_model_without_kbptt_layers_is_told():
    model = keras.Sequential(
        [keras.Input((T, 2)), keras.layers.GRU(2, return_sequences=True), keras.layers.Dense(1)]
    )
    model.compile("sgd", "mse")
    with pytest.raises(ValueError, match="no recurrent kbptt layer"):
        fit(model, make(warmup=0))
