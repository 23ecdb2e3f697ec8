"""`kbptt train text` and `train csv` on streams, and `--windows`."""

import json
import re
from pathlib import Path

import keras
import numpy as np
import pytest
from command_line import kbptt, refused

from kbptt import tasks

pytestmark = pytest.mark.usefixtures("working_directory")
TEXT = ["train", "text", "book.txt", "--length", 10, "--units", 4, "--batch-size", 4]
TEXT += ["--sample", 0, "-o", "sizes=[30,3,3]"]
CSV = ["train", "csv", "f.csv", "--length", 8, "--units", 2, "--epochs", 1, "--batch-size", 4]


@pytest.fixture(autouse=True)
def files(working_directory):
    (working_directory / "book.txt").write_text("the cat sat on the mat. " * 60)
    rows = "".join(f"{i % 7},{i % 5 * 10}\n" for i in range(300))
    (working_directory / "f.csv").write_text("load,price\n" + rows)


def shown(*arguments):
    result = kbptt(*arguments)
    assert result.exit_code == 0, result.output
    return " ".join(result.stdout.split())


def weights(directory):
    return keras.models.load_model(f"{directory}/model.keras").get_weights()


def test_a_text_is_read_as_a_stream_unless_windows_are_asked_for():
    text = shown(*TEXT, "--epochs", 1, "--logdir", "stream")
    assert "Streams of 4 rows × 10 characters; --windows for independent windows." in text
    assert re.search(r"characters per second [\d,]+", text)
    assert json.loads(Path("stream/run.json").read_text())["stream"] is True
    text = shown(*TEXT, "--epochs", 1, "--windows", "--logdir", "windows")
    assert "Independent windows of 10 characters; --stream to carry the state." in text
    assert json.loads(Path("windows/run.json").read_text())["stream"] is False
    different = map(np.array_equal, weights("stream"), weights("windows"))
    assert not all(different)


def test_a_csv_file_is_read_as_a_stream_and_scored_on_the_rows_of_the_windows():
    baselines = set()
    for mode, expected in (("--stream", "Streams of 4 rows × 8 rows"), ("--windows", "windows of")):
        text = shown(*CSV, mode)
        assert "Forecasts 'price'" in text and expected in text
        assert re.search(r"rows per second [\d,]+", text)
        baselines |= set(re.findall(r"without memory [\d.]+", text))
    assert len(baselines) == 1


def test_other_tasks_have_no_streams():
    digits = ["train", "digits", "--units", 4, "-o", "sizes=[64,32,32]", "--epochs", 1]
    assert "'digits' has no streams" in refused(*digits, "--stream")
    text = shown(*digits)
    assert "windows" not in text and re.search(r"timesteps per second [\d,]+", text)


def test_other_refusals():
    assert "are the same" in refused(*TEXT, "--stream", "-o", "stream=false")
    assert "Expected True or False" in refused(*TEXT, "-o", "stream=3")
    assert "from its end" in refused(*TEXT, "-o", "layer.go_backwards=true")
    compare = ["compare", "--methods", "clip", "--tasks"]
    assert "has no streams" in refused(*compare, "adding", "--stream")
    assert "has no streams" in refused(*compare, "adding", "--set", "stream=true,false")
    Path("short.txt").write_text("abcdefghij" * 3)
    assert "too short" in refused("train", "text", "short.txt", "--length", 10)


def test_a_continued_run_takes_the_steps_of_an_uninterrupted_one():
    options = [*TEXT, "-o", "dropout=0.3", "--clip", 1, "--learning-rate", 0.03]
    shown(*options, "--epochs", 3, "--logdir", "whole")
    shown(*options, "--epochs", 1, "--logdir", "parts")
    text = shown(*options, "--epochs", 3, "--logdir", "parts", "--resume")
    assert "Continuing after epoch 1." in text
    for first, second in zip(weights("whole"), weights("parts"), strict=True):
        np.testing.assert_array_equal(first, second)


def test_a_run_from_before_there_were_streams_goes_on_with_windows():
    shown(*TEXT, "--epochs", 1, "--windows", "--logdir", "run")
    known = json.loads(Path("run/run.json").read_text())
    del known["stream"]
    Path("run/run.json").write_text(json.dumps(known))
    again = [*TEXT, "--epochs", 2, "--logdir", "run", "--resume"]
    message = refused(*again)
    assert "stream was False and is now True" in message and "--windows" in message
    assert "Continuing after epoch 1." in shown(*again, "--windows")


def test_the_rate_counts_the_steps_of_the_text_and_not_of_the_windows(monkeypatch):
    """Steps that take a second each, of 300 characters in 8 windows of 4 rows × 10."""
    from kbptt.cli import terminal, watching

    class Trained:
        task = tasks.get("text", path="book.txt", length=10, sizes=(30, 3, 3))

        class feed:
            steps_per_epoch, timesteps = 8, 300

    clock = iter(range(100))
    monkeypatch.setattr(watching.time, "perf_counter", lambda: next(clock))
    monkeypatch.setattr(terminal, "say", lambda line: None)
    console = watching.rich.console.Console(quiet=True)
    with watching.Progressed(console, Trained, epochs=1) as progress:
        progress.on_epoch_begin(0)
        for batch in range(8):
            progress.on_train_batch_begin(batch)
            progress.on_train_batch_end(batch, {"loss": 1.0})
            expected = "38 characters/s" if batch else ""  # the first one compiles
            assert progress.bar.tasks[0].fields["rate"] == expected
