"""`StreamState` however Keras runs a step, beside validation, and after the process was killed."""

import json
import os
import pathlib
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import keras
import numpy as np
import pytest
from stream_loop import build, sequences

import kbptt
from kbptt.callbacks import (
    AutoClip,
    ClipByGlobalNorm,
    GradientFlow,
    GradientNormPenalty,
    StreamState,
)
from kbptt.data import Streams

HERE = pathlib.Path(__file__).parent

pytestmark = pytest.mark.usefixtures("float64")


def stream(**options):
    x, y = sequences(17, 5, 9, 1, 12, 8)
    return Streams(x, y, **{"target": None, "length": 4, "batch_size": 3, **options})


def train(callbacks=(), epochs=2, data=None, cell="stack", timesteps=None, **compiled):
    data = stream() if data is None else data
    model = build(cell, timesteps)
    model.compile(
        keras.optimizers.Adam(0.01), keras.losses.MeanSquaredError(), metrics=["mae"], **compiled
    )
    state = StreamState(data)
    history = model.fit(data, epochs=epochs, verbose=0, callbacks=[state, *callbacks]).history
    return model.get_weights(), state.states(), history


def assert_same(found, expected, tolerance=0.0):
    for a, b in zip(found[:2], expected[:2], strict=True):
        for one, other in zip(a, b, strict=True):
            np.testing.assert_allclose(one, other, rtol=tolerance, atol=tolerance)
    for name in ("loss", "mae"):
        np.testing.assert_allclose(found[2][name], expected[2][name], rtol=max(tolerance, 1e-15))


@pytest.mark.parametrize(
    "how",
    [{"steps_per_execution": 3}, {"steps_per_execution": 7}, {"run_eagerly": True}],
    ids=str,
)
def test_however_the_step_is_run(how):
    assert_same(train(**how), train(), 1e-12)


def test_a_step_that_xla_compiles():
    data = [stream(length=5, context=c) for c in (3, 3)]
    found = train(data=data[0], cell="LSTM", timesteps=8, jit_compile=True)
    assert_same(found, train(data=data[1], cell="LSTM", timesteps=8), 1e-10)


def test_two_devices():
    script = HERE / "stream_on_two_devices.py"
    support = str(HERE.parent / "support")
    path = os.pathsep.join([support, os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, script],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "PYTHONPATH": path},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    result = json.loads(done.stdout.splitlines()[-1])
    one, two = result["one"], result["two"]
    for key in ("weights", "states"):
        for a, b in zip(one[key], two[key], strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12, err_msg=key)
    for key in ("history", "evaluated"):
        assert one[key].keys() == two[key].keys()
        for name, value in one[key].items():
            np.testing.assert_allclose(value, two[key][name], rtol=1e-6, err_msg=name)


class InTheMiddle(keras.callbacks.Callback):
    """Evaluates and predicts in every way after the fourth window of every epoch."""

    def on_train_batch_end(self, batch, logs=None):
        if batch == 3:
            x, y = sequences(11, 7)
            data = Streams(x, y, target=None, length=5, batch_size=2)
            model = self.model
            self.found = [
                kbptt.evaluate_stream(model, data)["loss"],
                *kbptt.predict_stream(model, data),
                model.predict(x[0][None], verbose=0),
                model(x[0][None]),
            ]


def test_validation_and_prediction_change_nothing():
    expected = train()
    in_the_middle = InTheMiddle()
    found = train([in_the_middle])
    assert_same(found, expected)
    np.testing.assert_allclose(in_the_middle.found[1], in_the_middle.found[3][0], rtol=1e-12)

    model, data = build("stack"), stream()
    model.compile(keras.optimizers.Adam(0.01), keras.losses.MeanSquaredError(), metrics=["mae"])
    state, validation = StreamState(data), stream(length=3, batch_size=2, offset=0)
    history = model.fit(
        data, epochs=2, verbose=0, callbacks=[state], validation_data=validation
    ).history
    assert_same((model.get_weights(), state.states(), history), expected)
    # Every sequence from its beginning to its end, over its real steps.
    evaluated = kbptt.evaluate_stream(model, validation)
    for name in ("loss", "mae"):
        np.testing.assert_allclose(history[f"val_{name}"][-1], evaluated[name], rtol=1e-12)
    direct = model.evaluate(data, callbacks=[StreamState(data)], verbose=0, return_dict=True)
    np.testing.assert_allclose(direct["loss"], evaluated["loss"], rtol=1e-12)


def test_beside_every_other_callback(tmp_path):
    """A penalty evaluates the step again; clips and GradientFlow see what they always see."""
    flow = GradientFlow(tmp_path, log_freq=1)
    callbacks = [GradientNormPenalty(1e-3), ClipByGlobalNorm(1e3), flow]
    found = train(callbacks)
    penalty = GradientNormPenalty(1e-3)
    other = train([ClipByGlobalNorm(1e3), penalty], run_eagerly=True)
    assert_same(found, other, 1e-9)
    assert len(flow.history) == 2
    for steps, _ in flow.history.values():
        assert len(steps) == 2 * len(stream())
    plain = train()
    assert np.any(np.abs(found[0][0] - plain[0][0]) > 1e-9)


