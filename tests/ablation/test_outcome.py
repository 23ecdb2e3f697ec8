"""What a trial may return, and that anything else is that trial's failure and no more."""

import fractions
import json
import math

import numpy as np
import pytest
from ledgers import plan, tamper

from kbptt.ablation import outcome, runner
from kbptt.ablation.arrays import encode
from kbptt.ablation.grid import Grid
from kbptt.ablation.reporting import Report

GOOD = {"status": "ok", "score": 0.5, "metric": "accuracy", "mode": "max"}


class Spiteful:
    """An object that cannot even be looked at."""

    def __float__(self):
        raise RuntimeError("no float")

    def __repr__(self):
        raise RuntimeError("no repr")

    __eq__ = __len__ = __bool__ = __iter__ = __str__ = __repr__
    __hash__ = object.__hash__


class SpitefulNumber(float):
    def __float__(self):
        raise RuntimeError("no float")


nested = []
for _ in range(2000):
    nested = [nested]
circular = {}
circular["itself"] = circular
RECORD = {"steps": [0, 5], "timesteps": 3, "norms": encode(np.ones((2, 3)))}


@pytest.mark.parametrize(
    "score",
    [
        *(1, 0.25, -0.0, math.nan, fractions.Fraction(1, 4), np.int64(3), np.longdouble(2)),
        *(np.float16(1), np.float32(0.5), np.float64(2), np.float32("nan")),
    ],
)
def test_scores(score):
    found = outcome.check({**GOOD, "score": score})["score"]
    assert type(found) is float
    np.testing.assert_equal(found, float(score))


@pytest.mark.parametrize(
    "score",
    [
        *("0.9", "", b"1", None, True, np.True_, 1j, np.complex64(1), 10**400, math.inf, -math.inf),
        *([0.5], {}, np.array([0.5, 1]), np.array(0.5), object(), Spiteful(), SpitefulNumber(1)),
    ],
    ids=lambda score: type(score).__name__,
)
def test_what_is_no_score(score):
    with pytest.raises(ValueError, match=r"`score` of a trial: expected .* number.* Received: "):
        outcome.check({**GOOD, "score": score})


def test_only_a_diverged_run_has_no_score():
    assert outcome.check({**GOOD, "status": "diverged", "score": None})["score"] is None


@pytest.mark.parametrize(
    "result",
    [None, [], "ok", 0.5, (GOOD,), Spiteful(), {}, {1: 2}, {**GOOD, 1: 2}],
    ids=lambda result: type(result).__name__,
)
def test_what_is_no_result(result):
    with pytest.raises(ValueError, match="`result` of a trial: expected a dict"):
        outcome.check(result)


@pytest.mark.parametrize(
    ("part", "value", "message"),
    [
        ("status", 5, "`status` of a trial: expected a string"),
        ("metric", None, "`metric` of a trial: expected a string"),
        ("mode", "largest", "`mode` of a trial: expected 'max' or 'min'"),
        ("mode", np.array(["max", "min"]), "`mode` of a trial"),
        ("baseline", "0.1", "`baseline` of a trial: expected a real number"),
        ("perfect", [1], "`perfect` of a trial"),
        ("success_threshold", 10**400, "`success_threshold` of a trial"),
        ("best_epoch", "last", "`best_epoch` of a trial"),
        ("curve", [1, 2], "`curve` of a trial: expected a dict"),
        ("curve", {"validation": "0.1, 0.2"}, "validation.* expected a list of numbers"),
        ("curve", {"validation": [0.1, "0.2"]}, r"validation.*\[1\]` of a trial: expected a real"),
        ("curve", {"validation": [[0.1], [0.2]]}, r"validation.*\[0\]` of a trial: expected a"),
        ("test", {"mse": "low"}, "`test.*mse.*` of a trial: expected a real number"),
        ("cost", {"seconds": {}}, "`cost.*seconds"),
        ("clipping", {"clip": [0.5]}, "`clipping.*clip.*expected a dict"),
        ("gradient", {"rnn": [1.0]}, "`gradient.*rnn.*expected a dict"),
        ("gradient", {"rnn": {"start": []}}, "start` of a trial: expected a list .* not empty"),
        ("gradient", {"rnn": {"statistics_end": {"decay": "x"}}}, "decay.*expected a real"),
        ("gradient", {"rnn": {"record": RECORD | {"steps": [5, 0]}}}, "steps` .*expected rising"),
        ("gradient", {"rnn": {"record": RECORD | {"steps": [0]}}}, "norms` .*1 rows"),
        ("gradient", {"rnn": {"record": RECORD | {"timesteps": 1e99}}}, "timesteps"),
        (
            "gradient",
            {"rnn": {"record": RECORD | {"norms": {"shape": [2, 3]}}}},
            "an encoded array",
        ),
        ("environment", "a machine", "`environment` of a trial: expected a dict"),
        ("files", [b""], "`files` of a trial: expected a dict"),
        ("files", {"a": "text"}, "expected bytes as the content of 'a'"),
        ("files", {"a/../../b": b""}, "leads outside"),
        ("files", {"/etc/passwd": b""}, "leads outside"),
        ("files", {"..": b""}, "leads outside"),
        ("files", {"": b""}, "leads outside or is not a path"),
        ("files", {"a\0b": b""}, "is not a path"),
        ("files", {"x" * 300: b""}, "is not a path"),
        ("files", {"x/" * 600 + "y": b""}, "is not a path"),
        ("files", {"\ud800": b""}, "is not a path"),
        ("files", {5: b""}, "is not a path"),
        ("files", {"a": b"", "a/b": b""}, "'a' is a file and a folder"),
        ("more", object(), "JSON"),
        ("more", {1, 2}, "JSON"),
        ("more", np.ones(3), "JSON"),
        ("more", nested, "."),
        ("more", circular, "ircular"),
        ("more", {"a": 1, 2: 3}, "JSON"),
    ],
)
def test_every_part_is_checked(part, value, message):
    with pytest.raises(ValueError, match=message) as refusal:
        outcome.check({**GOOD, part: value})
    assert len(str(refusal.value)) < 500 and "\n" not in str(refusal.value)


