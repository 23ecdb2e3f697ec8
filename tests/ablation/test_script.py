"""A user's script as the trial: its options, its metrics, and what is said when it goes wrong."""

import json
import os
import pathlib
import textwrap

import psutil
import pytest

from kbptt import ablation
from kbptt.ablation import runner, script, worker
from kbptt.ablation.errors import TrialError
from kbptt.ablation.ledger import LedgerError
from kbptt.ablation.results import Results
from kbptt.ablation.script_grid import ScriptGrid
from kbptt.ablation.supervision import Limits

PLAIN = """
import argparse, json
parser = argparse.ArgumentParser()
parser.add_argument("--learning-rate", type=float)
parser.add_argument("--hidden_units", type=int, nargs="+")
parser.add_argument("--bias", action="store_true")
parser.add_argument("--seed", type=int)
parser.add_argument("--logdir")
given = vars(parser.parse_args())
with open(given.pop("logdir") + "/events", "w") as file:
    file.write("events")
print("not", json.dumps({"val_accuracy": 0}))
print(json.dumps({"val_loss": [2.0, 1.5], "val_accuracy": given["learning_rate"], "given": given}))
print("done")
"""


@pytest.fixture(autouse=True)
def elsewhere(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)


def planned(source, name="train.py", function="", **arguments):
    pathlib.Path(name).write_text(textwrap.dedent(source))
    return ScriptGrid.of(f"{name}:{function}" if function else name, **arguments)


def execute(grid, *limits):
    return worker.execute(grid.trials()[0].config, Limits(*limits))


def failure(source, *limits, **arguments):
    with pytest.raises(TrialError) as error:
        execute(planned(source, **arguments), *limits)
    return error.value


def test_an_ordinary_script_gets_its_options_as_it_spells_them():
    options = {"learning_rate": 0.5, "hidden-units": [8, 4], "bias": True, "dropout": None}
    options["hidden-units"] = [options["hidden-units"]]  # one value, which is a list
    result = execute(planned(PLAIN, set=options, seeds=[3], metric="val_accuracy"))
    stdout = result["files"].pop("stdout.txt").decode()
    given = json.loads(stdout.splitlines()[1])["given"]
    assert given == {"learning_rate": 0.5, "hidden_units": [8, 4], "bias": True, "seed": 3}
    assert result["files"] == {"events": b"events"}
    assert (result["metric"], result["mode"], result["score"]) == ("val_accuracy", "max", 0.5)
    assert result["curve"] == {"val_loss": [2.0, 1.5]}
    assert result["test"] == {"val_loss": 1.5, "val_accuracy": 0.5}
    assert result["status"] == "ok" and result["cost"]["seconds"] > 0


def test_options_without_a_value_are_left_out():
    assert script.typed("--a", False) == script.typed("--a", None) == []
    assert script.typed("--a", True) == ["--a"]
    assert script.typed("--a", [1e-3, "x"]) == ["--a", "0.001", "x"]
    assert script.typed("--a", {"b": 1}) == ["--a", '{"b": 1}']
    source = "add_argument('--learning-rate'); add_argument('--log-every')"
    assert script.flag("learning_rate", source) == "--learning-rate"
    assert script.flag("learning-rate", source) == "--learning-rate"
    assert script.flag("log", source) is None


FUNCTION = """
import kbptt
import numpy as np

def main(units, seed, log_dir, method):
    trial = kbptt.ablation.current()
    assert (trial.options, trial.seed, trial.method) == ({"units": units}, seed, method)
    assert trial.log_dir == log_dir
    print({"loss": "what it prints does not count"})
    return {"loss": np.array([3.0, 2.0, units], "float32"), "extra": np.float64(1)}

if __name__ == "__main__":
    raise SystemExit("called as a program")
"""


def test_a_function_of_a_script():
    grid = planned(FUNCTION, function="main", methods="plain,clip", units=7)
    result = execute(grid)
    assert (result["metric"], result["mode"], result["score"]) == ("loss", "min", 7)
    assert result["curve"]["validation"] == [3, 2, 7]
    one = planned("def main(x, **others):\n    return x * len(others)", function="main", x=2)
    assert execute(one)["score"] == 8
    assert ablation.current() == ablation.Current()  # outside of a trial


