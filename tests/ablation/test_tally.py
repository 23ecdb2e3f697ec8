"""What a report says of trials without a result, by the stage of the study that they are of."""

import pytest
from ledgers import tamper
from staged_studies import TUNED, of_stage, run

from kbptt.ablation import Grid, stages
from kbptt.ablation.ledger import Ledger
from kbptt.ablation.reporting import EXPLORATORY, Report

pytestmark = pytest.mark.usefixtures("dummies")
SIX = {**TUNED, "seeds": 6}  # the fewest that are not exploratory


def study(directory, stop_after=None, **changes):
    """The report on a study that ran, or was stopped."""
    run(Grid.make(**{**SIX, **changes}), directory, stop_after)
    return Report(directory)


def test_a_study_that_was_stopped_during_its_searches(tmp_path):
    report = study(tmp_path, stop_after=5)  # of 2 × 4 points with 2 seeds
    assert report.headline == (
        "The searches are not finished, so the comparison has not started; 11 trials of the "
        "searches not finished."
    )
    notes = report.notes()
    assert EXPLORATORY not in notes  # six seeds were asked for
    assert "Not finished: 11 trials of the searches without a result yet." in notes
    assert report.counts["done"] == 5 and sum(report.counts.values()) == 16
    _, header, lines = report.tables()[-1]
    shown = [dict(zip(header, line, strict=True)) for line in lines]
    assert [line["points"] for line in shown] == ["1 of 4", "1 of 4"]
    for line in shown:
        assert line["validation"].endswith(" so far") and float(line["validation"].split()[0]) > 0
        assert line["validation"].value > 0 and line["learning_rate"]
        assert "est)" not in line["learning_rate"]  # which value is lowest is not known yet


def test_before_any_point_is_done_and_with_few_seeds(tmp_path):
    report = study(tmp_path, stop_after=0, seeds=2)
    assert report.notes()[0] == EXPLORATORY
    assert [line[3:] for line in report.tables()[-1].lines] == 2 * [["", "0 of 4", ""]]


def test_crashes_of_the_searches_are_not_those_of_the_comparison(tmp_path):
    report = study(tmp_path, trial="dummy_trials:fragile")
    points = [t for t in report.results.trials if t.state == "failed"]
    assert points and of_stage(points, "tuning") == points
    assert report.counts["failed"] == 0 and report.counts["failed_searches"] == len(points)
    assert report.headline.endswith(f"; {len(points)} trials of the searches crashed.")
    (note,) = [note for note in report.notes() if note.startswith("Crashed")]
    assert note.startswith(f"Crashed in the searches: {len(points)} trials, counted as the worst")
    with Ledger(tmp_path) as ledger:
        key = of_stage(ledger.trials(), None)[0].key
        tamper(ledger, key, state="failed", result=None, error="E: x")
    report = Report(tmp_path)
    assert report.counts["failed"] == 1 and report.counts["failed_searches"] == len(points)
    assert report.headline.endswith(f"; 1 trial crashed; {len(points)} of the searches did.")
    assert len([note for note in report.notes() if note.startswith("Crashed")]) == 2
    assert sum(report.counts.values()) == len(report.results.trials)
    assert len(report.failures()) == len(points) + 1


def test_a_method_that_could_not_be_tuned_is_named(tmp_path):
    report = study(tmp_path, trial="dummy_trials:crashing_search")
    assert report.headline.startswith("baseline reaches 0.")
    assert report.headline.endswith(
        " on adding; clip could not be tuned: every trial of its search crashed."
    )
    assert "nothing to compare" not in report.headline
    assert report.counts["failed"] == 8  # for which `--retry-failed` is
    report = study(
        tmp_path / "2", trial="dummy_trials:crashing_search", tasks="adding,temporal_order"
    )
    assert "clip on adding and clip on temporal_order could not be tuned: every" in report.headline
    report = study(tmp_path / "3", trial="dummy_trials:unvalidated")
    assert report.headline == (
        "No trial has a result; baseline and clip could not be tuned: every trial of their "
        "searches crashed."
    )
    assert not any("searches are not finished" in note for note in report.notes())
    assert report.counts["failed"] == 16


def test_one_method_of_which_others_are_still_tuned(tmp_path):
    with Ledger(tmp_path) as ledger:
        grid = Grid.make(**SIX)
        for trial in stages.advance(grid, ledger):
            if trial.config["method"]["name"] == "clip":
                ledger.finish(trial.key, RESULT)
        for trial in of_stage(stages.advance(grid, ledger), None):
            ledger.finish(trial.key, RESULT)
    text = Report(tmp_path).headline
    assert text.startswith("clip reaches 0.500 accuracy")
    assert text.endswith(" on adding; 8 trials of the searches not finished.")


RESULT = {"status": "ok", "metric": "accuracy", "mode": "max", "score": 0.5, "baseline": 0.0}
RESULT |= {"validation_score": 0.5}
