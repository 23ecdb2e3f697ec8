"""Controls: a difference between tuned methods has to be there at equal values too."""

import csv
import io

import numpy as np
import pytest
import rich.console
from staged_studies import of_stage, run

from kbptt.ablation import Grid, LedgerError, Results, controls, scores, sources, tuning_report
from kbptt.ablation.headline import headline
from kbptt.ablation.reporting import Report
from kbptt.ablation.rows import Trial

pytestmark = pytest.mark.usefixtures("dummies")
SPACE = {"learning_rate": [0.001, 0.01]}
TUNED = {"tasks": "adding", "methods": "baseline,clip", "tune": SPACE, "seeds": 6}


def study(score_of, chosen, methods=("baseline", "clip"), seeds=6, tasks=("adding",)):
    """A study whose searches are over, with its controls.

    Args:
        score_of: Function of method, learning rate, seed and task.
        chosen: The learning rate of each method, or of each pair of method and task.
    """
    grid = Grid.make(**{**TUNED, "methods": list(methods), "seeds": seeds, "tasks": list(tasks)})

    def done(trial):
        method, task = (trial.config[section]["name"] for section in ("method", "task"))
        rate = trial.config["optimizer"]["learning_rate"]
        score = score_of(method, rate, trial.config["seed"], task)
        result = {"status": "ok", "metric": "accuracy", "mode": "max", "score": score}
        return Trial(
            trial.key, trial.config, trial.directory, "done", 1, result | {"baseline": 0.0}
        )

    found = []
    for arm in grid.arms:
        method, task = (arm.config[section]["name"] for section in ("method", "task"))
        rate = chosen.get((method, task), chosen.get(method))
        config = {**arm.config, "tuned": {"learning_rate": rate}}
        config["optimizer"] = {**config["optimizer"], "learning_rate": rate}
        tuned = Trial.planned(config, arm.directory)
        found += [done(tuned.with_seed(seed)) for seed in range(seeds)]
    needed = controls.needed(Results(found))
    return Results([*found, *map(done, needed)]), needed


def noise(method, seed):
    return 0.01 * ((7 * seed + len(method)) % 5)


def by_rate(method, rate, seed, task):
    """What differs is the learning rate alone."""
    return (0.3 if rate == 0.01 else 0.5) + noise(method, seed)


def by_method(method, rate, seed, task):
    """At every learning rate "clip" is better."""
    return (0.6 if method == "clip" else 0.4) + (0.1 if rate == 0.001 else 0) + noise(method, seed)


def test_a_difference_of_the_searches_is_none_of_the_methods():
    results, needed = study(by_rate, {"baseline": 0.01, "clip": 0.001})
    ((_, p),) = controls.own_tests(results, "adding").values()
    assert p == 2 / 2**6  # each at its own value, "clip" wins with every seed
    assert [(t.config["method"]["name"], t.config["seed"]) for t in needed] == [
        ("baseline", seed) for seed in range(6)
    ]
    assert {t.config["optimizer"]["learning_rate"] for t in needed} == {0.001}
    assert needed[0].directory == "control/baseline/adding/learning_rate=0.001/0"
    assert controls.p_values(results, "adding")["clip"] > 0.05
    for row in (*results.table(), *results.task_table("adding")):
        assert row.comparison is None or row.p > 0.05
    (note,) = tuning_report.notes(results, {})  # once, although the table of all tasks shows it too
    assert note.startswith("clip and baseline on adding:")
    assert "not confirmed, since baseline at the tuned values of clip" in note


def test_a_method_that_is_worse_is_controlled_at_the_values_of_the_reference():
    results, needed = study(by_rate, {"baseline": 0.001, "clip": 0.01})
    assert {t.config["method"]["name"] for t in needed} == {"clip"}
    assert controls.p_values(results, "adding")["clip"] > 0.05
    results, _ = study(
        lambda *run: 1 - by_method(*run), {"baseline": 0.01, "clip": 0.001}
    )  # with a learning rate that is the better one for it, "clip" is still worse
    assert controls.p_values(results, "adding")["clip"] == 2 / 2**6


