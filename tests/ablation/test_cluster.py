"""A Dask cluster that is not ours: two workers on loopback, one of them killed in mid-trial."""

import os
import pathlib
import signal
import subprocess
import sys
import threading

import pytest
from distributed import Client

from kbptt.ablation import runner
from kbptt.ablation.grid import Grid
from kbptt.ablation.ledger import Ledger

HERE = pathlib.Path(__file__).parent
GRID = {"tasks": ["adding"], "methods": ["baseline", "clip"], "seeds": 3}


@pytest.fixture
def scheduler(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(HERE))
    (tmp_path / "markers").mkdir()
    environment = {
        **os.environ,
        "PYTHONPATH": str(HERE),
        "KBPTT_TEST_SLEEP": "0.2",
        "KBPTT_TEST_MARKERS": str(tmp_path / "markers"),
    }
    file = tmp_path / "scheduler.json"
    local = ("--scheduler-file", str(file), "--no-dashboard", "--host", "127.0.0.1")
    commands = [("scheduler", "--port", "0", *local)]
    commands += [("worker", *local, "--nthreads", "2", "--local-directory", str(tmp_path))] * 2
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", f"distributed.cli.dask_{name}", *arguments],
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for name, *arguments in commands
    ]
    with Client(scheduler_file=str(file), set_as_default=False, timeout=300) as client:
        client.wait_for_workers(2, timeout=300)
        address = client.scheduler.address
    yield address, processes[0]
    for process in reversed(processes):
        process.terminate()
    for process in reversed(processes):
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def run(logdir, trial, **options):
    events = []
    with runner.open_ledger(Grid.make(**GRID, trial=f"dummy_trials:{trial}"), logdir) as ledger:
        runner.run(ledger, on_event=events.append, **options)
        return [t.result for t in ledger.trials()], events


def test_worker_killed_in_mid_trial(scheduler, tmp_path):
    scheduler, _ = scheduler
    expected, _ = run(tmp_path / "local", "score", workers=1)

    def kill_one():
        marker = tmp_path / "markers" / "process"
        while not marker.exists() and not ended.wait(0.05):
            pass
        os.kill(int(marker.read_text()), signal.SIGKILL)

    ended = threading.Event()
    killer = threading.Thread(target=kill_one)
    killer.start()
    try:
        found, events = run(tmp_path / "cluster", "held_once", scheduler=scheduler)
    finally:
        ended.set()
        killer.join()
    assert found == expected
    assert [e.state for e in events].count("done") == 6
    assert (tmp_path / "markers" / "process").exists()  # it was killed in mid-trial
    # Nothing but the process that plans writes to the log directory.
    assert len(list((tmp_path / "cluster").rglob("events"))) == 6


COMMAND = (
    *(sys.executable, "-m", "kbptt", "compare", "--tasks", "adding", "--methods", "baseline,clip"),
    *("--seeds", "20", "--trial", "dummy_trials:sleepy"),
)


def test_lost_scheduler(scheduler, tmp_path):
    """Killed after the first result: one sentence, nothing that ran is taken for a failure."""
    address, killed = scheduler
    command = [*COMMAND, "--scheduler", address, "--logdir", str(tmp_path / "logs")]
    environment = {**os.environ, "PYTHONPATH": str(HERE)}
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        for line in process.stdout:
            if " done " in line:
                killed.kill()
                break
        _, errors = process.communicate(timeout=300)
    assert process.returncode == 2
    assert errors.startswith("Error: The connection to the Dask scheduler was lost.")
    assert errors.count("\n") == 1
    with Ledger(tmp_path / "logs") as ledger:
        assert 0 < ledger.counts()["done"] < 40
        assert ledger.counts()["failed"] == 0
