"""Ctrl-C at any moment: exit code 130, no traceback, and a run that continues where it stopped."""

import itertools
import os
import pathlib
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from command_line import kbptt
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from kbptt.cli import run_directory, terminal, training

HERE = pathlib.Path(__file__).parent
DIGITS = ["train", "digits", "--units", "4", "-o", "sizes=[64,32,32]", "--batch-size", "16"]
# A module that says where it is, and stays there.
STAYS = """
import pathlib, time
def stay():
    pathlib.Path("here").touch()
    while True:
        time.sleep(0.01)
"""


# The command `kbptt`, which says when it has taken Ctrl-C over; before, Python itself starts.
COMMAND = """
import pathlib, signal
from kbptt.cli import main
take_over = signal.signal
def told(*arguments):
    take_over(*arguments)
    pathlib.Path("started").touch()
signal.signal = told
main()
"""


def start(*arguments):
    path = os.pathsep.join([".", str(HERE / "ablation"), os.environ.get("PYTHONPATH", "")])
    return subprocess.Popen(
        [sys.executable, "-c", COMMAND, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": path, "KBPTT_TEST_SLEEP": "1000"},
        start_new_session=True,
    )


def wait_for(process, path):
    while not path.exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)


def interrupt(process, times):
    """As a terminal does: the workers get it too."""
    for _ in range(times):
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGINT)
        time.sleep(0.02)
    _, errors = process.communicate()
    assert process.returncode == 130
    assert set(errors.splitlines()) == {"Interrupted."}


@pytest.mark.parametrize("place", ["__set_name__", "__del__"])
def test_while_the_command_itself_is_imported(place, working_directory):
    """In places where Python makes any other exception of a `KeyboardInterrupt`, or none."""
    (working_directory / "typer.py").write_text(
        STAYS + "class Attribute:\n"
        f"    def {place}(self, *_):\n"
        "        stay()\n"
        "class Owner:\n"
        "    attribute = Attribute()\n"
        "del Owner.attribute\n"
        "while True: pass\n"
    )
    process = start("--help")
    wait_for(process, working_directory / "here")
    interrupt(process, 1)


@pytest.mark.parametrize("times", [1, 2, 5])
def test_while_the_users_module_is_imported(times, working_directory):
    (working_directory / "stays.py").write_text(STAYS + "stay()\n")
    process = start("train", "digits", "--import", "stays")
    wait_for(process, working_directory / "here")
    interrupt(process, times)