def test_a_difference_of_the_methods_stays():
    results, needed = study(by_method, {"baseline": 0.01, "clip": 0.001})
    assert len(needed) == 6 and controls.p_values(results, "adding") == {"clip": 2 / 2**6}
    assert [row.p for row in results.table() if row.comparison] == [2 / 2**6]
    assert controls.unconfirmed(results) == []


def test_no_control_is_needed_at_equal_values_or_without_a_difference():
    results, needed = study(by_method, {"baseline": 0.01, "clip": 0.01})
    assert needed == [] and controls.p_values(results, "adding") == {"clip": 2 / 2**6}
    results, needed = study(
        lambda method, rate, seed, task: noise(method, seed), {"baseline": 0.01, "clip": 0.001}
    )
    assert needed == [] and controls.p_values(results, "adding")["clip"] > 0.05
    _, needed = study(by_rate, {"baseline": 0.01, "clip": 0.001}, seeds=5)
    assert needed == []  # five seeds show nothing at 5 %


def test_a_difference_without_its_control_is_not_significant():
    results, _ = study(by_method, {"baseline": 0.01, "clip": 0.001})
    without = [t for t in results.trials if t.config.get("stage") != "control"]
    assert controls.p_values(Results(without), "adding") == {"clip": 1.0}
    assert "has not run: compare again." in tuning_report.notes(Results(without), {})[0]
    # The same with another reference than the study was run for.
    other = Results(results.trials, "clip")
    assert controls.p_values(other, "adding") == {"baseline": 2 / 2**6}


def test_one_run_controls_for_all_methods_with_the_same_values():
    chosen = {"baseline": 0.01, "clip": 0.001, "layernorm": 0.001}
    results, needed = study(
        lambda method, *run: by_method(method.replace("layernorm", "clip"), *run),
        chosen,
        tuple(chosen),
    )
    assert len(needed) == 6
    assert set(controls.p_values(results, "adding").values()) == {2 / 2**6}


def test_tasks_are_controlled_where_their_values_differ():
    chosen = {("baseline", "adding"): 0.01, ("clip", "adding"): 0.001}
    chosen |= {("baseline", "copy_memory"): 0.01, ("clip", "copy_memory"): 0.01}
    results, needed = study(by_method, chosen, tasks=("adding", "copy_memory"))
    assert {t.config["task"]["name"] for t in needed} == {"adding"} and len(needed) == 6
    assert {controls.p_values(results, task)["clip"] for task in (None, *results.tasks)} == {
        2 / 2**6
    }


def test_a_study_runs_its_controls_last(tmp_path):
    """Of the dummy, "clip" is worse on the test data, also at the baseline's learning rate."""
    tune = {"learning_rate": [0.001, 0.005]}
    grid = Grid.make(**{**TUNED, "tune": tune, "trial": "dummy_trials:validated"})
    trials = run(grid, tmp_path)
    control = of_stage(trials, "control")
    assert trials[-6:] == control and {t.state for t in control} == {"done"}
    assert {t.config["method"]["name"] for t in control} == {"clip"}
    assert controls.p_values(Results(trials), "adding") == {"clip": 2 / 2**6}
    assert run(grid, tmp_path) == trials
    more = run(Grid.make(**{**TUNED, "tune": tune, "seeds": 7, "trial": "dummy_trials:validated"}),
               tmp_path, extend=True)  # fmt: skip
    assert len(of_stage(more, "control")) == 7 and more[: len(trials)] == trials


def test_differences_of_many_methods_are_listed_up_to_a_limit():
    names = [f"clip{i}" for i in range(tuning_report.LISTED + 2)]
    written = [f"{name} and baseline on adding" for name in names]
    results, _ = study(by_rate, {"baseline": 0.01, "clip": 0.001})
    found = [(name, "baseline", "baseline") for name in names]
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(controls, "unconfirmed", lambda *_: found)
        patched.setattr(results, "values", lambda *_, at: np.zeros((6, 1)))
        notes = tuning_report.notes(results, {})
    assert [note.partition(":")[0] for note in notes[:-1]] == written[: tuning_report.LISTED]
    assert notes[-1] == "2 more differences are not confirmed either."


