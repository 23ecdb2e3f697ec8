"""Trials that hang, die or take too much: each is its own failure, with a sentence."""

import os
import subprocess
import sys
import time

import psutil
import pytest

from kbptt.ablation import limits, runner, supervision, worker
from kbptt.ablation.errors import ProcessDied, TrialError
from kbptt.ablation.grid import Grid
from kbptt.ablation.supervision import Limits

LIMIT = 250_000_000  # bytes: more than Python needs, less than `greedy` takes


@pytest.fixture(autouse=True)
def own_process(dummies, monkeypatch, tmp_path):
    monkeypatch.setenv("KBPTT_TEST_MARKERS", str(tmp_path))
    yield
    worker.close()


def planned(trial, **changes):
    arguments = {"tasks": ["adding"], "methods": ["clip"], "seeds": 1, **changes}
    return Grid.make(**arguments, trial=f"dummy_trials:{trial}")


def execute(trial, *limits):
    return worker.execute(planned(trial).trials()[0].config, Limits(*limits))


def wait_for(condition):
    while not condition():
        time.sleep(0.01)


@pytest.mark.parametrize("trial", ["hanging", "stopped"])
def test_a_trial_that_never_ends_is_killed(trial):
    with pytest.raises(TrialError, match=r"still running at the time limit of 0\.5 s") as error:
        execute(trial, 0.5)
    assert error.value.final  # the same again would take as long
    assert execute("score")["status"] == "ok"  # in a new process


def test_a_trial_that_takes_too_much_memory_is_killed():
    with pytest.raises(
        TrialError, match=r"used .* MiB of memory; the limit is 238.42 MiB"
    ) as error:
        execute("greedy", None, LIMIT)
    assert error.value.final


def test_a_trial_that_ends_its_process_takes_along_what_it_started(tmp_path):
    with pytest.raises(ProcessDied, match="Its process ended with exit code 3"):
        execute("leaving")
    left = int((tmp_path / "left").read_text())
    wait_for(lambda: not psutil.pid_exists(left) or psutil.Process(left).status() == "zombie")


def test_a_trial_may_print(capfd):
    assert execute("noisy")["status"] == "ok"
    assert capfd.readouterr() == ("", "printed\nwritten\n")


def test_a_process_serves_many_trials_until_it_is_large(monkeypatch):
    monkeypatch.setattr(supervision, "TRIALS_PER_PROCESS", 3)
    processes = [execute("process")["process"] for _ in range(5)]
    assert len(set(processes)) == 1  # it stays small
    monkeypatch.setattr(supervision, "LARGE_PROCESS", 0)
    processes = [execute("process")["process"] for _ in range(7)]
    assert [processes.index(p) for p in processes] == [0, 1, 1, 1, 4, 4, 4]


def test_what_a_worker_runs_is_killed_with_what_it_started(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "import pathlib, subprocess, sys, time\n"
        "sleeping = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(300)'])\n"
        f"path = pathlib.Path({str(tmp_path)!r}, 'new')\n"
        "path.write_text(str(sleeping.pid))\n"
        "path.rename(path.with_name('ready'))\n"
        "time.sleep(300)\n"
    )
    process = supervision.start(str(script))
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        wait_for(lambda: (tmp_path / "ready").exists() or process.poll() is not None)
        supervision.kill_trials(os.getpid())
        assert process.wait() == -9 and other.poll() is None
        other.communicate(b"\n")
    left = int((tmp_path / "ready").read_text())
    wait_for(lambda: not psutil.pid_exists(left) or psutil.Process(left).status() == "zombie")
    supervision.kill_trials(left)  # which is no longer there


def test_the_process_ends_with_the_worker(tmp_path):
    """Killed, the worker cannot clean up; the kernel does."""
    script = tmp_path / "worker.py"
    script.write_text(
        "import pathlib, sys\n"
        "from kbptt.ablation import supervision\n"
        "if __name__ == '__main__':\n"
        "    process = supervision.start('sleep.py')\n"
        "    pathlib.Path('process').write_text(str(process.pid))\n"
        "    pathlib.Path('process').rename('ready')\n"
        "    process.wait()\n"
    )
    (tmp_path / "sleep.py").write_text("import time\ntime.sleep(300)\n")
    with subprocess.Popen([sys.executable, str(script)], cwd=tmp_path) as parent:
        wait_for(lambda: (tmp_path / "ready").exists() or parent.poll() is not None)
        process = psutil.Process(int((tmp_path / "ready").read_text()))
        parent.kill()
    wait_for(lambda: not process.is_running() or process.status() == "zombie")


def test_every_failure_of_a_study_is_recorded_and_the_others_go_on(tmp_path):
    grid = planned("misbehaving", seeds=6)
    with runner.open_ledger(grid, tmp_path / "logs") as ledger:
        runner.run(ledger, workers=2, retries=1, trial_timeout=6, memory_limit=LIMIT)
        trials = ledger.trials()
    assert [t.state for t in trials] == ["failed"] * 5 + ["done"]
    expected = ("time limit of 6 s", "time limit of 6 s", "exit code 3", "of memory", "SIGKILL")
    assert [text in t.error for text, t in zip(expected, trials, strict=False)] == [True] * 5
    assert [t.attempts for t in trials] == [1, 1, 2, 1, 2, 1]
    # Limits are no part of the configuration: a study may go on with other ones.
    with runner.open_ledger(grid, tmp_path / "logs", retry_failed=True) as ledger:
        assert ledger.counts()["pending"] == 5


def test_a_model_that_was_built_tells_its_number_of_parameters():
    (planned_trial,) = Grid.make("adding", "baseline", units=2, length=10).trials()
    dense = 2 + 1
    assert worker.check(planned_trial.config, Limits()) == 4 * 2 * (2 + 2 + 1) + dense
    assert worker.check(planned("score").trials()[0].config, Limits()) is None


@pytest.mark.parametrize(
    ("typed", "seconds"), [("90", 90), (90, 90), ("30m", 1800), ("1.5 hours", 5400), (None, None)]
)
def test_lengths_of_time(typed, seconds):
    assert limits.seconds(typed) == seconds


@pytest.mark.parametrize(
    ("typed", "size"), [("4GB", 4 * 10**9), ("512 MiB", 2**29), (10**6, 10**6), ("auto", "auto")]
)
def test_amounts_of_memory(typed, size):
    assert limits.memory(typed) == size


@pytest.mark.parametrize("typed", ["soon", "", "-1s", "0", "nan", "1e99h", True, [1]])
def test_limits_that_are_none(typed):
    with pytest.raises(ValueError, match="such as 90s, 30m or 12h"):
        limits.seconds(typed)
    with pytest.raises(ValueError, match="such as 4GB or 512MiB, or 'auto'"):
        limits.memory(typed if typed != "1e99h" else "1e999GB")


def test_an_equal_share_of_the_memory():
    from distributed.system import MEMORY_LIMIT

    from kbptt.ablation import clusters

    with clusters.connect(None, workers=2) as client:
        assert clusters.memory_share(client) == MEMORY_LIMIT // 2
