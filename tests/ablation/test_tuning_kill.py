"""SIGKILL while a study is tuned, then the same command again: the same trials, the same values."""

import json
import os
import pathlib
import subprocess
import sys
import time

import pytest
from staged_studies import TUNED, of_stage, run, stored

from kbptt.ablation import Grid, LedgerError

HERE = pathlib.Path(__file__).parent
SCRIPT = """
import functools, json, sys
from kbptt.ablation import Grid, runner, stages

if __name__ == "__main__":
    grid = Grid.make(**json.loads(sys.argv[2]))
    with runner.open_ledger(grid, sys.argv[1]) as ledger:
        more = functools.partial(stages.advance, grid, ledger)
        runner.run(ledger, workers=2, more=more)
"""
SLOWLY = {
    **TUNED,
    "trial": "dummy_trials:validated_slowly",
    "tuning_trials": 6,
    "tuning_sampler": "tpe",
}


def start(logdir, script):
    script.write_text(SCRIPT)
    path = os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")])
    return subprocess.Popen(
        [sys.executable, str(script), str(logdir), json.dumps(SLOWLY)],
        env={**os.environ, "PYTHONPATH": path},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for(process, logdir, count):
    """Waits until that many trials are done."""
    while process.poll() is None:
        try:
            if sum(trial.state == "done" for trial in stored(logdir)) >= count:
                return
        except LedgerError:  # being made at this moment
            pass
        time.sleep(0.02)
    raise AssertionError(process.stderr.read())


@pytest.mark.parametrize("kills", [[3, 18], pytest.param(range(1, 27, 4), marks=pytest.mark.slow)])
def test_a_killed_search_goes_on_with_the_same_suggestions(tmp_path, monkeypatch, dummies, kills):
    monkeypatch.setenv("KBPTT_TEST_SLEEP", "0")
    calm = run(Grid.make(**SLOWLY), tmp_path / "calm")
    assert len(of_stage(calm, "tuning")) == 2 * 6 * 2 and len(of_stage(calm, None)) == 4
    monkeypatch.setenv("KBPTT_TEST_SLEEP", "0.05")
    logdir = tmp_path / "killed"
    for count in kills:
        process = start(logdir, tmp_path / "script.py")
        wait_for(process, logdir, count)
        process.kill()
        process.communicate()
        assert "running" in {trial.state for trial in stored(logdir)} or count > 20
    process = start(logdir, tmp_path / "script.py")
    _, errors = process.communicate()
    assert process.returncode == 0, errors
    found = [(t.key, t.state, t.result) for t in stored(logdir)]
    assert found == [(t.key, "done", t.result) for t in calm]
