"""Progress in a terminal and elsewhere."""

import dataclasses
import io

import pytest
import rich.console
import rich.status
from ledgers import plan

from kbptt.ablation import study
from kbptt.ablation.progress import Progress, duration
from kbptt.ablation.runner import Event


def play(tmp_path, terminal, verbose=True):
    """A run in which one trial succeeds, one is tried again and one fails."""
    console = rich.console.Console(
        file=io.StringIO(), force_terminal=terminal, width=100, color_system=None
    )
    with plan(tmp_path) as ledger:
        first, second, *_ = ledger.trials()
        with Progress(ledger, verbose, console) as progress:
            assert progress.seconds_left() is None
            for trial in (first, second):
                ledger.start(trial.key)
                progress.event(Event(trial, "running"))
            progress.refresh()
            result = {"status": "ok", "score": 0.75, "metric": "m", "mode": "max", "baseline": 0.5}
            ledger.finish(first.key, result)
            progress.event(Event(dataclasses.replace(first, state="done", result=result), "done"))
            progress.event(Event(second, "retry", "OSError: \x1b[31m once"))
            ledger.fail(second.key, "OSError: twice")
            progress.event(Event(second, "failed", "OSError: twice"))
            assert progress.seconds_left() is not None
    return console.file.getvalue()


def test_lines_where_there_is_no_terminal(tmp_path):
    text = play(tmp_path, terminal=False)
    assert "1/4 done baseline/adding/0" in text
    assert "1/4 retry clip/adding/0" in text and "OSError" in text
    assert "2/4 failed clip/adding/0" in text
    assert "left" in text and "\x1b" not in text


def test_live_table_with_ranking(tmp_path):
    text = play(tmp_path, terminal=True)
    assert "2 pending" in text and "1 failed" in text
    assert "baseline" in text and "0.500" in text  # skill: (0.75 - 0.5) / (1 - 0.5)
    assert "\x1b[31m" not in text  # an error's text is no command to the terminal


def test_silence(tmp_path):
    assert play(tmp_path, terminal=True, verbose=False) == ""


def test_durations_are_in_readable_units():
    assert duration(5.4) == "5 s"
    assert duration(125) == "2 min 5 s"
    assert duration(7260) == "2 h 1 min"


def test_planning_is_announced_before_it_begins(tmp_path, monkeypatch):
    said = []

    def begin(*_):
        raise InterruptedError

    monkeypatch.setattr(rich.status.Status, "__init__", lambda self, text, **_: said.append(text))
    monkeypatch.setattr(rich.status.Status, "__enter__", lambda self: self)
    monkeypatch.setattr(rich.status.Status, "__exit__", lambda self, *_: None)
    monkeypatch.setattr(rich.status.Status, "update", lambda self, text: said.append(text))
    monkeypatch.setattr(study.runner, "open_ledger", begin)
    with pytest.raises(InterruptedError):
        study.compare("adding", "clip", 1000, tmp_path / "logs")
    assert said == ["Planning the trials", "Planning 1,000 trials"]
