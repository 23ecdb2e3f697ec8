"""Controls: a difference between tuned methods has to be there at equal values too."""

import pathlib

import pytest
from staged_studies import of_stage, run

from kbptt.ablation import Grid, Results, controls, tuning_report
from kbptt.ablation.rows import Trial

SPACE = {"learning_rate": [0.001, 0.01]}
TUNED = {"tasks": "adding", "methods": "baseline,clip", "tune": SPACE, "seeds": 6}


@pytest.fixture(autouse=True)
def dummies(monkeypatch):
    monkeypatch.syspath_prepend(str(pathlib.Path(__file__).parent))


def study(scores, chosen, methods=("baseline", "clip"), seeds=6, tasks=("adding",)):
    """A study whose searches are over, with its controls.

    Args:
        scores: Function of method, learning rate, seed and task; None leaves the trial out.
        chosen: The learning rate of each method, or of each pair of method and task.
    """
    grid = Grid.make(**{**TUNED, "methods": list(methods), "seeds": seeds, "tasks": list(tasks)})

    def done(trial):
        method, task = (trial.config[section]["name"] for section in ("method", "task"))
        rate = trial.config["optimizer"]["learning_rate"]
        score = scores(method, rate, trial.config["seed"], task)
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
    (note,) = {n for n in tuning_report.notes(results, {}) if "on adding" in n}
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
