"""SIGKILL of a worker and of the whole run at random moments, then the same command again."""

import json
import os
import pathlib
import random
import subprocess
import sys
import time

import psutil
import pytest

from kbptt.ablation import runner
from kbptt.ablation.grid import Grid
from kbptt.ablation.ledger import Ledger

pytestmark = pytest.mark.usefixtures("dummies")
HERE = pathlib.Path(__file__).parent
SCRIPT = """
import json, sys
from kbptt.ablation import runner
from kbptt.ablation.grid import Grid

if __name__ == "__main__":
    logdir, arguments = sys.argv[1], json.loads(sys.argv[2])
    with runner.open_ledger(Grid.make(**arguments), logdir) as ledger:
        runner.run(ledger, workers=2)
"""
SLEEPY = {
    "tasks": ["adding", "copy_memory"],
    "methods": ["baseline", "clip", "layernorm"],
    "seeds": 8,
    "trial": "dummy_trials:sleepy",
}
REAL = {
    "tasks": ["adding"],
    "methods": ["baseline", "clip"],
    "seeds": 2,
    "units": 4,
    "length": 10,
    "sizes": [64, 16, 16],
    "epochs": 2,
}


def start(logdir, arguments, script):
    script.write_text(SCRIPT)
    environment = {
        **os.environ,
        "PYTHONPATH": str(HERE),
        "KBPTT_TEST_SLEEP": "0.1",
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }
    return subprocess.Popen(
        [sys.executable, str(script), str(logdir), json.dumps(arguments)],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def workers_of(process):
    """The worker processes of a run, without Python's resource trackers."""
    try:
        found = psutil.Process(process.pid).children()
        return [p for p in found if "spawn_main" in " ".join(p.cmdline())]
    except psutil.Error:
        return []


def kill_repeatedly(tmp_path, arguments, kills, seed, longest):
    """Kills the run or one of its workers at seeded moments, then lets it end."""
    rng = random.Random(seed)
    logdirs = [tmp_path / "logs-0"]
    process, done, count = None, 0, {"run": 0, "worker": 0}
    while done < kills:
        if process is None or process.poll() is not None:
            if process is not None and process.returncode == 0:  # finished: another ablation
                logdirs.append(tmp_path / f"logs-{len(logdirs)}")
            process = start(logdirs[-1], arguments, tmp_path / "script.py")
        time.sleep(rng.uniform(0, longest))
        if process.poll() is not None:
            assert process.returncode == 0
            continue
        workers = workers_of(process)
        if workers and rng.random() < 0.5:
            rng.choice(workers).kill()
            count["worker"] += 1
        else:
            process.kill()
            process.wait()
            count["run"] += 1
        done += 1
    if process.poll() is None:
        process.wait()
    for logdir in logdirs:
        final = start(logdir, arguments, tmp_path / "script.py")
        assert final.wait() == 0
    return logdirs, count


def check(logdirs, arguments, expected):
    planned = Grid.make(**arguments).trials()
    for logdir in logdirs:
        with Ledger(logdir, read_only=True) as ledger:
            trials = ledger.trials()
        assert [t.state for t in trials] == ["done"] * len(planned)
        assert [t.config for t in trials] == [c.config for c in planned]  # one result per trial
        assert [reproducible(t.result) for t in trials] == expected
        assert not list(logdir.glob(".writing-*"))
        for trial in trials:
            assert list((logdir / trial.directory).rglob("*events*"))


def reproducible(result):
    kept = {k: v for k, v in result.items() if k not in ("cost", "environment", "files")}
    return json.dumps(kept, sort_keys=True)


def expected_scores():
    import dummy_trials

    return [reproducible(dummy_trials.score(c.config)) for c in Grid.make(**SLEEPY).trials()]


def test_three_kills(tmp_path):
    logdirs, _ = kill_repeatedly(tmp_path, SLEEPY, kills=3, seed=1, longest=3)
    check(logdirs, SLEEPY, expected_scores())


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_thirty_kills(tmp_path):
    logdirs, count = kill_repeatedly(tmp_path, SLEEPY, kills=30, seed=0, longest=4)
    assert min(count.values()) >= 5
    check(logdirs, SLEEPY, expected_scores())


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_kills_of_real_trials(tmp_path):
    with runner.open_ledger(Grid.make(**REAL), tmp_path / "calm") as ledger:
        runner.run(ledger, workers=1)
        expected = [reproducible(t.result) for t in ledger.trials()]
    logdirs, _ = kill_repeatedly(tmp_path, REAL, kills=5, seed=2, longest=20)
    check(logdirs, REAL, expected)
