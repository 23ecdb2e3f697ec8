"""The table of findings: its bounds, and what it says of recorded evidence."""

import re
from pathlib import Path

import numpy as np
import pytest

from kbptt.analysis import Evidence, LayerEvidence, Thresholds, find_faults, findings, summary
from kbptt.analysis.thresholds import get

ROOT = Path(__file__).parents[2]
LINKS = re.compile(r"docs/findings\.md#([\w-]+)")


def profile(decay, timesteps=40):
    return decay ** np.arange(timesteps)[::-1]


def layer(norms, records=4, window=None, **fields):
    profiles = [np.asarray(norms, np.float64)] * records
    return LayerEvidence(
        "rnn", profiles=profiles, windows=[window] * records, window=window, **fields
    )


def names(*layers, **fields):
    return [one.name for one in find_faults(Evidence(layers, **fields))]


@pytest.mark.parametrize(
    ("layers", "found"),
    [
        ([layer(profile(10 ** (-3.1 / 39)))], ["vanishing"]),
        ([layer(profile(10 ** (-2.9 / 39)))], []),
        ([layer(np.zeros(40))], ["vanishing"]),
        ([layer(profile(10 ** (3.1 / 39)))], ["exploding"]),
        ([layer(profile(10 ** (2.9 / 39)))], []),
        # NaN states are neither healthy nor dead.
        ([layer(np.full(40, np.nan), statistics={})], ["non-finite"]),
        # Fewer profiles than `records` show nothing yet, but NaN does.
        ([layer(profile(0.5), records=2)], []),
        ([layer(np.r_[np.nan, profile(0.99)], records=1)], ["non-finite"]),
        # The gradient at the cut: 0.8^9 = 0.13 and 0.77^9 = 0.095 of the largest.
        ([layer(np.r_[np.zeros(30), profile(0.8, 10)], window=10)], ["cut-too-short"]),
        ([layer(np.r_[np.zeros(30), profile(0.77, 10)], window=10)], []),
        # A window as long as the sequence cuts nothing.
        ([layer(profile(0.99, 10), window=10)], []),
        ([layer(profile(0.99, 10), window=50)], []),
        # 0.6^9 = 0.0101: 99 % are within 10 timesteps (of 0.5 within 7).
        ([layer(np.r_[np.zeros(20), profile(0.6, 36)], window=36)], ["vanishing"]),
        (
            [layer(np.r_[np.zeros(20), profile(0.5, 36)], window=36)],
            ["vanishing", "window-too-long"],
        ),
        # After the last loss there is no gradient.
        ([layer(np.r_[profile(0.97), np.zeros(60)])], []),
        # With a loss at every timestep norms by timestep show no reach; those by lag do.
        ([layer(profile(0.5), per_timestep=True)], []),
        ([layer(np.ones(40), per_timestep=True, by_lag=profile(0.5)[::-1])], ["vanishing"]),
        (
            [layer(np.ones(40), window=8, per_timestep=True, by_lag=profile(0.97)[::-1])],
            ["cut-too-short"],
        ),
        # By lag the gradient is known beyond the cut, and vanishes there by intention.
        ([layer(np.ones(40), window=8, per_timestep=True, by_lag=profile(0.6)[::-1])], []),
        # Lags that were not measured up to the cut say nothing about it.
        ([layer(np.ones(99), window=50, per_timestep=True, by_lag=np.ones(20))], []),
        ([layer(profile(0.98), statistics={"dead_units": 0.3, "saturated_units": 0.2})], []),
        (
            [layer(profile(0.98), statistics={"dead_units": 0.3, "saturated_units": 0.3})],
            ["dead-units"],
        ),
    ],
)
def test_each_bound(layers, found):
    assert names(*layers) == found


@pytest.mark.parametrize(
    ("gate", "closed", "opened", "found"),
    [
        ("i", 0.5, 0.45, True),
        ("i", 0.5, 0.35, False),
        ("o", 0.0, 0.95, True),
        ("f", 0.0, 1.0, False),  # remembers
        ("f", 0.95, 0.0, True),  # forgets
        ("z", 0.0, 1.0, False),
        ("z", 0.95, 0.0, True),
        ("r", 0.0, 0.95, True),
    ],
)
def test_gates(gate, closed, opened, found):
    statistics = {f"gate_{gate}_closed": closed, f"gate_{gate}_open": opened}
    assert names(layer(profile(0.98), statistics=statistics)) == ["saturated-gates"] * found


def test_clips_and_steps():
    one = layer(profile(0.98))
    assert names(one, clip_rates={"a": 0.96, "b": 0.95}) == ["clip-always"]
    assert names(layer(profile(0.98), records=2), clip_rates={"a": 1.0}) == []
    assert names(one, nonfinite_steps=0.0) == []
    assert names(one, nonfinite_steps=1.0) == ["non-finite"]
    assert names(nonfinite_steps=1.0) == ["non-finite"]  # every step was skipped: no profile


def test_the_last_quarter_counts():
    good, bad = profile(0.98), profile(0.5)
    windows = [None] * 8
    healed = LayerEvidence("rnn", profiles=[bad] * 6 + [good] * 2, windows=windows)
    ill = LayerEvidence("rnn", profiles=[good] * 6 + [bad] * 2, windows=windows)
    assert names(healed) == [] and names(ill) == ["vanishing"]