def test_the_model_is_as_it_was_after_an_exception_or_ctrl_c():
    class Interrupt(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if batch == 4:
                raise KeyboardInterrupt

    model, data = build("LSTM"), stream()
    before = set(vars(model))
    state = StreamState(data)
    with pytest.raises(KeyboardInterrupt):
        model.fit(data, epochs=2, verbose=0, callbacks=[state, Interrupt()])
    assert data.position == 5
    assert not {"compute_loss"} & (set(vars(model)) - before)
    assert all(layer._carry is None for layer in model.layers if hasattr(layer, "_carry"))
    # The next `fit` goes on in the middle of the epoch.
    model.fit(data, epochs=2, verbose=0, callbacks=[state])
    other, again = build("LSTM"), stream()
    other.fit(again, epochs=2, verbose=0, callbacks=[StreamState(again)])
    assert data.position == again.position == 2 * len(data)
    for a, b in zip(model.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_beginning_in_the_middle_of_an_epoch():
    """Rows start from initial states there, whatever was carried before; metrics or none."""
    for metrics in ([], ["mae"], None):
        data, model = stream(), build("LSTM", trainable_initial_state=True)
        model.compile(keras.optimizers.SGD(0.0), "mse", metrics=metrics)
        data.seek(3)
        states = [StreamState(data), StreamState(data)]
        model.fit(data, verbose=0, callbacks=states[:1])
        first = states[0].states()
        assert data.position == len(data)
        data.seek(3)  # another object knows of no states, the same one of those at the end
        for state in reversed(states):
            model.fit(data, verbose=0, callbacks=[state])
            for a, b in zip(state.states(), first, strict=True):
                np.testing.assert_array_equal(a, b)
            data.seek(3)


def test_validation_on_the_training_stream():
    data, again = stream(), stream()
    expected = train(data=data)
    model = build("stack")
    model.compile(keras.optimizers.Adam(0.01), keras.losses.MeanSquaredError(), metrics=["mae"])
    state = StreamState(again)
    history = model.fit(
        again, epochs=2, verbose=0, callbacks=[state], validation_data=again
    ).history
    assert again.position == data.position == 2 * len(data)
    assert_same((model.get_weights(), state.states(), history), expected)


def run(directory, what):
    script = HERE / "train_on_stream.py"
    return subprocess.run(
        [sys.executable, script, directory, what], capture_output=True, text=True, timeout=300
    )


def test_a_run_that_was_killed_goes_on_as_if_nothing_had_happened(tmp_path):
    for name in ("whole", "killed"):
        (tmp_path / name).mkdir()
    whole = run(tmp_path / "whole", "whole")
    assert whole.returncode == 0, whole.stderr[-3000:]
    killed = run(tmp_path / "killed", "killed")
    assert killed.returncode == -signal.SIGKILL, killed.stderr[-3000:]
    assert os.listdir(tmp_path / "killed") == ["state.npz"]
    resumed = run(tmp_path / "killed", "resumed")
    assert resumed.returncode == 0, resumed.stderr[-3000:]
    expected, found = (json.loads(done.stdout.splitlines()[-1]) for done in (whole, resumed))
    windows = expected["windows"]
    assert windows < 17 < 2 * windows and 17 % 3
    for key in ("position", "weights", "states", "left"):
        assert found[key] == expected[key]
    for name, values in expected["history"].items():
        if name in ("loss", "accuracy"):  # of the epoch that was interrupted too
            assert found["history"][name] == values[1:]


def test_a_second_fit_is_not_traced_again_and_goes_on():
    traced = []

    class Counted(keras.Model):
        def train_step(self, batch):
            traced.append(1)
            return super().train_step(batch)

    def made():
        inner = build("LSTM")
        model = Counted(inner.inputs, inner.outputs)
        model.compile(keras.optimizers.Adam(0.01), keras.losses.MeanSquaredError())
        return model

    model, data = made(), stream()
    state, clip = StreamState(data), ClipByGlobalNorm(0.1)
    first, counts = state, []
    for callbacks in ([state], [state], [clip, state], [clip, state]):
        model.fit(data, verbose=0, callbacks=callbacks)
        counts.append(len(traced))
    assert counts[0] == counts[1] < counts[2] == counts[3]
    other, again = made(), stream()
    state = StreamState(again)
    other.fit(again, epochs=2, verbose=0, callbacks=[state])
    other.fit(again, epochs=2, verbose=0, callbacks=[ClipByGlobalNorm(0.1), state])
    assert data.position == again.position == 4 * len(data)
    for a, b in zip(model.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    # What is changed in between is seen.
    before = len(traced)
    model.layers[1].truncation = 1
    model.fit(data, verbose=0, callbacks=[first])
    assert len(traced) > before


def test_dropout_and_metrics_of_training_go_on_beside_every_evaluation():
    """Neither seeds nor the metrics of the running epoch are touched."""

    def fit(callbacks=(), **arguments):
        data = stream()
        model = build("LSTM", dropout=0.3, recurrent_dropout=0.2, seed=5)
        model.compile(keras.optimizers.Adam(0.01), keras.losses.MeanSquaredError(), metrics=["mae"])
        state = StreamState(data)
        history = model.fit(
            data, epochs=2, verbose=0, callbacks=[state, *callbacks], **arguments
        ).history
        return model.get_weights(), state.states(), history

    expected = fit()
    assert_same(fit([InTheMiddle()]), expected)
    assert_same(fit(validation_data=stream(length=3, offset=0)), expected)


def test_threads_that_predict_at_once():
    x, y = sequences(23, 18, 9, 14)
    model = build("stack")
    data = [
        Streams([one], [two], target=None, length=3, batch_size=1)
        for one, two in zip(x, y, strict=True)
    ]
    expected = [kbptt.predict_stream(model, one)[0] for one in data]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(3):
            found = pool.map(lambda one: kbptt.predict_stream(model, one)[0], data)
            for a, b in zip(found, expected, strict=True):
                np.testing.assert_array_equal(a, b)


class StopAt(keras.callbacks.Callback):
    """Raises after that many batches, or when the epoch of that number is validated or ends."""

    def __init__(self, batches=None, validation=None):
        super().__init__()
        self.batches, self.validation, self.epoch = batches, validation, -1

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        if self.batches is not None:
            self.batches -= 1
            if self.batches < 0:
                raise KeyboardInterrupt

    def on_test_begin(self, logs=None):
        if self.validation == self.epoch:
            raise KeyboardInterrupt


@pytest.mark.parametrize("save_freq", [pytest.param("epoch", marks=pytest.mark.slow), 4])
def test_wherever_a_run_is_stopped_it_goes_on(save_freq, tmp_path):
    """By new objects, as in a new process; a kill leaves no more than this exception."""

    def fit(path=None, stop=None, epochs=3):
        data, recorded = stream(), []
        model = build("LSTM", dropout=0.2, seed=5)
        model.compile(keras.optimizers.Adam(0.01), keras.losses.MeanSquaredError(), metrics=["mae"])
        state = StreamState(data, path, save_freq=save_freq)
        # The share of clipped steps in an epoch is counted in Python, from where it goes on.
        log = keras.callbacks.LambdaCallback(
            on_epoch_end=lambda epoch, logs: recorded.append(
                {name: value for name, value in logs.items() if not name.startswith("auto_clip")}
            )
        )
        validation = stream(offset=0)
        try:
            model.fit(
                data, epochs=epochs, verbose=0, validation_data=validation,
                callbacks=[log, state, AutoClip(50), *([] if stop is None else [stop])],
            )  # fmt: skip
        except KeyboardInterrupt:
            assert path.exists()
        return model.get_weights(), state.states(), recorded, data.position

    weights, states, recorded, position = fit()
    windows = len(stream())
    assert windows % 4
    stops = [windows + 1, 2 * windows - 1, 2 * windows, 3 * windows - 1]
    stops = [StopAt(batches) for batches in stops] + [StopAt(validation=n) for n in (1, 2)]
    for number, stop in enumerate(stops):
        path = tmp_path / f"{number}.npz"
        fit(path, stop)
        found = fit(path)
        assert found[3] == position and not path.exists()
        for a, b in zip((*found[0], *found[1]), (*weights, *states), strict=True):
            np.testing.assert_array_equal(a, b)
        # Every epoch that was not over is reported again, validation included.
        assert found[2] == recorded[-len(found[2]) :] and found[2]
    # Started again with fewer epochs than there were: nothing is left but what was restored.
    path, stop = tmp_path / "fewer.npz", StopAt(windows + 1)
    stopped = fit(path, stop)
    found = fit(path, epochs=1)
    assert found[3] == {"epoch": windows, 4: 8}[save_freq] and found[2] == []
    if save_freq == "epoch":
        stopped = fit(epochs=1)
        for a, b in zip(found[0], stopped[0], strict=True):
            np.testing.assert_array_equal(a, b)
    assert np.any(found[0][0] != build("LSTM").get_weights()[0])


def test_initial_epoch_reads_its_own_windows():
    data, again = stream(), stream()
    expected = train(data=data, epochs=3)
    model = build("stack")
    model.compile(keras.optimizers.Adam(0.01), keras.losses.MeanSquaredError(), metrics=["mae"])
    model.fit(again, epochs=2, verbose=0, callbacks=[StreamState(again)])
    later = stream()
    model.fit(later, initial_epoch=2, epochs=3, verbose=0, callbacks=[StreamState(later)])
    assert later.position == 3 * len(later)
    for a, b in zip(model.get_weights(), expected[0], strict=True):
        np.testing.assert_array_equal(a, b)
