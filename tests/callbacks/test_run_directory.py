"""Callbacks that are given one directory write to one directory, also when it is taken."""

import itertools
import subprocess
import sys
import warnings

import keras
import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import kbptt
from kbptt.callbacks import AdaptiveTruncation, GradientFlow, SpectralMonitor

TIMESTEPS = 4
X = np.random.default_rng(0).normal(size=(6, TIMESTEPS, 2)).astype("float32")
Y = np.ones((6, TIMESTEPS, 1), "float32")
# What only this callback writes.
TAGS = {
    GradientFlow: "gradient_flow/rnn/dL_dh",
    SpectralMonitor: "gradient_flow_stats/rnn/spectral_radius",
    AdaptiveTruncation: "gradient_flow_stats/rnn/truncation",
}
ORDERS = list(itertools.permutations(TAGS))


def build():
    keras.utils.set_random_seed(0)
    layer = kbptt.SimpleRNN(2, return_sequences=True, name="rnn")
    model = keras.Sequential([keras.Input((TIMESTEPS, 2)), layer, keras.layers.Dense(1)])
    model.compile("sgd", "mse", run_eagerly=True)
    return model


def make(cls, log_dir):
    if cls is GradientFlow:
        return GradientFlow(log_dir, heatmap_freq=None)
    if cls is AdaptiveTruncation:
        return AdaptiveTruncation(minimum=1, maximum=2, data=(X, Y), warmup=0, log_dir=log_dir)
    return SpectralMonitor(log_dir)


def fit(model, *callbacks, about="kbptt writes to", epochs=1):
    """Returns the warnings of kbptt."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model.fit(X, Y, batch_size=2, epochs=epochs, verbose=0, callbacks=list(callbacks))
    return [str(w.message) for w in caught if about in str(w.message)]


def steps(log_dir, cls):
    events = EventAccumulator(str(log_dir), size_guidance={"tensors": 0})
    events.Reload()
    tag = TAGS[cls]
    return [e.step for e in events.Tensors(tag)] if tag in events.Tags()["tensors"] else []


@pytest.mark.parametrize("order", ORDERS, ids=lambda order: "-".join(c.__name__ for c in order))
def test_all_follow_to_the_numbered_directory(tmp_path, order):
    run, other = tmp_path / "run", tmp_path / "run_2"
    first, second = ([make(cls, run) for cls in order] for _ in range(2))
    assert fit(build(), *first) == []
    model = build()
    (warning,) = fit(model, *second)
    assert "run_2" in warning and "contains the profiles of a different run" in warning
    assert {c.log_dir for c in first} == {str(run)} and {c.log_dir for c in second} == {str(other)}
    # The same callbacks, new ones, and after a new compile(): the model's run goes on.
    assert fit(model, *second) == []
    new = [make(cls, run) for cls in order]
    assert fit(model, *new) == []
    assert {c.log_dir for c in new} == {str(other)}
    assert steps(run, GradientFlow) == [3] and steps(other, GradientFlow) == [3, 6, 9]
    assert steps(run, SpectralMonitor) == [0, 3] and steps(run, AdaptiveTruncation) == [0]
    assert steps(other, AdaptiveTruncation) == [0, 3, 6]
    assert sorted(set(steps(other, SpectralMonitor))) == [0, 3, 6, 9]


@pytest.mark.parametrize("order", ORDERS, ids=lambda order: "-".join(c.__name__ for c in order))
def test_after_a_new_compile_the_run_of_the_same_callbacks_goes_on(tmp_path, order):
    model, callbacks = build(), [make(cls, tmp_path / "run") for cls in order]
    fit(model, *callbacks)
    model.compile("sgd", "mse", run_eagerly=True)  # restarts the iterations
    assert fit(model, *callbacks) == []
    assert {c.log_dir for c in callbacks} == {str(tmp_path / "run")}
    assert steps(tmp_path / "run", GradientFlow) == [3, 6]
    # New callbacks after a new compile(): a new run.
    model.compile("sgd", "mse", run_eagerly=True)
    new = [make(cls, tmp_path / "run") for cls in order]
    assert len(fit(model, *new)) == 1
    assert {c.log_dir for c in new} == {str(tmp_path / "run_2")}


@pytest.mark.parametrize("cls", [SpectralMonitor, AdaptiveTruncation])
def test_one_callback_alone_leaves_another_run_as_it_is(tmp_path, cls):
    fit(build(), make(GradientFlow, tmp_path / "run"))
    callback = make(cls, tmp_path / "run")
    assert len(fit(build(), callback)) == 1
    assert callback.log_dir == str(tmp_path / "run_2")
    assert steps(tmp_path / "run", cls) == [] and steps(tmp_path / "run_2", cls)
    again = cls.from_config(callback.get_config())
    assert again.log_dir == str(tmp_path / "run")  # what was given


def test_other_spellings_are_the_same_directory_and_others_are_others(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    fit(build(), make(GradientFlow, "run"))
    flow, same = make(GradientFlow, tmp_path / "run"), make(SpectralMonitor, "./run/")
    other = make(AdaptiveTruncation, "other")
    fit(build(), same, other, flow)
    assert flow.log_dir == same.log_dir and flow.log_dir.endswith("run_2")
    assert other.log_dir == "other"


@pytest.mark.skipif(sys.platform != "linux", reason="no /proc")
@pytest.mark.parametrize("cls", TAGS)
def test_a_directory_that_cannot_be_written_ends_logging_with_one_warning_not_training(cls):
    model, callback = build(), make(cls, "/proc/kbptt")
    (warning,) = fit(model, callback, about="stops logging", epochs=2)
    assert warning.startswith(f"{cls.__name__} stops logging; training continues.")
    assert int(model.optimizer.iterations) == 6
    series = callback.history["rnn"][0] if cls is GradientFlow else callback.history["step"]
    assert len(series) == {GradientFlow: 2, SpectralMonitor: 3, AdaptiveTruncation: 2}[cls]


@pytest.mark.skipif(sys.platform == "win32", reason="no fcntl")
def test_the_directory_is_claimed_until_the_last_callback_ends(tmp_path):
    code = (
        "import sys; from kbptt.callbacks._run_directory import Claim\n"
        "for _ in sys.stdin:\n"
        "    claim = Claim(sys.argv[1]); print(claim.acquire(), flush=True); claim.release()"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    other = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    claimed = []

    def try_to_claim(*_, **__):
        other.stdin.write("try\n")
        other.stdin.flush()
        claimed.append(other.stdout.readline().strip())

    class Claimer(keras.callbacks.Callback):
        on_train_batch_begin = on_train_end = staticmethod(try_to_claim)

    monitor, flow = make(SpectralMonitor, tmp_path), make(GradientFlow, tmp_path)
    model = build()
    model.fit(X, Y, batch_size=6, verbose=0, callbacks=[monitor, flow, Claimer()])
    model.fit(X, Y, batch_size=6, verbose=0, callbacks=[flow, Claimer(), monitor])
    other.communicate()
    assert claimed == ["False", "True", "False", "False"]