def test_a_run_that_diverged():
    for reported in ('{"loss": NaN}', '{"loss": Infinity}', '{"loss": 1, "status": "diverged"}'):
        result = script.result_of(script.last_object(reported), None, None)
        assert (result["status"], result["score"]) == ("diverged", None)


@pytest.mark.parametrize(
    ("metric", "mode"),
    [
        *(("val_loss", "min"), ("test/RMSE", "min"), ("Perplexity", "min")),
        *(("accuracy", "max"), ("f1", "max"), ("accuracy_error", None), ("quality", None)),
    ],
)
def test_which_direction_is_better(metric, mode):
    assert script.direction(metric) == mode


def test_failures_are_sentences_with_the_end_of_the_output():
    error = failure("print('before')\nraise KeyError('by design')")
    assert str(error).startswith(
        "train.py ended with exit code 1. The last line of its stderr: KeyError: 'by design' … "
        'after: Traceback (most recent call last): ↵ File "train.py", line 2, in <module>'
    )
    assert not error.final
    error = failure("import argparse; argparse.ArgumentParser().parse_args()", rate=1)
    assert "unrecognized arguments: --rate 1" in str(error) and error.final
    error = failure("import os\nprint('bye', flush=True)\nos.kill(os.getpid(), 9)")
    assert "train.py was killed by SIGKILL" in str(error) and str(error).endswith("stdout: bye")
    assert "reported no metrics" in str(failure("print(1)"))
    error = failure("print('{\"loss\": 1}')", metric="accuracy")
    assert "did not report the metric 'accuracy', but loss." in str(error)
    assert "Add --mode max or --mode min" in str(failure("print('{\"quality\": 1}')"))


def test_a_crash_of_a_function_shows_the_frames_of_the_script_alone():
    source = """
        import json

        def main(depth):
            return json.loads("[" * depth + "x")
    """
    error = str(failure(source, function="main", depth=1))
    assert "child.py" not in error and "importlib" not in error
    own = os.path.abspath("train.py")
    assert f'Traceback (most recent call last): ↵ File "{own}", line 5, in main ↵ return' in error
    assert "JSONDecodeError" in error
    error = str(failure("def main(other):\n    pass", function="main"))
    assert "child.py" not in error and "missing 1 required positional argument" in error


def test_the_line_of_the_script_is_shown_above_a_long_traceback():
    source = """
        import pathlib
        pathlib.Path("deep.py").write_text(
            "def down(levels):\\n    if not levels:\\n        raise KeyError('deep')\\n"
            + "".join(f"    if levels == {n}:\\n        down({n - 1})\\n" for n in range(1, 30))
        )
        import deep
        deep.down(25)  # of the user
    """
    error = str(failure(source))
    assert "line 8, in <module> ↵ deep.down(25) # of the user" in error
    assert "stderr: KeyError: 'deep'" in error and "raise KeyError('deep')" in error
    assert len(error) < 1000


def test_a_script_that_never_ends_is_killed():
    source = """
        import signal, time
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        time.sleep(300)
    """
    error = failure(source, 0.5)
    assert str(error) == "It was still running at the time limit of 0.5 s." and error.final


def test_a_script_that_takes_too_much_memory_is_killed_with_what_it_started():
    source = """
        import os, subprocess, sys, time
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"])
        print(child.pid)
        held = bytearray(os.urandom(2**20) * 300)
        time.sleep(300)
    """
    error = failure(source, None, 200_000_000)
    assert "of memory; the limit is 190.73 MiB." in str(error) and error.final
    left = int(str(error).rpartition(" ")[2])
    while psutil.pid_exists(left) and psutil.Process(left).status() != "zombie":
        pass


def test_a_changed_script_is_refused(monkeypatch, tmp_path):
    grid = planned(PLAIN, learning_rate=1)
    config = grid.trials()[0].config
    worker.check(config, Limits())
    with runner.open_ledger(grid, "logs") as ledger:  # with a result to lose
        ledger.fail(grid.trials()[0].key, "by design")
    with pytest.raises(LedgerError, match=r"script: the content of train\.py has changed"):
        runner.open_ledger(planned(PLAIN + "\n", learning_rate=1), "logs")
    with pytest.raises(TrialError, match=r"train\.py is not the script with which the study was"):
        worker.execute(config, Limits())
    os.mkdir("other machine")
    monkeypatch.chdir("other machine")
    with pytest.raises(TrialError, match=r"Cannot read the script 'train\.py' in '.*other machine"):
        worker.check(config, Limits())