def test_bounds_can_be_changed():
    evidence = Evidence([layer(profile(0.8))])
    assert [f.name for f in find_faults(evidence)] == ["vanishing"]
    assert find_faults(evidence, Thresholds(vanishing=1e-6)) == []
    assert find_faults(evidence, get({"records": 5})) == []
    (found,) = find_faults(evidence, get({"vanishing": 1e-3}))
    assert found.threshold == 1e-3 and found.value == pytest.approx(0.8**39)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"vanishng": 1}, "did you mean 'vanishing'"),
        ({"vanishing": 2.0}, "vanishing < decaying"),
        ({"gates": -1}, "`gates`"),
        ({"units": "0.5"}, "`units`"),
        ({"clip_rate": 2}, "`clip_rate`"),
        ([1], "a dict from names to numbers"),
    ],
)
def test_wrong_thresholds(given, message):
    with pytest.raises(ValueError, match=message):
        get(given)


def test_each_finding_has_its_section_and_its_words():
    page = (ROOT / findings.PAGE).read_text()
    sections = re.findall(r"^## ([\w-]+)$", page, re.MULTILINE)
    assert sections[-len(findings.RULES) :] == list(findings.RULES)
    (found,) = find_faults(Evidence([layer(profile(0.8))]))
    assert str(found).startswith("vanishing (rnn): Over the 40 timesteps it reaches back")
    assert LINKS.search(str(found))[1] == "vanishing" and "Try: " in str(found)


def test_the_summary_says_what_was_not_judged_and_all_thresholds():
    text = summary.text(Evidence([layer(profile(0.8), per_timestep=True)]))
    assert "only gradients by lag show" in text
    assert "not judged: vanishing (needs gradients by lag for layers that return sequences" in text
    assert "not found: non-finite" in text
    early = summary.text(Evidence([layer(profile(0.8), records=2)]))
    assert "2 of the 3 profiles that a verdict needs" in early
    assert "not judged: vanishing (needs 3 profiles; here 2)" in early
    assert "clip_rate 0.95" in text.splitlines()[-1]
    text = summary.text(Evidence([layer(profile(0.8))], nonfinite_steps=0.0))
    assert text.startswith("rnn: vanishing. ") and "found  vanishing (rnn)" in text


HEALTHY = {"dead_units": 0.0, "saturated_units": 0.0}


def test_what_cannot_apply_counts_as_judged():
    """No gates in a SimpleRNN, no cut in full BPTT, no clip."""
    evidence = Evidence([layer(profile(0.98), statistics=HEALTHY)], nonfinite_steps=0.0)
    found = findings.unjudged(evidence)
    assert [(name, one.applies) for name, one in found.items()] == [
        ("cut-too-short", False),
        ("window-too-long", False),
        ("saturated-gates", False),
        ("clip-always", False),
    ]
    assert all(findings.judged(evidence).values())
    text = summary.text(evidence)
    assert "does not apply: saturated-gates (no gates, or none that kbptt can read)" in text
    assert "not judged" not in text and "found  nothing wrong\n" in text


@pytest.mark.parametrize("by_lag", [None, profile(0.99, 10)[::-1]])
def test_a_window_as_long_as_the_sequences_cuts_nothing(by_lag):
    evidence = Evidence([layer(profile(0.99, 10), window=10, by_lag=by_lag)])
    assert "cut-too-short" not in [one.name for one in find_faults(evidence)]
    one = findings.unjudged(evidence)["cut-too-short"]
    assert not one.applies and "nothing is cut" in one.why


def test_one_layer_that_needs_more_is_not_hidden_by_one_without_a_cut():
    lagless = layer(np.ones(40), window=8, per_timestep=True)
    one = findings.unjudged(Evidence([layer(profile(0.98)), lagless]))["cut-too-short"]
    assert one.applies and "needs gradients by lag for layers that return sequences" in one.why


@pytest.mark.parametrize(
    ("one", "expected"),
    [
        (
            layer(profile(0.98)),
            {"saturated-gates": "needs the health of the states, from GradientFlow("},
        ),
        (layer(profile(0.98)), {"dead-units": "--health"}),
        (layer(np.full(40, np.nan), records=6), {"vanishing": "the norms are NaN or infinite"}),
        (layer(np.full(40, np.nan), records=6), {"dead-units": "the norms are NaN or infinite"}),
        (layer(np.zeros(40)), {"exploding": "every norm is exactly 0"}),
        (layer(profile(0.98), records=2), {"clip-always": "needs 3 profiles; here 2"}),
        (
            layer(np.ones(99), window=50, per_timestep=True, by_lag=np.ones(20)),
            {"cut-too-short": "lag_data; here 20 lags"},
        ),
    ],
)
def test_the_reason_is_what_is_really_missing(one, expected):
    missing = findings.unjudged(Evidence([one]))
    for name, text in expected.items():
        assert missing[name].applies and text in missing[name].why


def test_nothing_that_could_be_judged_is_not_nothing_wrong():
    text = summary.text(Evidence())
    assert "nothing wrong" not in text
    assert "found  nothing could be judged: no gradient was recorded. Expected a `fit`" in text
    early = summary.text(Evidence([layer(profile(0.98), records=2)], nonfinite_steps=0.0))
    assert "nothing wrong" not in early
    assert "found  nothing could be judged but non-finite: 2 of the 3 profiles" in early
