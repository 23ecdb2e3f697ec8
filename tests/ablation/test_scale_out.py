"""Two machines without a shared file system, and a user's script in a real study."""

import os
import pathlib
import subprocess
import sys

import pytest

from kbptt.ablation import Report

SCRIPTS = pathlib.Path(__file__).parents[2] / "scripts"


def run(*command, cwd):
    environment = {**os.environ, "COLUMNS": "100"}
    command = [sys.executable, *map(str, command)]
    return subprocess.run(
        command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=550
    )


@pytest.mark.slow
def test_two_machines_give_the_bits_of_one(tmp_path):
    done = run(SCRIPTS / "scale_out.py", "--seeds", 1, "--epochs", 1, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    lines = [line.split() for line in done.stdout.splitlines()]
    assert lines[0][:5] == ["2", "trials", "on", "2", "workers,"]
    assert lines[2][-3:] == ["in", "2", "processes"]  # each had its trial
    assert lines[3][:4] == ["gathered", "8", "event", "files,"] and float(lines[3][4]) > 0
    assert lines[4][-4:] == ["equal", "bit", "by", "bit"]


@pytest.mark.slow
def test_a_training_script_is_compared(tmp_path):
    """Its gradients are in the study's directory."""
    options = ("--set", "truncation=2,64", "--seeds", 1, "--epochs", 1, "--units", 4)
    command = ("-m", "kbptt", "compare", "--script", SCRIPTS / "train_digits.py", *options)
    done = run(*command, "--metric", "val_accuracy", "--logdir", "runs", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "mean val_accuracy" in done.stdout
    report = Report(tmp_path / "runs")
    assert sorted(report.results.arms) == ["truncation=2", "truncation=64"]
    for label in ("truncation=2", "truncation=64"):
        folder = tmp_path / "runs" / label / "train_digits" / "0"
        assert list(folder.rglob("events.out.tfevents.*")) and (folder / "stdout.txt").exists()
    again = run(*command, "--metric", "val_accuracy", "--logdir", "runs", cwd=tmp_path)
    assert again.returncode == 0 and "done" not in again.stdout
