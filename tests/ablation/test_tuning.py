"""Studies with tuning: the same budget for all, on seeds of its own, then the comparison."""

import csv
import math

import pytest
from staged_studies import TUNED, of_stage, run

import kbptt
from kbptt.ablation import Grid, Ledger, LedgerError, Results, stages, tuning, tuning_report
from kbptt.ablation.rows import Trial

pytestmark = pytest.mark.usefixtures("dummies")


def study(logdir, **changes):
    """Runs a study and returns its trials."""
    opening = {n: changes.pop(n) for n in ("extend", "retry_failed") if n in changes}
    return run(Grid.make(**{**TUNED, **changes}), logdir, **opening)


def rates(found):
    """The learning rates of trials by method, in the order of the ledger."""
    by_method = {}
    for trial in found:
        of_method = by_method.setdefault(trial.config["method"]["name"], [])
        of_method.append(trial.config["optimizer"]["learning_rate"])
    return by_method


def points(found, scores, mode="max", baseline=None, **result):
    """A search whose trials have scores; "crashed" and None (diverged) are none."""

    def outcome(score):
        if score == "crashed":
            return {"state": "failed"}
        status = "ok" if score is not None else "diverged"
        result = {"status": status, "mode": mode, "score": score, "baseline": baseline}
        return {"state": "done", "result": result | {"validation_score": score}}

    config = {"training": {}}
    return [
        tuning.Point({"units": i}, [Trial("", config, "", **outcome(s)) for s in row])
        for i, row in enumerate(scores)
    ]


def test_every_method_gets_the_same_budget_then_its_best_value(tmp_path):
    trials = study(tmp_path)
    searched, compared = of_stage(trials, "tuning"), of_stage(trials, None)
    assert len(searched) == 2 * 4 * 2 and len(compared) == 2 * 2
    tried = rates(searched)
    assert tried["baseline"] == tried["clip"] and len(set(tried["clip"])) == 4
    seeds = [t.config["seed"] for t in searched if t.config["method"]["name"] == "clip"]
    assert seeds == [10**9, 10**9 + 1] * 4
    assert {t.config["seed"] for t in compared} == {0, 1}

    def nearest(best):
        return min(tried["clip"], key=lambda rate: abs(math.log(rate / best)))

    # The dummy's validation scores peak there; its test scores are the worst there.
    assert rates(compared) == {"baseline": [nearest(0.001)] * 2, "clip": [nearest(0.005)] * 2}
    results = Results(trials)
    assert results.arms == ["baseline", "clip"]  # no learning rate in the label
    assert results.seeds == [0, 1]
    assert [t.directory for t in compared[:2]] == ["baseline/adding/0", "clip/adding/0"]
    assert study(tmp_path) == trials


def test_each_task_and_each_value_of_an_axis_has_a_search_of_its_own(tmp_path):
    changes = {"tasks": "adding,copy_memory", "set": {"units": [8, 16]}, "tuning_seeds": 1}
    trials = study(tmp_path, **changes)
    assert len(of_stage(trials, "tuning")) == 2 * 2 * 2 * 4
    results = Results(trials)
    assert sorted(results.arms) == [
        f"{method} [units={units}]" for method in ("baseline", "clip") for units in (16, 8)
    ]
    assert len(results.searches) == 8


@pytest.mark.parametrize("sampler", ["quasi-random", "tpe"])
def test_a_study_that_stopped_anywhere_goes_on_with_the_same_trials(tmp_path, sampler):
    changes = {"tuning_sampler": sampler, "tuning_trials": 6, "tuning_seeds": 1}
    grid = Grid.make(**{**TUNED, **changes})
    whole = run(grid, tmp_path / "whole")
    for count in range(0, len(whole), 3):
        logdir = tmp_path / str(count)
        stopped = run(grid, logdir, stop_after=count)
        assert [t.state for t in stopped].count("done") == count
        resumed = run(grid, logdir)
        assert [(t.key, t.result) for t in resumed] == [(t.key, t.result) for t in whole]


def test_seeds_of_searches_and_comparison_never_meet():
    with pytest.raises(ValueError, match="expected seeds below 1000000000"):
        Grid.make(**{**TUNED, "seeds": [0, 10**9 + 7]})
    grid = Grid.make(**{**TUNED, "seeds": [0, 10**9 - 1], "tuning_seeds": 50})
    assert not set(grid.tuning.seeds) & set(grid.seeds)
    # Nor does what components draw from them.
    parts = [f"data/{part}" for part in ("train", "validation", "test")]
    drawn = [kbptt.tasks.derive_seed(seed, p) for seed in (*range(100), *range(10**9, 10**9 + 100))
             for p in parts]  # fmt: skip
    assert len(set(drawn)) == len(drawn)