def test_a_good_result_stays_what_it_is():
    full = {
        **GOOD,
        "baseline": 0.25,
        "perfect": None,
        "curve": {"epoch": [1, 2], "validation": [0.5, math.nan]},
        "test": {"accuracy": 0.5},
        "gradient": {"rnn": {"start": [0.0, 1.0], "end": [1, 2], "record": RECORD, "more": "x"}},
        "clipping": {"clip": {"clip_rate": 0.5, "skipped": None}},
        "cost": {"seconds": 1.5, "peak_memory_bytes": None},
        "environment": {"devices": ["CPU"]},
        "mine": {"anything": [1, "two"]},
        "files": {"train/events": b"1", "x": b""},
    }
    found = outcome.check(full)
    assert repr(found) == repr(full) and found is not full
    assert outcome.check(GOOD | {"baseline": np.float32(0.5)})["baseline"] == 0.5
    assert outcome.check(GOOD | {"baseline": -math.inf})["baseline"] is None  # as if not declared


BAD = {
    "text": lambda: GOOD | {"score": "0.9"},
    "list": lambda: [GOOD],
    "spiteful": Spiteful,
    "spiteful score": lambda: GOOD | {"score": Spiteful()},
    "generator": lambda: GOOD | {"more": (i for i in range(3))},
    "curve": lambda: GOOD | {"curve": {"validation": ["high"]}},
    "escaping": lambda: GOOD | {"files": {"../../escaped": b""}},
    "exit": lambda: exit(3),
    "hostile": lambda: GOOD | {"score": "\x1b[31m\u202e\x9b"},
    "unspeakable": lambda: (_ for _ in ()).throw(
        type("Mute", (Exception,), {"__str__": lambda self: 1 / 0})()
    ),
}


def misbehaving(config):
    """A trial that returns one of `BAD` for each seed, with a second method that is sound."""
    if config["method"]["name"] == "clip":
        return GOOD
    return list(BAD.values())[config["seed"]]()


def test_a_bad_result_is_the_failure_of_its_trial(in_process, tmp_path):
    grid = Grid.make(["adding"], ["baseline", "clip"], len(BAD), trial="test_outcome:misbehaving")
    events = []
    with runner.open_ledger(grid, tmp_path / "logs") as ledger:
        runner.run(ledger, on_event=events.append)
        trials = {(t.config["method"]["name"], t.config["seed"]): t for t in ledger.trials()}
    assert {t.state for (method, _), t in trials.items() if method == "clip"} == {"done"}
    tried_again = {"exit", "unspeakable"}  # they crashed, which may pass; a bad result does not
    for seed, name in enumerate(BAD):
        trial = trials["baseline", seed]
        assert trial.state == "failed" and trial.error.isprintable(), name
        assert trial.attempts == (3 if name in tried_again else 1), name
        assert ("cannot be stored" in trial.error) == (name not in tried_again)
    assert not (tmp_path / "escaped").exists()
    with runner.open_ledger(grid, tmp_path / "logs") as ledger:  # the study goes on as ever
        runner.run(ledger)
        assert ledger.counts()["failed"] == len(BAD)
    report = Report(tmp_path / "logs")
    report.write()
    assert len(report.failures()) == len(BAD) and len(report.rows) == 2


def test_results_of_older_versions_are_set_apart(tmp_path):
    """A version without the check stored anything that JSON can hold."""

    bad = [
        GOOD | {"score": "0.9"},
        GOOD | {"score": None},
        {"score": 1.0},
        [],
        GOOD | {"curve": {"validation": [None, "x"]}},
        GOOD | {"gradient": {"rnn": {"record": RECORD | {"norms": {"shape": [1], "base64": "?"}}}}},
        GOOD | {"cost": 5},
        GOOD | {"mode": "min", "baseline": {}},
    ]
    with plan(tmp_path, seeds=len(bad)) as ledger:
        for trial in ledger.trials():
            clip = trial.config["method"]["name"] == "clip"
            text = json.dumps(GOOD if clip else bad[trial.config["seed"]])
            ledger.finish(trial.key, {})
            tamper(ledger, trial.key, result=text)
    report = Report(tmp_path)
    report.write()
    assert report.counts["done"] == report.counts["unreadable"] == len(bad)
    assert [row.arm for row in report.rows if row.runs] == ["clip"]
    assert any(note.startswith(f"Unreadable: {len(bad)} rows") for note in report.notes())
    for name in ("report.md", "report.html"):
        text = (tmp_path / name).read_text()
        assert "Unreadable" in text and "baseline/adding/0" in text
    assert (tmp_path / "results.csv").read_text().count(",unreadable,") == len(bad)
