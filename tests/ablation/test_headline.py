"""The sentence that a report opens with."""

import pytest
from ledgers import fill, outcome

from kbptt.ablation.reporting import Report


def headline(directory, score, **grid):
    """The sentence on a ledger in which every run has the score of its method and its seed."""

    def result(config):
        found = score(config["method"]["name"], config["seed"], config["task"]["name"])
        if isinstance(found, float):
            minimize = config["task"]["name"] == "copy_memory"
            scale = {"metric": "mse", "mode": "min", "baseline": 1.0} if minimize else {}
            return outcome(found, **scale)
        return found

    return Report(fill(directory, result, **{"seeds": 8, **grid})).headline


def noise(method, seed):
    """Noise that differs between methods, in thousandths."""
    return ((7 * seed + 3 * len(method)) % 5 - 2) / 1000


def test_a_clear_winner(tmp_path):
    text = headline(
        tmp_path, lambda m, s, _: {"baseline": 0.5, "clip": 0.7}[m] + s / 50 + noise(m, s)
    )
    assert text == (
        "clip is best on adding: +0.200 accuracy [0.199, 0.202], 8 of 8 pairs against baseline."
    )


def test_an_error_is_better_when_smaller_and_its_difference_has_a_real_minus(tmp_path):
    text = headline(
        tmp_path,
        lambda m, s, _: {"baseline": 0.5, "clip": 0.3}[m] + s / 50,
        tasks="copy_memory",
    )
    assert text == (
        "clip is best on copy_memory: −0.200 mse [−0.200, −0.200], 8 of 8 pairs against baseline."
    )


def test_the_second_that_the_test_cannot_tell_from_the_best_is_named(tmp_path):
    def score(method, seed, _):
        return {"baseline": 0.5, "clip": 0.7, "orthogonal": 0.71}[method] + 20 * noise(method, seed)

    methods = ["baseline", "clip", "orthogonal"]
    text = headline(tmp_path, score, methods=methods)
    assert text.startswith("orthogonal is best on adding: +0.205 accuracy [")
    assert text.endswith("pairs against baseline; clip is not shown to be worse.")


def test_several_tasks_are_compared_by_skill(tmp_path):
    text = headline(
        tmp_path,
        lambda m, s, _: {"baseline": 0.5, "clip": 0.7}[m] + s / 50,
        tasks=["adding", "temporal_order"],
    )
    assert text.startswith("clip is best over 2 tasks: +0.400 skill [0.400, 0.400], 8 of 8 pairs")


def test_a_difference_that_is_not_significant_is_not_called_one(tmp_path):
    def score(method, seed, _):
        return 0.6 + (0.03 if method == "clip" and seed % 3 else 0) - seed % 2 * noise(method, 3)

    text = headline(tmp_path, score)
    assert text.startswith(
        "No method is shown to differ from baseline on adding: the best mean is that of clip, +0.0"
    )
    assert " is best " not in text and "pairs" in text


def test_a_surer_method_below_the_best_mean(tmp_path):
    """The mean of one is best by a single run, of the other every run is better."""

    def score(method, seed, _):
        lucky = 0.39 if seed == 0 else (-1) ** seed * 0.01
        return 0.5 + {"baseline": 0, "clip": lucky, "orthogonal": 0.02}[method]

    text = headline(tmp_path, score, methods=["baseline", "clip", "orthogonal"])
    assert text.startswith("orthogonal is better than baseline on adding: +0.020 accuracy [")
    assert "8 of 8 pairs; clip has the best mean but is not shown to differ" in text


def test_nothing_beats_the_reference(tmp_path):
    text = headline(tmp_path, lambda m, s, _: {"baseline": 0.7, "clip": 0.65}[m] + s / 50)
    assert text == (
        "No method has a better mean than baseline on adding: the closest, clip, −0.0500 accuracy "
        "[−0.0500, −0.0500], 0 of 8 pairs."
    )


@pytest.mark.parametrize(
    ("methods", "who"),
    [
        (["baseline", "clip"], "baseline and clip"),
        (["baseline", "clip", "orthogonal"], "All 3 methods and settings"),
    ],
)
def test_a_tie(tmp_path, methods, who):
    text = headline(tmp_path, lambda m, s, _: 0.5 + s / 100, methods=methods)
    assert text.startswith(f"{who} tie on adding, at 0.535 accuracy each.")
    assert "best" not in text


def test_few_seeds_show_their_runs(tmp_path):
    text = headline(
        tmp_path, lambda m, s, _: {"baseline": 0.5, "clip": 0.7}[m] + s * noise(m, s), seeds=3
    )
    assert text.startswith("clip has the best mean on adding: +0.200 accuracy (+0.200, +0.203, +0.")
    assert text.endswith("3 of 3 pairs against baseline (too few pairs for an interval).")
    assert "[" not in text


def test_five_seeds_have_an_interval_and_are_exploratory(tmp_path):
    text = headline(tmp_path, lambda m, s, _: {"baseline": 0.5, "clip": 0.7}[m] + s / 50, seeds=5)
    assert text.startswith(
        "clip has the best mean on adding: +0.200 accuracy [0.200, 0.200], 5 of 5"
    )
    assert text.endswith("(exploratory, with so few pairs).")


def test_what_is_missing_is_said(tmp_path):
    def score(method, seed, _):
        if method == "clip" and seed in (0, 1):
            return "ValueError: no luck"
        if method == "clip" and seed == 2:
            return outcome(None, status="diverged")
        return (
            None if method == "baseline" and seed == 7 else {"baseline": 0.5, "clip": 0.9}[method]
        )

    text = headline(tmp_path, score)
    assert "4 of 5 pairs against baseline" in text
    assert text.endswith(
        "; ranked by the 5 seeds that they share; 1 of the 6 runs of the best diverged; "
        "2 trials crashed; 1 trial not finished."
    )


def test_one_method_and_none(tmp_path):
    alone = headline(tmp_path / "1", lambda m, s, _: 0.5 + s / 100, methods=["clip"])
    assert alone == (
        "clip reaches 0.535 accuracy [0.520, 0.550] on adding; there is nothing to compare it with."
    )
    nothing = headline(tmp_path / "2", lambda m, s, _: None)
    assert nothing == "No trial has a result; 16 trials not finished."
    crashed = headline(tmp_path / "3", lambda m, s, _: "E: x")
    assert crashed == "No trial has a result; 16 trials crashed."


def test_no_seed_in_common(tmp_path):
    def score(method, seed, _):
        early = seed < 4
        return (0.9 if method == "clip" else 0.5) if (method == "clip") == early else "E: x"

    text = headline(tmp_path, score)
    assert text == (
        "baseline reaches 0.500 accuracy (0.500, 0.500, 0.500, 0.500) on adding; too few of the "
        "same seeds to rank clip (0 of 4 seeds); 8 trials crashed."
    )