def test_images_that_are_split_by_seed_keep_their_test_part():
    grid = Grid.make(**{**TUNED, "tasks": "digits,adding"})
    assert [a.config["task"]["options"] for a in grid.arms[::2]] == [{"fixed_test": True}, {}]
    with pytest.raises(ValueError, match="another seed is tested on"):
        Grid.make(**{**TUNED, "tasks": "digits", "set": {"fixed_test": [False]}})


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"tune": None}, r"--trials \(`tuning_trials`\) is given, but there is nothing"),
        ({"tuning_trials": 0}, "tuning_trials=0"),
        ({"tuning_seeds": -1}, "tuning_seeds=-1"),
        ({"tuning_sampler": "grid"}, "one of 'quasi-random', 'tpe'"),
        ({"learning_rate": 0.01}, "given twice"),
        ({"tuning_trials": 20_000}, "at most 50,000"),
        ({"tune": {"dropout": "0.1..0.2"}, "methods": "dropout_sets"}, "Unknown method"),
        ({"tune": {"zoneout": "0.1..0.2"}, "methods": "zoneout"}, "Method 'zoneout' sets"),
    ],
)
def test_mistakes_are_refused_before_anything_is_planned(changes, message):
    with pytest.raises(ValueError, match=message):
        Grid.make(**{**TUNED, **changes})


def test_failed_trials_count_as_the_worst():
    search = points(5, [(0.9, None), (0.6, 0.7), ("crashed", 0.8), (0.5, 0.5)], baseline=0.3)
    assert tuning.scores(search) == pytest.approx([0.6, 0.65, 0.55, 0.5])
    assert tuning.best(search).values == {"units": 1}
    # Without a baseline the worst score of the search; errors are better when smaller.
    search = points(5, [(1.0, None), (2.0, 2.5)], mode="min")
    assert tuning.scores(search) == pytest.approx([-1.75, -2.25])
    # All diverged: the first; all crashed: nothing to compare.
    assert tuning.best(points(2, [(None,), (None,)])).values == {"units": 0}
    assert tuning.best(points(2, [("crashed",), ("crashed",)])) is None
    assert tuning.scores(points(1, [(1e308, 1e308)])) == [1e308]


def test_the_validation_score_of_a_result():
    result = {"status": "ok", "mode": "max", "curve": {"validation": [0.1, 0.7, math.nan, 0.6]}}
    best, last = {"training": {"checkpoint": "best"}}, {"training": {"checkpoint": "last"}}
    assert tuning.validation_score(result, best) == 0.7
    assert tuning.validation_score(result, last) == 0.6
    assert tuning.validation_score(result | {"mode": "min"}, best) == 0.1
    assert tuning.validation_score(result | {"validation_score": 0.3}, best) == 0.3
    assert tuning.validation_score(result | {"validation_score": math.nan}, best) is None
    assert tuning.validation_score(result | {"status": "diverged"}, best) is None
    with pytest.raises(ValueError, match="never the test data"):
        tuning.validation_score({"status": "ok", "mode": "max", "score": 0.9}, best)


def test_crashes_and_divergences_use_up_the_budget(tmp_path):
    trials = study(tmp_path, trial="dummy_trials:fragile")
    searched = of_stage(trials, "tuning")
    states = [(t.state, (t.result or {}).get("status")) for t in searched]
    assert states.count(("failed", None)) == 4 and states.count(("done", "diverged")) == 4
    compared = rates(of_stage(trials, None))
    assert all(0.0003 <= rate <= 0.003 for found in compared.values() for rate in found)
    # The searches are over: their crashed trials are not retried, and change nothing.
    assert study(tmp_path, trial="dummy_trials:fragile", retry_failed=True) == trials


def test_a_point_on_which_a_seed_crashed_is_retried_before_the_search_is_over(tmp_path):
    changes = {"trial": "dummy_trials:fragile"}
    grid = Grid.make(**{**TUNED, **changes})
    stopped = run(grid, tmp_path, stop_after=12)
    assert "failed" in {t.state for t in stopped} and not of_stage(stopped, None)
    run(grid, tmp_path, stop_after=0, retry_failed=True)
    with Ledger(tmp_path, read_only=True) as ledger:
        assert ledger.counts()["failed"] == 0


def test_a_method_whose_search_crashed_is_not_compared(tmp_path):
    trials = study(tmp_path, trial="dummy_trials:crashing_search")
    assert list(rates(of_stage(trials, None))) == ["baseline"]
    (note,) = tuning_report.notes(Results(trials), {})
    assert note == "Not compared, because every trial of the search crashed: clip on adding."
    with Ledger(tmp_path) as ledger:  # its trials can be retried, those of the baseline are over
        grid = Grid.make(**{**TUNED, "trial": "dummy_trials:crashing_search"})
        closed = stages.closed(grid, ledger)
    of_method = {t.key: t.config["method"]["name"] for t in of_stage(trials, "tuning")}
    assert {of_method[key] for key in closed} == {"baseline"} and len(closed) == 8


