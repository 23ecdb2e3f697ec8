"""Progress in a terminal and elsewhere."""

import contextlib
import dataclasses
import io
import itertools
import re

import pytest
import rich.console
import rich.status
from ledgers import plan

from kbptt.ablation import progress, runner, study
from kbptt.ablation.progress import Progress, duration
from kbptt.ablation.runner import Event

MAX = {"mode": "max", "baseline": 0.5}


def play(tmp_path, terminal, verbose=True):
    """A run in which one trial succeeds, one is tried again and one fails."""
    console = rich.console.Console(
        file=io.StringIO(), force_terminal=terminal, width=100, color_system=None
    )
    clock = itertools.count(100.0, 0.1)
    with pytest.MonkeyPatch.context() as patch, plan(tmp_path) as ledger:
        patch.setattr(progress.time, "monotonic", lambda: next(clock))
        first, second, *_ = ledger.trials()
        with Progress(ledger, verbose, console) as shown:
            assert shown.seconds_left() is None
            for trial in (first, second):
                ledger.start(trial.key)
                shown.event(Event(trial, "running"))
            shown.refresh()
            result = {"status": "ok", "score": 0.75, "metric": "m", "mode": "max", "baseline": 0.5}
            ledger.finish(first.key, result)
            shown.event(Event(dataclasses.replace(first, state="done", result=result), "done"))
            shown.event(Event(second, "retry", "OSError: \x1b[31m once"))
            ledger.fail(second.key, "OSError: twice")
            shown.event(Event(second, "failed", "OSError: twice"))
            assert shown.seconds_left() is not None
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
    assert "baseline" in text and "mean m" in text and "0.750" in text
    assert "skill" not in text  # of one task its metric, as in the headline
    assert "\x1b[31m" not in text  # an error's text is no command to the terminal


def test_the_ranking_so_far_has_one_number_of_decimals_and_is_of_shared_seeds(tmp_path):
    """The mean of clip is better by the seed that baseline does not have yet."""
    scores = {("baseline", 0): 0.505, ("clip", 0): 0.5, ("clip", 1): 0.7}
    console = rich.console.Console(
        file=io.StringIO(), force_terminal=True, width=100, color_system=None
    )
    with plan(tmp_path) as ledger:
        for trial in ledger.trials():
            score = scores.get((trial.config["method"]["name"], trial.config["seed"]))
            if score:
                ledger.finish(trial.key, {"status": "ok", "score": score, "metric": "m"} | MAX)
        with Progress(ledger, console=console):
            pass
    table = re.findall(r"(baseline|clip) +(\S+) +(\d)", console.file.getvalue())
    assert table[:2] == [("baseline", "0.505", "1"), ("clip", "0.600", "2")]


def test_time_left_is_that_of_all_trials_on_all_workers(tmp_path, monkeypatch):
    """Trials of 10 s, two at a time; four in all."""
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    console = rich.console.Console(file=io.StringIO(), width=100)
    with plan(tmp_path) as ledger, Progress(ledger, console=console) as shown:
        trials = ledger.trials()
        now[0] += 30  # workers start
        for trial in trials[:2]:
            shown.event(Event(trial, "running"))
        now[0] += 10
        assert shown.seconds_left() is None
        shown.event(Event(trials[0], "done"))
        shown.event(Event(trials[2], "running"))
        assert shown.seconds_left() == 10  # 3 trials of 10 s, of which one is at its end: 20 s / 2
        now[0] += 4
        assert shown.seconds_left() == 8
        shown.event(Event(trials[1], "failed", "OSError"))  # after 14 s: 12 s on average
        assert shown.seconds_left() == (2 * 12 - 4) / 2


def test_trials_beyond_their_usual_time_and_controls(tmp_path, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    console = rich.console.Console(file=io.StringIO(), width=100)

    def last_line():
        return console.file.getvalue().splitlines()[-1]

    with plan(tmp_path) as ledger, Progress(ledger, console=console, controls=True) as shown:
        *others, last = ledger.trials()
        for trial in others:
            shown.event(Event(trial, "running"))
            now[0] += 10
            shown.event(Event(trial, "done"))
        assert "1 pending, 3 done, about 10 s left" in last_line() and "controls" not in last_line()
        shown.event(Event(last, "running"))
        now[0] += 11
        shown.event(Event(last, "retry", "OSError"))
        shown.event(Event(last, "running"))
        now[0] += 11
        shown.event(Event(last, "retry", "OSError"))
        assert "about 10 s left" in last_line()  # it begins once more
        shown.event(Event(last, "running"))
        now[0] += 11
        other = dataclasses.replace(last, key="other")
        shown.event(Event(other, "retry", "OSError"))
        assert "1 running, 3 done, taking longer than usual, controls may follow" in last_line()
        shown.event(Event(last, "done"))
        assert last_line().endswith("4 done, controls may follow)")
        shown.event(Event(other, "planned"))
        shown.event(Event(other, "running"))
        shown.event(Event(other, "done"))
        assert last_line().endswith("(0 s; 5 done)")


@pytest.mark.parametrize("terminal", [True, False])
def test_what_is_waited_for_before_the_first_trial_and_the_size_of_the_models(tmp_path, terminal):
    console = rich.console.Console(
        file=io.StringIO(), force_terminal=terminal, width=100, color_system=None
    )
    with plan(tmp_path) as ledger, Progress(ledger, console=console) as shown:
        first, second, *_ = ledger.trials()
        assert "Starting workers" in console.file.getvalue()
        for trial, count in ((first, 12_345), (second, 67), (second, None)):
            shown.event(Event(trial, "built", parameters=count))
        shown.event(Event(first, "running"))
        shown.event(Event(second, "running"))
    text = console.file.getvalue()
    assert text.count("Parameters of a model: 67 to 12,345.") == 1


def test_how_long_the_start_takes_is_said_from_a_second_on(tmp_path, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    console = rich.console.Console(
        file=io.StringIO(), force_terminal=True, width=100, color_system=None
    )
    with plan(tmp_path) as ledger, Progress(ledger, console=console) as shown:
        assert "Starting workers …" in console.file.getvalue()
        for passed in (0.00068, 30):
            now[0] += passed
            shown.refresh()
    seen = console.file.getvalue()
    assert "0.00068" not in seen and "Starting workers (30 s)" in seen


def test_silence(tmp_path):
    assert play(tmp_path, terminal=True, verbose=False) == ""


def test_the_end_is_announced_before_the_workers_are_ended(tmp_path, monkeypatch):
    said = []

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(runner.clusters, "connect", lambda *_: contextlib.nullcontext())
    monkeypatch.setattr(runner.clusters, "end_trials", lambda _: said.append("ended"))
    monkeypatch.setattr(runner, "_check_models", interrupted)
    console = rich.console.Console(file=io.StringIO(), width=100)
    with plan(tmp_path) as ledger, Progress(ledger, console=console) as shown:
        with pytest.raises(KeyboardInterrupt):
            runner.run(ledger, workers=1, on_stop=lambda: said.append(shown.stopping()))
    assert said == [None, "ended"]
    assert console.file.getvalue().endswith("Stopping …\n")


def test_durations_are_in_readable_units():
    assert duration(5.4) == "5 s"
    assert [duration(t) for t in (-1e-6, 0.00068, 0.0123, 0.456, 0.999)] == [
        "0 s",
        "0 s",
        "0.01 s",
        "0.46 s",
        "1 s",
    ]
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