def exported(results, path, without=()):
    """The report on the CSV file of a report, without some of its columns."""
    with open(path, "w", newline="") as file:
        scores.write(results, file)
    rows = list(csv.DictReader(path.read_text().splitlines()))
    rows = [row for row in rows if not without or not row["stage"]]
    names = [name for name in scores.COLUMNS if name not in without]
    path.write_text(scores.text(names, [{n: row[n] for n in names} for row in rows]))
    return Report(path.parent / "out", csv=path)


@pytest.mark.parametrize("by", [by_rate, by_method])
@pytest.mark.parametrize("tasks", [("adding",), ("adding", "temporal_order")])
def test_a_report_on_the_csv_file_finds_the_same(by, tasks, tmp_path):
    results, _ = study(by, {"baseline": 0.01, "clip": 0.001}, tasks=tasks)
    found = exported(results, tmp_path / "results.csv")
    again = found.results
    assert found.headline == headline(results)
    assert ("clip is best" in found.headline) == (by is by_method)
    for table in (Results.table, *(lambda r, t=t: r.task_table(t) for t in tasks)):
        assert repr(table(again)) == repr(table(results))
    assert tuning_report.notes(again, {}) == tuning_report.notes(results, {})
    assert (len(found.notes()) == 0) == (by is by_method)
    assert len(again.controls()) == len(results.controls()) == 6 * len(tasks)
    assert exported(again, tmp_path / "again.csv").csv() == found.csv()
    assert [path.suffix for path in found.write()] == [".md", ".html", ".tex"]


def test_a_csv_file_without_the_controls_confirms_no_difference(tmp_path):
    """That of an older kbptt; one of any other origin, without tuned values, is as ever."""
    results, _ = study(by_method, {"baseline": 0.01, "clip": 0.001})
    older = exported(results, tmp_path / "results.csv", without=["stage"])
    assert older.rows[0].p == 1.0 and "clip is best" not in older.headline
    assert older.notes()[0] == sources.UNCONTROLLED and "not confirmed" in older.notes()[1]
    foreign = exported(results, tmp_path / "results.csv", without=["stage", "tuned"])
    assert foreign.rows[0].p == 2 / 2**6 and foreign.notes() == []
    results, _ = study(by_method, {"baseline": 0.01, "clip": 0.01})
    same = exported(results, tmp_path / "results.csv", without=["stage"])
    assert same.rows[0].p == 2 / 2**6


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["a,t,0,1,x=1,search"], "column 'stage': expected 'control' or"),
        (["a,t,0,1,,control"], "column 'tuned': expected the values of the control"),
        (["a,t,0,1,x=1,control"], "has no runs below"),
        (["a,t,0,1,x=2,", *2 * ["a,t,0,1,x=1,control"]], "line 4: .*are already in line 3"),
    ],
)
def test_wrong_controls_in_a_csv_file_are_named(lines, message, tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("\n".join(["method,task,seed,score,tuned,stage", *lines]))
    with pytest.raises(LedgerError, match=message):
        scores.read(path)


def test_a_p_that_a_control_decided_is_marked(tmp_path):
    results, _ = study(by_rate, {"baseline": 0.01, "clip": 0.001})
    report = exported(results, tmp_path / "results.csv")
    for table in report.tables():
        cell = table.lines[0][table.header.index("p")]
        assert cell == "1.000 †" and cell.value == 1.0
        assert table.footnote.startswith("† p of the control")
    console = rich.console.Console(file=io.StringIO(), width=120)
    report.print(console)
    for text in (report.markdown(), report.html(), console.file.getvalue()):
        assert "1.000 †" in text and "† p of the control, with both methods" in text
    assert 'data-value="1.0">1.000 †' in report.html()
    assert report.latex().count(r"\textdagger{} p of the control") == len(report.tables())
    results, _ = study(by_method, {"baseline": 0.01, "clip": 0.001})
    report = exported(results, tmp_path / "results.csv")
    assert not any(table.footnote for table in report.tables()) and "†" not in report.html()
