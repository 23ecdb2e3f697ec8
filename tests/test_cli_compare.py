"""The commands compare and report as a user runs them: in processes of their own."""

import importlib
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from kbptt.ablation.ledger import Ledger

KBPTT = (sys.executable, "-m", "kbptt")
HERE = pathlib.Path(__file__).parent
GRID = ("--tasks", "adding", "--methods", "baseline,clip", "--seeds", "2", "--workers", "1")
MANY = (*GRID[:-3], "25", "--workers", "1")
DUMMY = ("--trial", "dummy_trials:score")


def environment(**changes):
    path = os.pathsep.join([str(HERE / "ablation"), os.environ.get("PYTHONPATH", "")])
    return {**os.environ, "PYTHONPATH": path, "COLUMNS": "150", **changes}


def kbptt(*arguments, **changes):
    return subprocess.run(
        [*KBPTT, *map(str, arguments)],
        capture_output=True,
        text=True,
        env=environment(**changes),
    )


def test_compare_then_report(tmp_path):
    logdir = tmp_path / "logs"
    first = kbptt("compare", *GRID, *DUMMY, "--logdir", logdir)
    assert first.returncode == 0, first.stderr
    assert "4/4 done" in first.stdout
    assert "Exploratory" in first.stdout
    assert f"tensorboard --logdir {logdir}" in first.stdout
    for name in ("results.csv", "report.md", "report.html", "ledger.sqlite"):
        assert (logdir / name).exists()
    again = kbptt("compare", *GRID, *DUMMY, "--logdir", logdir)
    assert again.returncode == 0 and "done" not in again.stdout  # nothing ran again
    kept = kbptt("compare", *GRID, *DUMMY, "--logdir", logdir, "--overwrite")
    assert kept.returncode == 0 and "done" not in kept.stdout  # the configuration is the same
    code = (
        "import kbptt\n"
        "report = kbptt.ablation.compare('adding', ['baseline', 'clip'], 2, verbose='progress',"
        f" trial='dummy_trials:score', logdir={str(logdir)!r})\n"
        "print(report.rows[0].arm)"
    )
    alone = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment()
    )
    assert alone.stdout == "clip\n", alone.stderr  # no progress was left to show, and no table
    (logdir / "report.html").unlink()
    report = kbptt("report", logdir, "--reference", "clip")
    assert report.returncode == 0 and (logdir / "report.html").exists()
    changed = kbptt("compare", *GRID, *DUMMY, "--logdir", logdir, "--epochs", "3")
    assert changed.returncode == 2
    assert "\n  settings.epochs: + 3\n" in changed.stderr and "--overwrite" in changed.stderr


def test_a_script_of_the_users_own(tmp_path):
    script = tmp_path / "train.py"
    source = "import json, sys\nprint(json.dumps({'loss': float(sys.argv[2]), 'time': 0}))\n"
    script.write_text(source)
    command = ("compare", "--script", script, "--set", "rate=2,1", "--seeds", 2)
    command += ("--workers", 1, "--trial-timeout", "1h", "--memory-limit", "auto")
    first = kbptt(*command, "--logdir", tmp_path / "logs")
    assert first.returncode == 0, first.stderr
    table = first.stdout[first.stdout.index("mean loss") :]
    assert table.index("rate=1") < table.index("rate=2")
    again = kbptt(*command[:-4], "--trial-timeout", "2h", "--logdir", tmp_path / "logs")
    assert again.returncode == 0 and "done" not in again.stdout  # a limit changes nothing
    script.write_text(source + "\n")
    changed = kbptt(*command, "--logdir", tmp_path / "logs")
    assert changed.returncode == 2 and "train.py has changed" in changed.stderr
    wrong = kbptt(*command[:-1], "much", "--logdir", tmp_path / "logs")
    assert wrong.returncode == 2 and wrong.stderr.startswith("Error: Invalid value for argument")
    assert "--memory-limit" in wrong.stderr and wrong.stderr.count("\n") == 1


