"""What the functions of `kbptt.ablation.statistics` say of arrays that are none."""

import pytest

from kbptt.ablation import statistics

RAGGED = [[1, 2], [3]]
SOUND = [[1.0, 2.0], [3.0, 4.0]]
CALLS = {
    "mean": (lambda: statistics.mean(RAGGED), "scores"),
    "interquartile_mean": (lambda: statistics.interquartile_mean(RAGGED), "scores"),
    "optimality_gap": (lambda: statistics.optimality_gap(RAGGED), "scores"),
    "shortfall": (lambda: statistics.shortfall(RAGGED), "scores"),
    "performance_profile": (lambda: statistics.performance_profile(RAGGED), "scores"),
    "thresholds": (lambda: statistics.performance_profile(SOUND, RAGGED), "thresholds"),
    "improvement": (lambda: statistics.probability_of_improvement(SOUND, RAGGED), "reference"),
    "compare": (lambda: statistics.compare(RAGGED, SOUND), "scores"),
    "sign_flip_p": (lambda: statistics.sign_flip_p(RAGGED), "differences"),
    "holm": (lambda: statistics.holm(RAGGED), "p_values"),
    "words": (lambda: statistics.holm(["low"]), "p_values"),
    "three axes": (lambda: statistics.compare(SOUND, [[[1.0]]]), "reference"),
}


@pytest.mark.parametrize("name", CALLS)
def test_rows_of_unequal_length_are_refused_in_a_sentence(name):
    call, argument = CALLS[name]
    with pytest.raises(
        ValueError, match=f"^Invalid value for argument `{argument}`. Expected"
    ) as e:
        call()
    assert "Received: " in str(e.value) and "inhomogeneous" not in str(e.value)
