"""The command in a report: whoever types it gets the same ablation."""

import shlex

import pytest
from typer.testing import CliRunner

from kbptt.ablation import Grid, study
from kbptt.ablation.ledger import Ledger
from kbptt.ablation.repeat import compare_command
from kbptt.ablation.reporting import Report
from kbptt.ablation.script_grid import ScriptGrid
from kbptt.cli.main import app

GRIDS = [
    {"methods": "baseline,clip", "seeds": 6},
    {"methods": "clip,baseline,layernorm", "seeds": [3, 1, 7], "epochs": 3, "learning_rate": 1e-05},
    {"methods": "clip", "seeds": [7], "tasks": ["temporal_order", "adding"]},
    {"methods": "baseline,clip,layernorm", "design": "add-one-in"},
    {"methods": "clip,orthogonal+layernorm", "design": "leave-one-out", "cell": "GRU"},
    {
        "methods": "baseline",
        "set": {
            "truncation": [16, "full", "artbp", {"name": "windowed", "length": 32, "stride": 8}],
            "dropout": [0, 0.5],
            "recurrent_initializer": ["orthogonal", "glorot_uniform"],
            "adding.length": [50, 100],
        },
        "sizes": [100, 20, 20],
        "optimizer": "sgd",
    },
    {"methods": "baseline", "imports": ["json"], "trial": "my module:run", "use_bias": False},
    {"methods": "baseline", "set": {"layer.name": ["it's, $HOME", "none", "true", "1", " x"]}},
    {"methods": "baseline", "clip": None, "stream": "auto"},
    {
        "methods": "baseline,clip",
        "tune": {"learning_rate": "1e-4..1e-2", "units": "16..64", "optimizer": ["sgd", "adam"]},
        "tuning_trials": 5,
        "tuning_seeds": 3,
    },
]


@pytest.mark.parametrize("given", GRIDS, ids=range(len(GRIDS)))
def test_the_command_is_read_as_the_same_grid(given, tmp_path, monkeypatch):
    grid = Grid.make(**{"tasks": "adding", **given})
    with Ledger(tmp_path / "log's dir") as ledger:
        ledger.plan(grid.configuration(), [(t.config, t.directory) for t in grid.trials()])
    report = Report(tmp_path / "log's dir", reference=None)
    program, *words = shlex.split(report.command)
    assert program == "kbptt"
    got = {}
    monkeypatch.setattr(study, "compare", lambda **arguments: got.update(arguments) or report)
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    assert got.pop("logdir") == report.directory and got.pop("reference") is None
    for name in ("config", "scheduler", "workers", "retries", "trial_timeout", "memory_limit"):
        got.pop(name)
    for name in ("extend", "overwrite", "retry_failed"):
        assert got.pop(name) is False
    again = Grid.make(**got)
    assert again.configuration() == grid.configuration()
    assert {t.key for t in again.trials()} == {t.key for t in grid.trials()}


def test_the_command_of_a_script(tmp_path, monkeypatch):
    script = tmp_path / "my train.py"
    script.write_text("def main(**options): pass")
    given = {"set": {"rate": [0.1, None], "name": ["a b"]}, "metric": "val_loss", "seeds": 2}
    for more in ({}, {"methods": "a,b", "tasks": "t", "mode": "max"}):
        grid = ScriptGrid.of(f"{script}:main", **given, **more)
        command = compare_command(grid.configuration(), grid.methods, "logs")
        got = {}
        monkeypatch.setattr(study, "compare", lambda got=got, **a: got.update(a) or FAILED)
        done = CliRunner().invoke(app, shlex.split(command)[1:])
        assert done.exit_code == 0, done.output
        keys = ("script", "metric", "mode", "seeds", "set", "methods", "tasks", "threads")
        again = ScriptGrid.of(**{name: got[name] for name in keys if name in got})
        assert again.configuration() == grid.configuration()


FAILED = type("Done", (), {"counts": {"failed": 0}})


def test_reference_and_what_is_no_configuration():
    grid = Grid.make("adding", "baseline,clip", 2).configuration()
    command = compare_command(grid, ["baseline", "clip"], "runs/a b", "clip")
    assert command == (
        "kbptt compare --tasks adding --methods baseline,clip --seeds 2 --reference clip "
        "--logdir 'runs/a b'"
    )
    for broken in ({}, {"tasks": 5, "seeds": []}, {**grid, "seeds": None}, {**grid, "more": 1}):
        assert compare_command(broken, ["clip"], "runs") is None