def test_what_is_compared_is_named_by_what_differs():
    grid = planned("", set={"a": [1, 2], "b": ["x", None]}, seeds=2)
    assert [t.directory for t in grid.trials()[:3]] == [
        f"{label}/train/0" for label in ("a=1,b=x", "a=1,b=none", "a=2,b=x")
    ]
    results = Results(grid.trials())
    assert results.arms == ["a=1, b=x", "a=1, b=none", "a=2, b=x", "a=2, b=none"]
    assert {results.reference_of(arm) for arm in results.arms[1:]} == {"a=1, b=x"}
    grid = planned("", set={"a": [1, 2]}, methods="clip,baseline", tasks="short,long")
    results = Results(grid.trials())
    assert results.arms[:2] == ["clip [a=1]", "baseline [a=1]"] and len(grid.trials()) == 8
    assert results.tasks == ["short", "long"]
    assert results.reference_of("clip [a=1]") == "baseline [a=1]"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"script": "absent.py"}, "Cannot read the script 'absent.py'"),
        ({"script": "."}, "it is a directory"),
        ({"set": {"seed": [1]}}, "cannot be set with --set; use --seeds"),
        ({"set": {"a": [1, 1]}}, "listed twice"),
        ({"set": {"a b": [1]}}, "Expected the name of an option"),
        ({"set": {"a": [float("nan")]}}, "not a plain value"),
        ({"set": {"a": []}}, "has no values"),
        ({"a": 1, "set": {"a": [2]}}, "given twice"),
        ({"mode": "up"}, "mode"),
        ({"metric": "quality"}, "Add mode='max' or mode='min'"),
        ({"design": "grid"}, r"`design` \(--design\) is for kbptt's own trials, not for a script"),
        ({"tune": {"a": "1..2"}}, r"`tune` \(--tune\) is .*: --trial MODULE:FUNCTION"),
        ({"tuning_trials": 3}, r"`tuning_trials` \(--trials\) is .*: --trial MODULE:FUNCTION"),
        ({"methods": ""}, "is empty"),
        ({"methods": ["a", "a"]}, "listed twice"),
    ],
)
def test_what_is_refused_before_anything_runs(arguments, words):
    pathlib.Path("train.py").write_text(PLAIN)
    with pytest.raises(ValueError, match=words):
        ScriptGrid.of(**{"script": "train.py", **arguments})


def test_a_script_that_is_no_python_is_refused():
    with pytest.raises(ValueError, match=r"is not valid Python: .*line 2"):
        planned("\nprint(")


@pytest.mark.usefixtures("in_process")
def test_a_study_of_a_script_ranks_by_its_metric(capsys, monkeypatch):
    monkeypatch.setattr(runner, "execute", worker.execute)
    monkeypatch.setattr(runner, "check", worker.check)
    pathlib.Path("train.py").write_text(
        "import json, sys\n"
        "given = dict(zip(sys.argv[1::2], sys.argv[2::2]))\n"
        "rate, seed = float(given['--rate']), int(given['--seed'])\n"
        "print(json.dumps({'loss': [rate + 9, rate + seed / 100]}))\n"
    )
    report = ablation.compare(
        script="train.py", set={"rate": [3, 1, 2]}, seeds=6, logdir="runs", workers=1
    )
    assert [row.arm for row in report.rows] == ["rate=1", "rate=2", "rate=3"]
    assert report.rows[0].mean.value == pytest.approx(1.025)
    assert report.rows[0].comparison.difference.value == pytest.approx(-2)
    assert report.results.unit == "loss"
    shown = capsys.readouterr().out
    assert "mean loss" in shown and "skill" not in shown
    markdown = pathlib.Path("runs/report.md").read_text()
    assert "train: loss (smaller is better)" in markdown and "All tasks" not in markdown
    again = ablation.compare(script="train.py", set={"rate": [3, 1, 2]}, seeds=6, logdir="runs")
    assert [row.mean for row in again.rows] == [row.mean for row in report.rows]