@pytest.mark.parametrize("times", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_while_the_data_are_made(times, working_directory):
    (working_directory / "stays.py").write_text(
        STAYS + "import kbptt\n"
        "@kbptt.tasks.register('stays')\n"
        "class Stays(kbptt.tasks.Task):\n"
        "    baseline, outputs = 0.5, kbptt.tasks.Outputs(2)\n"
        "    def __init__(self):\n"
        "        super().__init__(4, (8, 8, 8))\n"
        "    def data(self, seed):\n"
        "        stay()\n"
    )
    process = start("train", "stays", "--import", "stays", "--units", 2)
    wait_for(process, working_directory / "here")
    interrupt(process, times)


@pytest.mark.parametrize("times", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_before_the_first_trial(times, working_directory):
    arguments = ("--tasks", "adding", "--methods", "clip", "--seeds", "2", "--workers", "2")
    process = start("compare", *arguments, "--trial", "dummy_trials:sleepy", "--logdir", "logs")
    wait_for(process, working_directory / "logs" / "ledger.sqlite")
    interrupt(process, times)


@pytest.mark.slow
@pytest.mark.parametrize("command", ["train", "compare"])
@pytest.mark.parametrize("moment", [0, 0.1, 0.2, 0.4, 0.8, 1.2, 1.6, 2, 3, 4, 6])
def test_at_any_moment(command, moment, working_directory):
    """Seconds after the command has started."""
    arguments = ("--tasks", "adding", "--methods", "clip", "--seeds", "2", "--workers", "2")
    sleepy = ("compare", *arguments, "--trial", "dummy_trials:sleepy")
    process = start(*(sleepy if command == "compare" else [*DIGITS, "--epochs", "100000"]))
    wait_for(process, working_directory / "started")
    time.sleep(moment)
    interrupt(process, 1)


def interrupted_at(monkeypatch, step, *arguments):
    """Runs a command that gets Ctrl-C after a training step, counted from 1."""
    before, steps = training.Progressed.on_train_batch_end, itertools.count(1)

    def stop(self, batch, logs=None):
        before(self, batch, logs)
        if next(steps) == step:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(training.Progressed, "on_train_batch_end", stop)
        result = kbptt(*arguments)
    assert result.exit_code == 130 and "--logdir run --resume\n" in result.stdout
    assert result.stderr == "Interrupted.\n"


def test_an_interrupt_that_got_lost_ends_the_training_at_the_next_step(
    working_directory, monkeypatch
):
    """Python drops an exception that is raised in a finalizer or a callback of C code."""
    steps = itertools.count(1)
    before = training.Progressed.on_train_batch_begin

    def lose(self, batch, logs=None):
        before(self, batch, logs)
        if next(steps) == 3:
            monkeypatch.setattr(terminal, "interrupted", lambda: True)

    monkeypatch.setattr(training.Progressed, "on_train_batch_begin", lose)
    result = kbptt(*DIGITS, "--epochs", 2, "--logdir", "run")  # of four steps
    assert result.exit_code == 130 and "--logdir run --resume\n" in result.stdout
    assert result.stderr == "Interrupted.\n" and next(steps) == 4


def profiles(logdir):
    """Steps and norms of the profiles, as TensorBoard reads them."""
    events = EventAccumulator(str(logdir), size_guidance={"tensors": 0}).Reload()
    found = events.Tensors("gradient_flow/lstm_1/dL_dh")
    norms = [np.frombuffer(e.tensor_proto.tensor_content, np.float32) for e in found]
    return [e.step for e in found], np.array(norms)


def test_a_resumed_run_stays_in_its_directory(working_directory, monkeypatch):
    command = (*DIGITS, "--epochs", 3, "--logdir")
    interrupted_at(monkeypatch, 2, *command, "run")  # in the first epoch of four steps
    interrupted_at(monkeypatch, 6, *command, "run", "--resume")  # again, and in the second one
    resumed = kbptt(*command, "run", "--resume")
    assert resumed.exit_code == 0 and resumed.stderr == ""
    assert kbptt(*command, "whole").exit_code == 0
    assert sorted(p.name for p in working_directory.iterdir()) == ["run", "whole"]
    steps, norms = profiles("run")
    expected_steps, expected = profiles("whole")
    assert steps == expected_steps == list(range(1, 13))
    np.testing.assert_allclose(norms, expected, rtol=1e-3)
    losses = EventAccumulator("run/train", size_guidance={"tensors": 0}).Reload()
    assert [e.step for e in losses.Tensors("epoch_loss")] == [0, 1, 2]


def test_only_one_process_trains_in_a_directory(working_directory):
    (working_directory / "run").mkdir()
    code = (
        "import pathlib, sys\n"
        "from kbptt.cli import run_directory\n"
        "with run_directory.locked(pathlib.Path('run')):\n"
        "    print('locked', flush=True)\n"
        "    sys.stdin.read()\n"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert other.stdout.readline() == "locked\n"
    refused = kbptt(*DIGITS, "--logdir", "run")
    assert refused.exit_code == 2
    assert "Another process is training in run." in refused.stderr
    other.communicate()
    with run_directory.locked(pathlib.Path("run")):
        pass
    assert not list((working_directory / "run").iterdir())


def test_locks_without_fcntl(working_directory, monkeypatch):
    """As on Windows, where the import of `fcntl` fails."""
    from kbptt import _locks

    class Windows:
        LK_NBLCK = 2

        def __init__(self):
            self.held = set()

        def locking(self, descriptor, mode, count):
            key = os.fstat(descriptor).st_ino, os.lseek(descriptor, 0, os.SEEK_CUR)
            if key in self.held:
                raise PermissionError("held")
            self.held.add(key)

    monkeypatch.setattr(_locks, "fcntl", None)
    monkeypatch.setattr(_locks, "msvcrt", Windows(), raising=False)
    with open("lock", "a+") as file, open("lock", "a+") as second:
        assert _locks.try_lock(file) and not _locks.try_lock(second)
    monkeypatch.setattr(_locks, "msvcrt", None)
    with open("lock", "a+") as file:
        assert _locks.try_lock(file)
    code = (
        "import sys\n"
        "sys.modules['fcntl'] = None\n"
        "from kbptt.ablation.ledger import Ledger\n"
        "Ledger('logs').close()\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_no_module_but_one_imports_fcntl_unguarded():
    root = pathlib.Path(run_directory.__file__).parents[2]
    for path in root.glob("kbptt/**/*.py"):
        text = path.read_text()
        if re.search(r"^ *import fcntl", text, re.MULTILINE):
            assert "except ImportError:" in text, path
