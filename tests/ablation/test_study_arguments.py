"""Where a study's arguments come from: a file, the command line, the ledger of an earlier run."""

import shlex

import pytest
from typer.testing import CliRunner

from kbptt import ablation
from kbptt.ablation import runner, study
from kbptt.ablation.grid import Grid, difference
from kbptt.ablation.ledger import Ledger
from kbptt.ablation.repeat import compare_command
from kbptt.ablation.reporting import Report
from kbptt.cli.main import app

FILE = """
tasks: [adding]
methods: [baseline]
trial_timeout: 30m
memory_limit: 4GB
set: {units: [4, 8]}
tune: {learning_rate: 1e-4..1e-2, clip: [1, 2]}
"""


class Stopped(Exception):
    pass


@pytest.fixture
def started(monkeypatch, tmp_path):
    """The grids and the limits of the studies that were started in `tmp_path`."""
    found = []

    def run(grid, ledger, reference, running, verbose):
        found.append((grid, {n: running[n] for n in ("trial_timeout", "memory_limit", "health")}))
        raise Stopped

    monkeypatch.setattr(study, "_run", run)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "s.yaml").write_text(FILE)
    return found


def start(**given):
    with pytest.raises(Stopped):
        ablation.compare(**{"config": "s.yaml", "verbose": False, "overwrite": True, **given})


def test_search_spaces_are_merged_by_name(started):
    start(tune={"clip": [3, 4], "dropout": [0.0, 0.1]})
    start(learning_rate=0.1, tune={"units": "4..8"})
    start(set={"clip": [1, 2]})
    spaces = [{n: p.describe() for n, p in grid.tuning.space.items()} for grid, _ in started]
    rate = "0.0001 to 0.01, logarithmic"
    merged = {"clip": "one of 3.0, 4.0", "dropout": "one of 0, 0.1", "learning_rate": rate}
    assert spaces[0] == merged
    assert spaces[1] == {"clip": "one of 1.0, 2.0", "units": "4 to 8, integers"}
    assert started[1][0].axes == {} and len(started[0][0].axes) == 1
    assert spaces[2] == {"learning_rate": rate} and len(started[2][0].axes) == 2


def test_a_file_holds_the_limits_and_the_command_line_takes_precedence(started, tmp_path):
    start()
    start(trial_timeout="1h")
    assert [limits for _, limits in started] == [
        {"trial_timeout": 1800, "memory_limit": 4 * 10**9, "health": False},
        {"trial_timeout": 3600, "memory_limit": 4 * 10**9, "health": False},
    ]
    (tmp_path / "s.yaml").write_text(FILE + "health: true\n")
    start()
    start(health=False)
    assert [limits["health"] for _, limits in started[2:]] == [True, False]
    assert Grid.from_yaml("s.yaml").tasks == ("adding",)
    (tmp_path / "s.yaml").write_text(FILE + "logdir: runs/x\n")
    with pytest.raises(ValueError, match=r"`logdir` cannot be set in 's.yaml'.* --logdir"):
        ablation.compare(config="s.yaml")


def test_the_command_that_repeats_a_study_has_its_limits(tmp_path, monkeypatch):
    monkeypatch.setattr(runner, "run", lambda *_, **__: None)
    given = {"tasks": "adding", "methods": "baseline", "logdir": tmp_path, "verbose": False}
    configurations = []
    for limits, words in (
        ({}, []),
        ({"trial_timeout": "30m", "memory_limit": "4GB", "retries": 0}, ["30m", "4GB", "0"]),
        ({"trial_timeout": 0.5, "memory_limit": "auto", "health": True}, ["0.5s", "auto"]),
        ({}, []),
    ):
        report = ablation.compare(**given, **limits)
        typed = shlex.split(report.command)
        names = ("--trial-timeout", "--memory-limit", "--retries")
        assert [typed[typed.index(name) + 1] for name in names if name in typed] == words
        assert ("--health" in typed) == ("health" in limits)
        with Ledger(tmp_path, read_only=True) as ledger:
            configurations.append(ledger.meta("configuration"))
    assert all(one == configurations[0] for one in configurations)
    assert Report(tmp_path, None).command == report.command


def test_limits_of_a_damaged_ledger():
    grid = Grid.make("adding", "baseline", 2).configuration()
    for broken in ({"trial_timeout": "x"}, {"memory_limit": [1]}, {"retries": "2"}):
        assert compare_command(grid, ["baseline"], "runs", None, broken) is None


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        ("--trials 0 --tune clip=1,2", "`--trials`. Expected a positive integer"),
        ("--tuning-seeds 0 --tune clip=1,2", "`--tuning-seeds`. Expected a positive integer"),
        ("--trials 3", "--trials is given, but there is nothing to tune"),
        ("--sampler grid --tune clip=1,2", "`--sampler`. Expected one of 'quasi-random', 'tpe'"),
    ],
)
def test_errors_name_the_option_that_was_typed(typed, words):
    command = f"compare --tasks adding --methods clip {typed}"
    done = CliRunner().invoke(app, command.split())
    assert done.exit_code == 2
    assert words in done.output


def test_a_changed_script_is_named():
    before, now = ({"script": {"path": "t.py", "digest": digest}} for digest in ("a", "b"))
    assert list(difference(before, now)) == ["script: the content of t.py has changed"]
    assert list(difference(now, now)) == []


def test_a_report_says_first_what_it_waits_for(tmp_path, monkeypatch):
    monkeypatch.setattr(study, "report", lambda *_, **__: print("reported"))
    done = CliRunner().invoke(app, ["report", str(tmp_path)])
    assert done.output.splitlines() == ["Reading the results …", "reported"]
