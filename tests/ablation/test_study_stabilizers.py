"""scripts/study_stabilizers.py: what is tuned on, what is claimed, and what is not run twice."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

from kbptt.ablation.grid import Grid

SCRIPTS = pathlib.Path(__file__).parents[2] / "scripts"
# The validation score by method and learning rate; with the last of them a run diverges.
PEAK = {"baseline": 0.001, "orthogonal": 0.0003, "clip": 0.0001}
GAIN = {"baseline": 0.0, "orthogonal": 0.2, "clip": -0.1}


@pytest.fixture
def study(monkeypatch):
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import study_stabilizers

    yield study_stabilizers
    sys.modules.pop("study_stabilizers", None)


@pytest.fixture
def ran(study, monkeypatch):
    """The configurations of all trials that ran, instead of their training."""
    configs = []

    def trial(config):
        configs.append(config)
        method = config["method"]["name"].partition("+")[0]
        rate, seed = float(config["optimizer"]["learning_rate"]), config["seed"]
        validation = 0.9 if rate == PEAK[method] else 0.5 - 0.001 * (seed % 100)
        # On the test data the worst rate would look best.
        score = 0.5 + GAIN[method] + 0.01 * seed + (rate != PEAK[method])
        return {
            "status": "ok" if rate < 0.003 else "diverged",
            "metric": "accuracy",
            "mode": "max",
            "score": score if rate < 0.003 else None,
            "baseline": 0.1,
            "best_epoch": 2,
            "curve": {"validation": [2.0, validation, 3.0]},
            "cost": {"processor_seconds": 3.0 if method == "clip" else 2.0},
        }

    monkeypatch.setattr(study, "trial", trial)
    return configs


def run(study, monkeypatch, logdir, *arguments):
    given = ["study_stabilizers.py", "--tasks", "digits", "--logdir", str(logdir), *arguments]
    monkeypatch.setattr(sys, "argv", given)
    study.main()


def rows(logdir):
    lines = (logdir / "report.md").read_text(encoding="utf-8").splitlines()
    cells = [[c.strip(" `") for c in line.split("|")[1:-1]] for line in lines if line[:1] == "|"]
    return {row[0]: dict(zip(cells[0], row, strict=True)) for row in cells[2:]}


@pytest.mark.usefixtures("in_process")
def test_every_method_is_judged_at_its_own_rate_on_other_seeds(study, ran, monkeypatch, tmp_path):
    run(study, monkeypatch, tmp_path, "--methods", "orthogonal", "--seeds", "8")
    tuning, claim = ran[: 2 * 4 * 2], ran[2 * 4 * 2 :]
    assert {c["seed"] for c in tuning} == {100, 101}
    claimed = {(c["method"]["name"], c["optimizer"]["learning_rate"], c["seed"]) for c in claim}
    assert len(claim) == len(claimed) == 16 and {seed for *_, seed in claimed} == set(range(8))
    assert {c[:2] for c in claimed} == {
        ("baseline+rate=0.001", 0.001),
        ("orthogonal+rate=0.0003", 0.0003),
    }
    found = rows(tmp_path)
    assert list(found) == ["orthogonal", "baseline"]
    assert found["orthogonal"]["Δ"] == "+0.200 [0.200, 0.200]"
    assert found["orthogonal"]["p"] == "0.008"  # 2 / 2**8: every pair has the same sign
    assert found["orthogonal"]["time"] == "1"

    # Started again, with a further method: only that is run, and Holm's correction is stricter.
    before = len(ran)
    run(study, monkeypatch, tmp_path, "--methods", "clip", "--seeds", "8")
    assert {c["method"]["name"] for c in ran[before:]} == {"clip", "clip+rate=0.0001"}
    assert len(ran) == before + 8 + 8
    found = rows(tmp_path)
    assert list(found) == ["orthogonal", "baseline", "clip"]
    assert found["clip"]["rate"] == "0.0001 (lowest)" and found["clip"]["time"] == "1.5"
    assert found["clip"]["Δ"] == "−0.100 [−0.100, −0.100]"
    assert found["orthogonal"]["p"] == found["clip"]["p"] == "0.016"
    run(study, monkeypatch, tmp_path, "--methods", "clip,orthogonal", "--seeds", "8")
    assert len(ran) == before + 16


@pytest.mark.usefixtures("in_process")
def test_methods_are_planned_without_running(study, ran, monkeypatch, tmp_path, capsys):
    run(study, monkeypatch, tmp_path, "--list", "--methods", "chrono,clip")
    shown = capsys.readouterr().out
    assert "2 methods: baseline, clip\n" in shown  # no chrono for a SimpleRNN
    assert (
        "tuning: 16 trials; done 0\n  claim: 20 trials; done 0\n" in shown
        and not ran
        and not list(tmp_path.iterdir())
    )


def test_trial_is_that_of_compare_without_what_figures_need(study, tmp_path):
    (options := dict(study.STUDIES["copy_memory"].options)).update(lag=5, sizes=[40, 20, 20])
    arguments = {f"copy_memory.{name}": [value] for name, value in options.items()}
    grid = Grid.make("copy_memory", "clip", cell="GRU", units=4, epochs=2, set=arguments)
    program = (
        "import json, sys; from kbptt.ablation import trial; import study_stabilizers as study\n"
        "config = json.loads(sys.argv[1])\n"
        "found = study.trial(config), trial.run(config)\n"
        "assert found[1].pop('files')\n"
        "print(json.dumps(found))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, json.dumps(grid.trials()[0].config)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([*sys.path, str(SCRIPTS)])},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    ours, complete = json.loads(done.stdout)
    for name in ("score", "test", "curve", "best_epoch", "clipping", "status"):
        assert ours[name] == complete[name]
    assert 0 < ours["cost"]["processor_seconds"] < 300
    assert set(complete["gradient"]["gru_1"]) - set(ours["gradient"]["gru_1"]) == {
        *("start", "end", "record")
    }
