"""How far back the losses reach: measured by lag wherever there is one at every timestep."""

import re

import keras
import numpy as np
import pytest
from typer.testing import CliRunner

import kbptt
from kbptt import tasks, truncation
from kbptt.ablation import monitor
from kbptt.analysis import gradient_flow, lags, reach
from kbptt.cli.main import app


@pytest.mark.parametrize("beta", [0.5, 0.9, 1.0])
@pytest.mark.parametrize("policy", [None, 8, "artbp", {"length": 8, "stride": 2}, 100])
def test_reach_of_geometric_gradients_by_enumeration(beta, policy):
    """Of every loss of many windows, how much of its gradient lies at which lag."""
    chosen = truncation.get(policy)
    norms = beta ** np.arange(64)
    length, stride = (chosen.length, chosen.stride) if chosen.length else (64, 64)
    amounts = np.zeros(64)
    for loss in range(stride):  # before the end of a window
        reached = min(64, length - loss if chosen.length else 64)
        amounts[:reached] += norms[:reached]
    expected = int(np.argmax(np.cumsum(amounts) >= 0.9 * amounts.sum())) + 1
    found = reach.statistics(norms, chosen)
    assert found["horizon"] == expected
    assert found["horizon"] <= length
    assert found["decay"] == pytest.approx(beta)


def test_a_window_as_long_as_the_sequence_cuts_nothing():
    norms = 0.99 ** np.arange(64)
    for length in (64, 100):
        found = reach.statistics(norms, truncation.get(length), timesteps=64)
        assert found == reach.statistics(norms)


def test_nothing_measured_has_no_statistics():
    found = reach.statistics([], truncation.get(8))
    assert np.isnan([found["decay"], found["horizon"]]).all()
    found = reach.statistics(np.full(4, np.nan))
    assert np.isnan([found["decay"], found["horizon"]]).all()


def run(*arguments):
    result = CliRunner().invoke(app, list(map(str, arguments)), env={"COLUMNS": "120"})
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.mark.parametrize(
    "task", ["text", *(pytest.param(t, marks=pytest.mark.slow) for t in ("csv", "copy_memory"))]
)
def test_train_prints_no_reach_beyond_the_truncation(task, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text").write_text("".join(chr(97 + i * i % 17) for i in range(1500)))
    (tmp_path / "csv").write_text("a,b\n" + "".join(f"{i % 7},{i % 5}\n" for i in range(600)))
    options = {
        "text": ["text", "--length", 60],
        "csv": ["csv", "--length", 60],
        "copy_memory": ["-o", "lag=40"],
    }[task]
    common = ["--units", 5, "--cell", "SimpleRNN", "--layers", 2, "--epochs", 1, "--sample", 0]
    shown = run("train", task, *options, *common, "-o", "sizes=[16,8,8]", "--truncation", 6)
    found = re.findall(r"90 % of it within \(\w+\) +the last (\d+) of (\d+) timesteps up to", shown)
    assert len(found) == 2  # one of each layer
    assert all(int(within) <= int(of) == 6 for within, of in found)
    # Of the total derivative, 90 % of the sum lie in nearly all timesteps.
    model = keras.models.load_model(f"runs/{task}-1/model.keras")
    chosen = {"lag": 40} if task == "copy_memory" else {"path": task, "length": 60}
    data = tasks.get(task, sizes=[16, 8, 8], **chosen).data(0)
    model.fit(*data.train, verbose=0)
    assert gradient_flow.horizon(model.layers[-2].gradient_norms) > 40


def test_train_measures_the_last_loss_of_other_tasks_as_before(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shown = run(*("train", "digits", "--units", 4, "-o", "sizes=[32,16,16]", "--epochs", 1))
    assert re.search(r"90 % of it within \(lstm_1\) +the last \d+ of 64 timesteps\s", shown)


def fitted(task, epochs, learning_rate=1e-3, **model):
    """What a trial of compare records, and its model."""
    built = tasks.build_model(task, units=5, cell="SimpleRNN", **model)
    built.compile(keras.optimizers.SGD(learning_rate), task.loss(), metrics=task.metrics())
    data = task.data(0)
    few = tuple(part[: reach.SEQUENCES] for part in data.validation)
    flow = kbptt.callbacks.GradientFlow("run", 1, None, **reach.measured(task, few, epochs))
    watch = monitor.Monitor(task, {"epochs": epochs}, 2, data.train[0].size, flow)
    built.fit(
        *data.train,
        batch_size=16,
        epochs=epochs,
        validation_data=data.validation,
        callbacks=[flow, watch],
        verbose=0,
    )
    return watch.result(), built


def test_compare_records_decay_and_reach_by_lag(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    task = tasks.get("copy_memory", lag=30, items=3, sizes=(32, 16, 16))
    result, model = fitted(task, 2, truncation=7)
    layer = result["gradient"]["simple_rnn_1"]
    x, y = task.data(0).validation
    profile = lags.lag_profile(model, x[: reach.SEQUENCES], y[: reach.SEQUENCES])
    expected = reach.statistics(profile.norms, model.layers[-2].truncation)
    assert layer["statistics_end"] == pytest.approx(expected, rel=1e-4)
    assert layer["statistics_start"] != pytest.approx(expected, rel=1e-4)
    assert layer["statistics_start"]["horizon"] <= 7


def test_a_training_that_diverges_has_no_reach_at_its_end(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    task = tasks.get("copy_memory", lag=10, items=2, sizes=(32, 16, 16))
    result, _ = fitted(task, 3, learning_rate=float("inf"))
    layer = result["gradient"]["simple_rnn_1"]
    assert result["status"] == "diverged" and np.isfinite(layer["statistics_start"]["decay"])
    assert np.isnan(layer["statistics_end"]["decay"])
