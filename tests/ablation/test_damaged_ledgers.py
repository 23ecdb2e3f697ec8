"""Ledgers that are valid SQLite and hold anything else than what a run writes."""

import json
import random
import shutil
import sqlite3
import warnings

import numpy as np
import pytest

import kbptt
from kbptt.ablation import runner
from kbptt.ablation.arrays import encode
from kbptt.ablation.grid import Grid

GRID = {"tasks": "adding", "methods": "baseline,clip", "seeds": 2, "trial": "dummy_trials:score"}
DEEP = "[" * 100_000 + "]" * 100_000
CELLS = [
    *("{}", "[]", "null", '"x"', "1e999", "-1e999", "NaN", "0", "-1", "1" + "0" * 400, DEEP),
    *('{"a": ' * 60 + "1" + "}" * 60, '{"task": {}}', '{"status": "ok"}', "true", "", "x", "\0"),
    *('"\\ud800"', '"\x1b[31m\u202e"', "{", "../../outside", "/tmp", ".", "a/../..", "x" * 5000),
    *(5, 2.5, -(2**63), 2**63 - 1, 1e308, b"\xff\xfe", b"{}", b"\0", "done", "pending", "1"),
]
VALUES = [
    *({}, [], None, "x", 1e999, -1e999, True, 10**400, 1e308, -1, 0, [[1]], {"a": {}}, {"": 0}),
    *("\x1b[31m\u202e", "\ud800", "\0", [None, "x"], [1e999]),
]
COLUMNS = ("config", "result", "state", "directory", "attempts", "error", "position", "key")


def values_within(value, path=()):
    """Paths to everything inside a JSON value."""
    yield path
    if isinstance(value, dict | list):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from values_within(inner, (*path, key))


def put(value, path, new):
    if not path:
        return new
    changed = dict(value) if isinstance(value, dict) else list(value)
    changed[path[0]] = put(value[path[0]], path[1:], new)
    return changed


def damage(path, rng):
    """Replaces a cell of the ledger, or something within its JSON; returns what was done."""
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA ignore_check_constraints = 1")
        if rng.random() < 0.15:
            name = rng.choice(["configuration", "format", "commits"])
            new = rng.choice(CELLS)
            connection.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (name, new))
            return f"meta {name}: {new!r:.60}"
        column = rng.choice(COLUMNS[:2] * 4 + COLUMNS)
        rows = connection.execute(f"SELECT rowid, {column} FROM trials ORDER BY rowid").fetchall()
        row, old = rng.choice(rows)
        new, where = rng.choice(CELLS), ""
        if column in ("config", "result") and str(old)[:2] == '{"' and rng.random() < 0.75:
            where = rng.choice(list(values_within(json.loads(old))))
            new = json.dumps(put(json.loads(old), where, rng.choice(VALUES)))
        try:
            connection.execute(f"UPDATE trials SET {column} = ? WHERE rowid = ?", (new, row))
        except sqlite3.IntegrityError:  # two rows with one key or directory
            pass
        return f"{column} {where} of row {row}: {new!r:.60}"


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """A finished study, with results that hold every part that the report shows."""
    norms = np.array([0.25, 0.5, 1.0], np.float32)
    gradient = {
        "start": norms.tolist(),
        "end": norms.tolist(),
        "statistics_end": {"decay": 0.5, "horizon": 2.0},
        "record": {"steps": [0, 5], "timesteps": 3, "norms": encode(np.stack([norms, norms]))},
    }
    result = {
        "status": "ok",
        "metric": "accuracy",
        "mode": "max",
        "baseline": 0.5,
        "success_threshold": 0.9,
        "best_epoch": 1,
        "test": {"accuracy": 0.5},
        "curve": {"epoch": [1, 2], "validation": [0.5, 0.75]},
        "gradient": {"lstm": gradient},
        "clipping": {"clip": {"clip_rate": 0.25, "skipped": 2.0}},
        "cost": {"seconds_per_step": 0.01, "training_memory_bytes": 2**30, "seconds": 3.0},
        "environment": {"tensorflow": "2.21", "devices": ["CPU"], "threads": 1},
    }
    logdir = tmp_path_factory.mktemp("sound") / "logs"
    with runner.open_ledger(Grid.make(**GRID), logdir) as ledger:
        for trial in ledger.trials():
            ledger.finish(trial.key, {**result, "score": 0.6 + trial.config["seed"] / 10})
    return logdir


@pytest.mark.parametrize("part", range(4))
def test_a_sentence_or_a_report(part, sound, in_process, tmp_path, monkeypatch):
    """160 seeded damages: report and resume go on, or end in one sentence."""
    from kbptt.ablation import figures, study

    # Drawing takes most of the time: here it is done once in twenty cases.
    draw, counts = figures.draw, {"report": 0, "resume": 0}
    monkeypatch.setattr(study, "git_commit", lambda: "0" * 40)
    for case in range(part * 40, part * 40 + 40):
        rng, logdir = random.Random(case), tmp_path / str(case)
        shutil.copytree(sound, logdir)
        done = [damage(logdir / "ledger.sqlite", rng) for _ in range(rng.randint(1, 3))]
        for what in ("report", "resume", "report"):
            drawn = case % 20 == 0 and what != "resume"
            monkeypatch.setattr(figures, "draw", draw if drawn else lambda results: [])
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("error")
                    if what == "report":
                        kbptt.ablation.report(logdir, verbose=False)
                    else:
                        retry = rng.random() < 0.5
                        kbptt.ablation.compare(
                            **GRID, logdir=logdir, verbose=False, retry_failed=retry
                        )
                counts[what] += 1
            except ValueError as error:
                text = str(error)
                assert type(error).__module__.startswith(("kbptt", "builtins")), (case, done)
                assert text.rstrip()[-1] in ".:" or "\n" in text, (case, done, text)
                assert "Expecting" not in text and "\x1b" not in text, (case, done, text)
            except Exception as error:
                raise AssertionError(f"case {case}, {what}: {done}") from error
        shutil.rmtree(logdir)
    assert counts["report"] >= 60 and counts["resume"] >= 25, counts


def test_a_damaged_row_is_mended_or_run_again(sound, in_process, tmp_path):
    logdir = tmp_path / "logs"
    shutil.copytree(sound, logdir)

    def change(column, value, position):
        with sqlite3.connect(logdir / "ledger.sqlite") as connection:
            connection.execute(
                f"UPDATE trials SET {column} = ? WHERE position = ?", (value, position)
            )

    change("config", "{}", 0)
    change("directory", "../outside", 1)
    change("result", "[]", 2)
    change("result", '{"status": "ok"}', 3)
    assert kbptt.ablation.report(logdir, verbose=False).counts["unreadable"] == 4
    resumed = kbptt.ablation.compare(**GRID, logdir=logdir, verbose=False)
    # The plan holds configurations and directories; a result is gone, and said to be.
    assert (resumed.counts["done"], resumed.counts["failed"]) == (2, 2)
    assert resumed.counts["unreadable"] == 0
    assert "no JSON object" in resumed.failures()[0][1] and "'metric'" in str(resumed.failures())
    again = kbptt.ablation.compare(**GRID, logdir=logdir, verbose=False, retry_failed=True)
    assert again.counts["done"] == 4
    assert not (tmp_path / "outside").exists()