def test_exit_code_is_1_if_trials_crashed(tmp_path):
    crashing = ("--trial", "dummy_trials:crashing", "--retries", "0", "--logdir", tmp_path)
    result = kbptt("compare", *GRID, *crashing)
    assert result.returncode == 1 and result.stderr == ""
    assert "clip/adding/0, clip/adding/1: ZeroDivisionError: by design" in " ".join(
        result.stdout.split()
    )
    assert kbptt("report", tmp_path).returncode == 0


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("--tasks", "nope", "--methods", "clip"), "Unknown task: 'nope'"),
        (("--tasks", "adding", "--methods", "nope"), "Unknown method: 'nope'"),
        (("--tasks", "adding"), "pass at least one of the methods"),
        (("--tasks", "adding", "--methods", "clip", "--seeds", "1e3"), "Received: seeds='1e3'"),
        (("--tasks", "adding", "--methods", "clip", "--set", "truncation"), "NAME=VALUE"),
        (("--tasks", "adding", "--methods", "clip", "--set", "u=1", "--set", "u=2"), "twice"),
        (("--config", "absent.yaml"), "Cannot read 'absent.yaml'"),
        (("--tasks", "adding", "--methods", "clip", "--reference", "x"), "Expected one of clip"),
        (("--tasks", "adding", "--methods", "clip", "--workers", "0"), "workers=0"),
    ],
)
def test_mistakes_get_one_sentence(arguments, message, tmp_path):
    from typer.testing import CliRunner

    app = importlib.import_module("kbptt.cli.main").app
    result = CliRunner().invoke(app, ["compare", *arguments, "--logdir", str(tmp_path / "logs")])
    assert result.exit_code == 2
    assert message in result.output and "Traceback" not in result.output
    assert result.output.count("\n") == 1
    assert not (tmp_path / "logs").exists()


def test_yaml_and_command_line(tmp_path):
    config = tmp_path / "study.yaml"
    config.write_text(
        "tasks: [adding]\nmethods: [baseline, clip]\nseeds: 1\nepochs: 3\n"
        "trial: dummy_trials:score\nset: {truncation: [16, full]}\n"
    )
    logdir = tmp_path / "logs"
    result = kbptt("compare", "--config", config, "--truncation", "8", "--logdir", logdir)
    assert result.returncode == 0, result.stderr
    with Ledger(logdir, read_only=True) as ledger:
        configs = [trial.config for trial in ledger.trials()]
    assert [c["model"]["truncation"] for c in configs] == [8, 8]
    assert configs[0]["training"]["epochs"] == 3


def start(logdir, sleep="0.4"):
    return subprocess.Popen(
        [*KBPTT, "compare", *MANY, "--trial", "dummy_trials:sleepy", "--logdir", str(logdir)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(KBPTT_TEST_SLEEP=sleep),
        start_new_session=True,
    )


def wait_for(process, logdir, state):
    """Waits until the ledger of a process that runs has a trial in that state."""
    while process.poll() is None:
        if (logdir / "ledger.sqlite").exists():
            try:
                with Ledger(logdir, read_only=True) as ledger:
                    if ledger.counts()[state]:
                        return
            except ValueError:  # being made at this moment
                pass
        time.sleep(0.02)
    raise AssertionError(f"no trial became {state!r}: {process.communicate()}")


def test_control_c_and_second_runner(tmp_path):
    logdir = tmp_path / "logs"
    process = start(logdir)
    wait_for(process, logdir, "done")
    second = kbptt("compare", *GRID, "--logdir", logdir)
    assert second.returncode == 2
    assert f"Another run is using '{logdir}' (process {process.pid} on" in second.stderr
    os.killpg(process.pid, signal.SIGINT)  # a terminal sends it to the workers too
    shown, errors = process.communicate()
    assert process.returncode == 130 and errors == "Interrupted.\n"
    with Ledger(logdir, read_only=True) as ledger:
        kept = ledger.trials("done")
    assert 1 <= len(kept) < 50
    # The ranking so far is not lost.
    assert "mean accuracy" in shown and f"Interrupted with {len(kept)} of 50 trials done" in shown
    process = start(logdir, sleep="0")
    _, errors = process.communicate()
    assert process.returncode == 0, errors
    with Ledger(logdir, read_only=True) as ledger:
        assert ledger.counts()["done"] == 50
        assert ledger.trials("done")[: len(kept)] == kept


def test_a_terminal_that_cannot_show_every_character(tmp_path):
    logdir = tmp_path / "logs"
    done = kbptt("compare", *GRID, *DUMMY, "--logdir", logdir, PYTHONIOENCODING="ascii")
    assert done.returncode == 0, done.stderr
    assert "baseline" in done.stdout and (logdir / "report.html").exists()
