"""The programs in scripts/ as a user starts them, made small."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

SCRIPTS = Path(__file__).parent.parent / "scripts"


def script(name, *arguments, cwd):
    return subprocess.run(
        [sys.executable, SCRIPTS / name, *map(str, arguments)],
        cwd=cwd,
        env={**os.environ, "COLUMNS": "80"},
        capture_output=True,
        text=True,
        timeout=500,
    )


@pytest.mark.slow
def test_demo_runs_and_is_shown_again(tmp_path):
    first = script("demo.py", "--epochs", 1, "--seeds", 1, cwd=tmp_path)
    assert (first.returncode, first.stderr) == (0, "")
    assert "5/5 done" in first.stdout
    table = first.stdout[first.stdout.index("SimpleRNN, truncation 128") :]
    for text in ("accuracy", "loss", "decay", "horizon", "clipped", "s/step", "orthogonal+clip"):
        assert text in table  # nothing was cut off to fit the terminal
    assert "tensorboard --logdir runs/demo" in table
    assert (tmp_path / "runs/demo/gradient.png").stat().st_size > 10_000
    again = script("demo.py", "--epochs", 1, "--seeds", 1, cwd=tmp_path)
    assert again.returncode == 0 and "done" not in again.stdout.partition("Done in")[0]
    rows = [line for line in table.splitlines() if " % " in line and "→" in line]
    assert len(rows) == 5 and all(row in again.stdout for row in rows)
    changed = script("demo.py", "--epochs", 2, "--seeds", 1, cwd=tmp_path)
    assert changed.returncode == 1 and "--overwrite" in changed.stderr
    assert "Traceback" not in changed.stderr


@pytest.mark.slow
def test_overhead_of_compare_is_measured(tmp_path):
    done = script("compare_overhead.py", "--trials", 2, "--seconds", 0.1, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("2 trials of about 0.1 s (1 epochs)")
    number, *cells = done.stdout.splitlines()[2].replace(" s", "").split()
    plain, twice, one, two, overhead, gain, machine = (float(c.rstrip("%x")) for c in cells)
    assert number == "1" and min(plain, twice, one, two) > 0
    assert overhead == pytest.approx(100 * (one / plain - 1), abs=5)
    assert gain == pytest.approx(one / two, abs=0.05)
    assert machine == pytest.approx(plain / twice, abs=0.05)


def test_reading_is_measured_beside_the_plain_ways(tmp_path):
    done = script("benchmark_reading.py", "--text", 1, "--csv", 0.2, "--rounds", 1, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    ways = [line.rsplit(maxsplit=4)[0].strip() for line in done.stdout.splitlines() if " x" in line]
    assert ways[:2] == ["read().decode()", "the task"]
    assert ways.count("kbptt, without pandas") == ways.count("csv module and float") == 3


def test_large_studies_are_measured(tmp_path):
    done = script("benchmark_study.py", "--trials", 10, "--workers", 1, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "10 trials, shape seeds, 1 workers"
    numbers = {line[:20].strip(): float(line[20:].split()[0]) for line in lines[1:]}
    assert min(numbers.values()) >= 0 and numbers["per trial"] > 0
    assert {"start-up", "memory, planning", "report", "report.html"} <= set(numbers)


@pytest.mark.slow
def test_a_checkout_is_measured_against_this_one(tmp_path):
    """The other one here has Keras's layer, which is slower."""
    package = tmp_path / "older/kbptt"
    (package / "engine").mkdir(parents=True)
    (package / "engine/native.py").write_text("def is_usable():\n    return True\n")
    (package / "__init__.py").write_text(
        "import keras\n"
        "class SimpleRNN(keras.layers.SimpleRNN):\n"
        "    def __init__(self, units, truncation=None, **arguments):\n"
        "        super().__init__(units, **arguments)\n"
    )
    size = ("--size", 2, 512, 3, 16, 64, "--cells", "SimpleRNN", "--rounds", 3)
    done = script("benchmark.py", "--against", "older", *size, "--output", "a.json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    row, *means = done.stdout.splitlines()[:4]
    assert row.startswith("SimpleRNN     (2, 512, 3, 16, 64)")
    assert [mean.split(":")[0] for mean in means] == ["full", "windowed", "full and windowed"]
    (suite,) = json.loads((tmp_path / "a.json").read_text())["suites"]
    (row,) = suite["rows"]
    assert row["ratios"].keys() == {"full", "windowed"} and min(row["ratios"].values()) > 2
    assert row["seconds"]["other"] > row["seconds"]["kbptt"]


def test_a_checkout_without_compiled_loops_is_refused(tmp_path):
    (tmp_path / "kbptt/engine").mkdir(parents=True)
    (tmp_path / "kbptt/__init__.py").touch()
    (tmp_path / "kbptt/engine/native.py").write_text("def is_usable():\n    return False\n")
    size = ("--size", 1, 2, 1, 1, 1, "--cells", "GRU", "--rounds", 1)
    done = script("benchmark.py", "--against", ".", *size, cwd=tmp_path)
    assert done.returncode != 0 and "has no compiled loops" in done.stderr
    assert "Traceback" not in done.stderr
    missing = script("benchmark.py", "--against", "kbptt", cwd=tmp_path)
    assert missing.returncode == 2 and "expects a checkout of kbptt" in missing.stderr


def test_training_on_a_stream(tmp_path):
    text = "the cat sat on the mat. the dog sat on the log. " * 40
    (tmp_path / "book.txt").write_text(text)
    size = ("--length", 16, "--rows", 4, "--units", 8, "--epochs", 2, "--logdir", "runs/a")
    done = script("train_on_stream.py", "book.txt", *size, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "Epoch 2/2" in done.stdout and "val_loss" in done.stdout
    *_, result, sample, command = done.stdout.splitlines()
    bits = float(result.split()[0])
    assert 0 < bits < np.log2(len(set(text))) and "bits per character" in result
    assert len(sample) == 300 and set(sample) <= set(text)
    assert command.endswith("tensorboard --logdir runs/a")
    assert list((tmp_path / "runs/a").glob("events*"))
    assert not (tmp_path / "runs/a/state.npz").exists()  # training is over


def test_flossing_is_compared_on_a_task(tmp_path):
    size = ("--tasks", "copy", "--delay", 1, "--units", 8, "--count", 6, "--floss-steps", 2)
    short = ("--steps", 200, "--learning-rate", 0.02, "--seeds", 0)
    done = script("gradient_flossing.py", *size, *short, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    rows = [line.split() for line in done.stdout.splitlines() if " solved " in line]
    assert [row[1:6] for row in rows] == [
        [way, "solved", "1", "of", "1,"] for way in ("plain", "flossed", "orthogonal")
    ]


@pytest.mark.slow
def test_online_learning_of_an_echo(tmp_path):
    """SnAp-1 gets further than windows that are shorter than the delay."""
    arguments = ("--delays", 6, "--seeds", 1, "--timesteps", 6000)
    done = script("online_learning.py", *arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    plain, snap, long = (float(line.split()[-2]) for line in done.stdout.splitlines())
    assert plain + 0.03 < snap < long
