"""The command to copy is one that the shell finds."""

import sys

from kbptt import tensorboard
from kbptt.tensorboard import launch


def test_on_the_path(monkeypatch):
    monkeypatch.setattr(launch.shutil, "which", lambda name: f"/bin/{name}")
    assert tensorboard.command("runs/a b") == "tensorboard --logdir 'runs/a b'"


def test_in_an_environment_that_is_not_activated(monkeypatch, tmp_path):
    monkeypatch.setattr(launch.shutil, "which", lambda name: None)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "env" / "bin" / "python"))
    assert tensorboard.command("runs") == "tensorboard --logdir runs"  # nowhere at all
    (tmp_path / "env" / "bin").mkdir(parents=True)
    (tmp_path / "env" / "bin" / "tensorboard").touch()
    assert tensorboard.command("runs") == f"{tmp_path}/env/bin/tensorboard --logdir runs"
    monkeypatch.chdir(tmp_path)
    assert tensorboard.command("runs") == "env/bin/tensorboard --logdir runs"
