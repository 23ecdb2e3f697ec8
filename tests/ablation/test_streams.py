"""Streams as an option of a trial: an axis, refused where it does not apply, not in old keys."""

import math
import re

import keras
import numpy as np
import pytest

import kbptt
from kbptt.ablation import labels, trial
from kbptt.ablation.grid import Grid
from kbptt.ablation.rows import trial_key
from kbptt.ablation.training import Training

SMALL = {"units": 4, "length": 10, "sizes": [30, 3, 3], "epochs": 2, "batch_size": 4}


@pytest.fixture
def book(tmp_path):
    path = tmp_path / "book.txt"
    path.write_text("the cat sat on the mat. " * 60)
    return path


@pytest.fixture
def grid(book):
    """A function from options to a grid over a text."""

    def make(method="baseline", **options):
        return Grid.make("text", method, 1, path=book, **{**SMALL, **options})

    return make


def test_stream_is_an_axis_and_shown_where_it_varies(grid):
    configs = [one.config for one in grid(set={"stream": [True, False]}).trials()]
    label_arm, _ = labels.labels(configs)
    assert [label_arm(config)[0] for config in configs] == [
        "baseline [stream=true]",
        "baseline [stream=false]",
    ]
    for stream in (True, False):
        (config,) = (one.config for one in grid(stream=stream).trials())
        assert labels.labels([config])[0](config) == ("baseline", "")


def test_windows_have_the_key_that_they_had(grid):
    """So that a ledger from before there were streams is read, and extended by the axis."""
    before, explicit = grid().trials(), grid(stream=False).trials()
    assert "stream" not in before[0].config["training"]
    assert before == explicit
    both = [trial_key(one.config) for one in grid(set={"stream": [True, False]}).trials()]
    assert both[1] == before[0].key != both[0]


def test_auto_is_streams_where_there_are_some(book):
    grid = Grid.make("text,copy_memory", "clip", 1, set={"text.path": book}, stream="auto")
    assert [one.config["training"].get("stream") for one in grid.trials()] == [True, None]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"stream": True}, "'adding' has no streams.*`--windows`, stream=false.*stream=auto"),
        ({"set": {"stream": [False, True]}}, "'adding' has no streams"),
        ({"stream": 1}, "`stream`. Expected True or False"),
        ({"stream": "yes"}, "`stream`. Expected True or False"),
    ],
)
def test_what_is_refused_before_training(options, message):
    with pytest.raises(ValueError, match=message):
        Grid.make("adding", "baseline", 1, **options)


@pytest.mark.parametrize("options", [{"layer.go_backwards": True}, {"method": "backwards"}])
def test_a_model_that_cannot_carry_its_state_on_is_refused_before_training(
    grid, options, monkeypatch
):
    from kbptt import methods

    path = f"{__name__}:of_keras"
    monkeypatch.setattr(methods, "find", {path: of_keras}.get)
    backwards = methods.Method("backwards", model=(methods.ref(path),))
    monkeypatch.setitem(methods.registered, "backwards", backwards)
    message = "lstm_1' reads a window from its end" if "method" not in options else "of Keras's"
    for stream in (True, False):
        (one,) = grid(stream=stream, **options).trials()
        if stream:
            with pytest.raises(ValueError, match=message):
                trial.build(one.config)
        else:
            trial.build(one.config)


class of_keras:
    """As a method's change of the model: a layer of Keras in the place of kbptt's."""

    def __call__(self, model):
        x = keras.layers.LSTM(3, return_sequences=True)(model.inputs[0][..., None] * 1.0)
        return keras.Model(model.inputs, model.layers[-1](model.layers[-2](x)))


def test_a_trial_on_streams(grid, tmp_path):
    (one,) = grid("clip", stream=True).trials()
    training = Training(one.config)
    training.fit(tmp_path / "run", heatmap_freq=None)
    result = training.result()
    assert result["status"] == "ok" and len(result["curve"]["loss"]) == 2
    # 300 characters in 4 rows, 10 at a time, the first window of a row only a part.
    assert training.feed.steps_per_epoch == 8 and result["cost"]["steps"] == 16
    assert result["cost"]["timesteps_per_second"] > 0
    assert result["clipping"]["clip_by_global_norm"]["clip_rate"] >= 0
    # The weights of the best epoch, on the test part in one pass.
    test = training.task.streams(0).test
    found = kbptt.evaluate_stream(training.model, test)
    assert result["test"] == found and result["score"] == found["bits"]
    assert found["loss"] == pytest.approx(found["bits"] * math.log(2), rel=1e-5)
    # Gradients by lag were measured on the first windows of the validation part.
    x, y = training.feed.validation_windows(4)
    windows, answers = training.task.data(0).validation
    np.testing.assert_array_equal(x, windows[:4])
    np.testing.assert_array_equal(y, answers[:4])
    assert result["gradient"]["lstm_1"]["statistics_end"]["horizon"] >= 1


def test_streams_and_windows_are_described(grid):
    def described(**options):
        return Training(grid(**options).trials()[0].config).feed.describe()

    assert described() == "independent windows of 10 characters"
    assert described(stream=True) == "streams of 4 rows × 10 characters"
    few = described(stream=True, batch_size=64)
    assert re.fullmatch(
        r"streams of 15 rows × 10 .*\(64 rows would each have fewer than two .*\)", few
    )


def test_streams_need_no_memory_for_windows(grid, monkeypatch):
    monkeypatch.setattr("distributed.system.MEMORY_LIMIT", 4_000)
    options = {"units": 1, "sizes": [100, 10, 10], "cell": "SimpleRNN"}
    with pytest.raises(ValueError, match="Not enough memory for the data"):
        trial.build(grid(**options, batch_size=1).trials()[0].config)
    trial.build(grid(**options, batch_size=1, stream=True).trials()[0].config)
