"""A Dask cluster that is not ours: two workers on loopback, one of them killed in mid-trial."""

import os
import pathlib
import signal
import subprocess
import sys
import threading
import time

import pytest
from distributed import Client

from kbptt.ablation import runner
from kbptt.ablation.grid import Grid
from kbptt.ablation.ledger import Ledger, LedgerError

HERE = pathlib.Path(__file__).parent
GRID = {"tasks": ["adding"], "methods": ["baseline", "clip"], "seeds": 3}


@pytest.fixture
def scheduler(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(HERE))
    environment = {**os.environ, "PYTHONPATH": str(HERE), "KBPTT_TEST_SLEEP": "1"}
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
    with Client(scheduler_file=str(file), set_as_default=False, timeout=60) as client:
        client.wait_for_workers(2, timeout=60)
        address = client.scheduler.address
    yield address, processes[0]
    for process in reversed(processes):
        process.terminate()
    for process in reversed(processes):
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def run(logdir, **options):
    events = []
    with runner.open_ledger(Grid.make(**GRID, trial="dummy_trials:sleepy"), logdir) as ledger:
        runner.run(ledger, on_event=events.append, **options)
        return [t.result for t in ledger.trials()], events


def test_worker_killed_in_mid_trial(scheduler, tmp_path, monkeypatch):
    scheduler, _ = scheduler
    monkeypatch.setenv("KBPTT_TEST_SLEEP", "0")
    expected, _ = run(tmp_path / "local", workers=1)

    def kill_one():
        with Client(scheduler, set_as_default=False) as client:
            deadline = time.monotonic() + 60
            while time.monotonic() < deadline:
                busy = [a for a, tasks in client.processing().items() if tasks]
                if len(busy) == 2:
                    pids = client.run(os.getpid, workers=busy[:1])
                    time.sleep(0.3)
                    killed.append(next(iter(pids.values())))
                    os.kill(killed[0], signal.SIGKILL)
                    return
                time.sleep(0.02)

    killed = []
    killer = threading.Thread(target=kill_one)
    killer.start()
    found, events = run(tmp_path / "cluster", scheduler=scheduler)
    killer.join()
    assert killed, "both workers were never busy at once"
    assert found == expected
    assert [e.state for e in events].count("done") == 6
    # Nothing but the process that plans writes to the log directory.
    assert len(list((tmp_path / "cluster").rglob("events"))) == 6


def test_lost_scheduler(scheduler, tmp_path):
    address, process = scheduler
    killer = threading.Timer(2.5, process.kill)
    killer.start()
    with pytest.raises(LedgerError, match="connection to the Dask scheduler was lost"):
        run(tmp_path / "logs", scheduler=address)
    killer.join()
    with Ledger(tmp_path / "logs") as ledger:
        assert 0 < ledger.counts()["done"] < 6