def test_trials_without_a_validation_score_fail_with_a_sentence(tmp_path):
    trials = study(tmp_path, trial="dummy_trials:unvalidated")
    assert {t.state for t in trials} == {"failed"} and len(trials) == 16
    assert "a list `validation` in its `curve`" in trials[0].error


def test_more_seeds_and_methods_extend_a_study(tmp_path):
    before = study(tmp_path)
    with pytest.raises(LedgerError, match="--extend to keep its 20 trials and run the 2 new"):
        study(tmp_path, seeds=3)
    after = study(tmp_path, seeds=3, methods="baseline,clip,layernorm", extend=True)
    assert after[: len(before)] == before
    assert len(after) == 3 * (8 + 3)


@pytest.mark.parametrize(
    "changes",
    [
        {"tuning_trials": 5},
        {"tuning_seeds": 3},
        {"tune": {"learning_rate": "1e-4..1e-1"}},
        {"tune": {"learning_rate": "1e-4..1e-2", "clip": [1, 2]}},
        {"tuning_sampler": "tpe"},
        {"tune": None, "tuning_trials": None},
    ],
)
def test_a_changed_tuning_is_refused(tmp_path, changes):
    """The budget was fixed before the first result: neither continued nor extended."""
    with Ledger(tmp_path) as ledger:
        grid = Grid.make(**TUNED)
        stages.advance(grid, ledger)
        ledger.finish(ledger.trials()[0].key, {"status": "ok"})
    for extend in (False, True):
        with pytest.raises(LedgerError, match=r"tuning(.|\n)*--overwrite") as refusal:
            study(tmp_path, **changes, extend=extend)
    assert "cannot be extended: the tuning has changed" in str(refusal.value)


def test_the_report_says_who_was_tuned_how(tmp_path, in_process):
    changes = {"tune": {"learning_rate": "2e-3..2e-2"}, "seeds": 6, "verbose": False}
    report = kbptt.ablation.compare(logdir=tmp_path, **{**TUNED, **changes})
    searched = of_stage(report.results.trials, "tuning")
    title, header, lines = report.tables()[-1]
    assert title == "Tuning: learning_rate 0.002 to 0.02, logarithmic"
    assert header == ["task", "method", "learning_rate", "validation", "points", "failed"]
    lowest = min(rates(searched)["clip"])
    assert lines[0][:3] == ["adding", "baseline", f"{lowest:g} (lowest)"]
    assert len({len(line[3].partition(".")[2]) for line in lines}) == 1  # decimals
    assert lines[0][4:] == ["4", ""] and "(" not in lines[1][2]  # clip's best lies within
    notes = " ".join(report.notes())
    assert "learning_rate: the lowest value tried was the best for baseline on adding." in notes
    rules = " ".join(report.rules())
    assert "4 quasi-random points, each on the seeds 1000000000, 1000000001" in rules
    for page in (report.markdown().replace("\\", ""), report.html()):
        assert (
            title in page and f"{lowest:g} (lowest)" in page and "Searches do not read test" in page
        )
    rows = list(csv.DictReader((tmp_path / "results.csv").read_text().splitlines()))
    assert (
        sum(not row["stage"] for row in rows) == 12
        and rows[0]["tuned"] == f"learning_rate={lowest:g}"
    )
    rows = list(csv.DictReader((tmp_path / "tuning.csv").read_text().splitlines()))
    rows = [row for row in rows if row["stage"] == "tuning"]
    chosen = {r["tuned"] for r in rows if r["chosen"] == "True" and r["method"] == "baseline"}
    assert len(rows) == 16 and chosen == {f"learning_rate={lowest:g}"}
    assert all(float(row["validation_score"]) > 0.4 for row in rows)
    # No search has a folder, so TensorBoard shows the comparison alone.
    assert not (tmp_path / "tuning").exists() and (tmp_path / "clip/adding/0/train/events").exists()


def test_a_study_is_reported_while_its_searches_run(tmp_path, capsys):
    with Ledger(tmp_path) as ledger:
        stages.advance(Grid.make(**TUNED), ledger)
    report = kbptt.ablation.report(tmp_path)
    assert report.rows == [] and "the comparison has not started" in " ".join(report.notes())
    assert (tmp_path / "report.html").exists() and "Tuning" in capsys.readouterr().out


def test_yaml_has_the_same_keys(tmp_path):
    (tmp_path / "study.yaml").write_text(
        "tasks: [adding]\nmethods: [clip]\ntuning_trials: 3\ntuning_seeds: 1\n"
        "tuning_sampler: tpe\ntune:\n  learning_rate: 1e-4..1e-2\n  clip: [0.5, 1]\n"
        "  units: {low: 4, high: 400, log: false}\n"
    )
    tuned = Grid.from_yaml(tmp_path / "study.yaml").tuning
    assert (tuned.trials, len(tuned.seeds), tuned.sampler) == (3, 1, "tpe")
    assert list(tuned.space) == ["clip", "learning_rate", "units"] and not tuned.space["units"].log
