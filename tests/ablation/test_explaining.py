"""What a report explains and draws is what it has."""

import pytest
from ledgers import fill, outcome

from kbptt.ablation.reporting import Report

BARE = {"status": "ok", "metric": "loss", "mode": "min", "cost": {"seconds": 1.0}}


def csv_report(directory, columns="", values=""):
    lines = [f"method,task,seed,score{columns}"]
    lines += [f"{m},t,{s},{0.5 + (m == 'b') * s / 9}{values}" for m in "ab" for s in range(6)]
    path = directory / "a.csv"
    path.write_text("\n".join(lines))
    return Report(directory / "out", csv=path)


def texts(report):
    figures = [figure.title + figure.caption + figure.svg for figure in report.figures()]
    return " ".join(report.rules()), " ".join(figures)


def test_without_a_baseline_there_is_no_word_of_skill_and_of_columns_that_are_not_there(tmp_path):
    report = csv_report(tmp_path)
    rules, figures = texts(report)
    for word in ("skill", "Skill", "Decay", "Time per step", "Memory", "checkpoint"):
        assert word not in rules and word not in figures, word
    assert "The score of a run is that of its line in the file." in rules
    assert all(f"{name}: " in rules for name in ("IQM", "Δ", "p", "P(better)"))
    assert "skill" not in report.html() and "skill" not in report.markdown()
    scale, _ = texts(csv_report(tmp_path, ",baseline,decay_end", ",0.4,0.9"))
    assert "Skill is the score between" in scale and "Decay: " in scale


def test_decay_is_drawn_against_the_metric_that_ranks(tmp_path):
    _, figures = texts(csv_report(tmp_path, ",metric,mode,decay_end", ",reward,max,0.9"))
    assert "against reward." in figures and "skill" not in figures


@pytest.mark.parametrize(
    ("configuration", "origin"),
    [
        ({"script": {"path": "train.py"}}, "the number that its script reported"),
        ({"trial": "mine:run"}, "the number that the trial function returned"),
        ({}, "the task's primary metric on its test data"),
    ],
)
def test_where_the_scores_come_from(tmp_path, configuration, origin):
    tasks = ["adding", "copy_memory"]
    fill(tmp_path, lambda c: BARE | {"score": 1.0 + c["seed"]}, tasks=tasks)
    report = Report(tmp_path)
    report.configuration = configuration
    rules, figures = texts(report)
    assert f"The score of a run is {origin}" in rules
    # Over several tasks there is a skill, and what 0 is.
    assert "without a baseline, 0 is the worst run" in rules and "skill τ" in figures
    fill(tmp_path / "known", lambda c: outcome(0.6))
    assert "worst run" not in " ".join(Report(tmp_path / "known").rules())
