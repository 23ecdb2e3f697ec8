"""Methods are ranked by seeds that all of them have."""

import math

import numpy as np
import pytest
from ledgers import fill, outcome

from kbptt.ablation import ranking
from kbptt.ablation.reporting import Report

METHODS = ["baseline", "clip", "orthogonal"]
NAN = math.nan


def study(directory, score, **grid):
    """The report of a study in which every run has the score of its method and its seed."""

    def result(config):
        found = score(config["method"]["name"], config["seed"])
        return outcome(found) if isinstance(found, float) else found

    return Report(fill(directory, result, **{"methods": METHODS, "seeds": 7, **grid}))


def test_bad_seeds_that_crashed_make_no_method_the_best(tmp_path):
    """clip and orthogonal are equal on every seed; clip crashed on the three lowest ones."""

    def score(method, seed):
        if method == "clip" and seed < 3:
            return "E: it hung"
        return 0.5 + (seed + (method != "baseline")) / 20

    report = study(tmp_path, score)
    assert report.headline == (
        "orthogonal and clip tie on adding, at 0.775 accuracy each; ranked by the 4 seeds that "
        "they share; 3 trials crashed."
    )
    for rows in (report.rows, report.results.task_table("adding")):
        assert [row.arm for row in rows] == ["orthogonal", "clip", "baseline"]
        assert rows[1].mean.value > rows[0].mean.value  # over more of the lowest ones
    assert "sorted by the means over the seeds that all methods share" in " ".join(report.notes())


def test_a_method_with_few_seeds_has_no_place(tmp_path):
    """The only run of clip that did not crash is the best of all."""

    def score(method, seed):
        if method == "clip":
            return 1.0 if seed == 6 else "E: it hung"
        return 0.5 + seed / 100 + (0.2 if method == "orthogonal" else 0)

    report = study(tmp_path, score)
    assert report.headline == (
        "orthogonal is best on adding: +0.200 accuracy [0.200, 0.200], 7 of 7 pairs against "
        "baseline; too few of the same seeds to rank clip (1 of 7 seeds); 6 trials crashed."
    )
    table = report.tables()[0]
    assert [line[:2] for line in table.lines] == [
        ["1", "orthogonal"],
        ["2", "baseline"],
        ["", "clip"],
    ]
    assert any("without a rank" in note for note in report.notes())


def test_without_a_pair_that_is_better_there_is_no_difference_to_show(tmp_path):
    """The reference has one seed, on which all are equal."""

    def score(method, seed):
        if method == "baseline" and seed:
            return "E: it hung"
        return 0.5 + (seed if method == "clip" else 0) / 50

    text = study(tmp_path, score, seeds=2).headline
    assert text == (
        "All 3 methods and settings tie on adding, at 0.500 accuracy each; ranked by the 1 seed "
        "that they share; 1 trial crashed."
    )
    text = study(tmp_path / "more", score).headline
    assert text.startswith(
        "clip has the best mean on adding, 0.560 accuracy [0.531, 0.589], but no difference "
        "to baseline is seen: 0 of 1 pairs are better; too few of the same seeds "
        "to rank baseline (1 of 7 seeds)"
    )


def test_a_difference_of_nothing_is_not_written_as_a_score(tmp_path):
    """Three pairs are better by a rounding error, which counts but has no decimals."""

    def score(method, seed):
        return 0.5 + (seed + 1) / 10 + (1e-7 if method == "clip" and seed < 2 else 0)

    def others(method, seed):
        return 0.3 if method == "orthogonal" else score(method, seed)

    text = study(tmp_path, others, seeds=3).headline
    assert "Δ 0.000 accuracy" in text and "2 of 3 pairs" in text


@pytest.mark.parametrize("mode", ["max", "min"])
def test_the_numbers_of_the_sentence_are_those_of_the_table(tmp_path, mode):
    def result(config):
        gain = 0.195 if config["method"]["name"] == "clip" else 0
        score = (0.5 + gain) if mode == "max" else (0.5 - gain)
        return outcome(score + config["seed"] / 1000, mode=mode, baseline=None)

    report = Report(fill(tmp_path, result, seeds=8))
    (table,) = report.tables()
    value, interval = table.lines[0][table.header.index("Δ")].split(" ", 1)
    assert f"{value} accuracy {interval}" in report.headline and "0.195" in value


def test_ranking_by_hand():
    tables = {
        "a": np.array([[1.0], [2.0], [NAN], [NAN]]),
        "b": np.array([[3.0], [1.0], [9.0], [9.0]]),
        "c": np.array([[NAN], [NAN], [NAN], [9.0]]),
        "d": np.full((4, 1), NAN),
    }
    found = ranking.rank(tables)
    assert found.means == {"b": 2.0, "a": 1.5} and list(found.means) == ["b", "a"]
    assert found.seeds.tolist() == [True, True, False, False] and found.beyond
    assert found.placeless == ("c",)
    assert ranking.rank({"d": tables["d"]}).means == ranking.rank({}).means == {}


def test_a_seed_counts_with_all_its_tasks_and_a_task_that_nobody_has_begun_does_not():
    tables = {
        "a": np.array([[1.0, 4.0, NAN], [1.0, NAN, NAN]]),
        "b": np.array([[2.0, 2.0, NAN], [2.0, 2.0, NAN]]),
    }
    found = ranking.rank(tables)
    assert found.means == {"a": 2.5, "b": 2.0} and found.seeds.tolist() == [True, False]
    apart = {"a": np.array([[1.0, NAN]]), "b": np.array([[NAN, 1.0]])}
    assert ranking.rank(apart).means == {}
