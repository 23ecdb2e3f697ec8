"""Progress of an ablation in the terminal: states, time left and the ranking so far."""

import collections
import contextlib
import dataclasses
import time
from typing import Any

import numpy as np
import rich.box
import rich.console
import rich.live
import rich.table

from kbptt.ablation import ranking, text
from kbptt.ablation.ledger import Ledger, Trial
from kbptt.ablation.resampling import unscaled
from kbptt.ablation.results import Results
from kbptt.ablation.runner import Event
from kbptt.ablation.tables import Decimals
from kbptt.ablation.text import duration, literal

LINES = 12  # of the ranking
STARTING = "Starting workers"
SECONDS = 0.25  # between two drawings of the live table
SHARE = 0.05  # of the time may go into the ranking, whose cost grows with the ablation


class Progress:
    """Shows the progress: a live table in a terminal, one line per event elsewhere.

    Args:
        ledger: The ledger of the run.
        verbose: Whether to show anything.
        console: Rich console. Defaults to standard output.
        later: How many trials are to be planned while it runs. Defaults to `0`.
        starting: What is waited for before the first trial. Defaults to the workers.
        controls: Whether trials may follow whose number is not known before. Defaults to `False`.
    """

    def __init__(
        self,
        ledger: Ledger,
        verbose: bool = True,
        console: Any = None,
        later: int = 0,
        starting: str = STARTING,
        controls: bool = False,
    ):
        self.ledger = ledger
        self.starting = starting
        self.controls = controls
        self.verbose = verbose
        self.console: rich.console.Console = console or text.console()
        self.counts: dict[str, int] = ledger.counts()
        self.later = later
        self.counts["pending"] += later
        self.started: float = time.monotonic()
        self.finished: int = 0
        self.took: float = 0.0  # seconds of all finished trials
        self.most_at_once: int = 1
        self.parameters: set[int] = set()
        self.running: dict[str, float] = {}
        self.errors: collections.deque[str] = collections.deque(maxlen=3)
        self._begun: set[str] = set()
        self._trials: dict[str, Trial] = {}
        self._unit = "skill"
        self._ranking: list[tuple[str, float, int]] = []
        self._unranked = False
        self._rank_at = self._draw_at = 0.0
        self._live = None

    def __enter__(self) -> "Progress":
        if self.verbose and self.console.is_terminal and self.counts["pending"]:
            self._trials = {trial.key: _without_curves(trial) for trial in self.ledger.each()}
            if any(trial.result for trial in self._trials.values()):
                self._rank()
            self._live = rich.live.Live(
                self._render(), console=self.console, auto_refresh=False, transient=True
            )
            self._live.start(refresh=True)
        elif self.verbose and self.counts["pending"]:
            self._print(f"{self._line()}. {self.starting} …")
        return self

    def __exit__(self, *_: Any) -> None:
        if self._live:
            with contextlib.suppress(Exception):
                self._rank_at = self._draw_at = 0.0
                self.refresh()
                self._live.stop()

    def event(self, event: Event) -> None:
        """Records an `Event` of the runner."""
        key, name = event.trial.key, event.trial.directory
        if event.state == "built":
            if event.parameters is not None:
                self.parameters.add(event.parameters)
            return
        if event.state == "planned":
            if not self.later:  # it is a control
                self.counts["pending"] += 1
                self.controls = False
            self.later -= self.later > 0
            return
        if event.state == "running":
            if not self._begun and self.verbose and self.parameters:
                self._print(f"Parameters of a model: {_range(self.parameters)}.")
            self.running[key] = time.monotonic()
            self.most_at_once = max(self.most_at_once, len(self.running))
            if key not in self._begun:  # a retried trial counts as running all the time
                self._begun.add(key)
                self._count("pending", "running")
            return
        took = time.monotonic() - self.running.pop(key, time.monotonic())
        if event.state in ("done", "failed"):
            self.finished += 1
            self.took += took
            self._count("running", event.state)
        if event.error:
            self.errors.append(f"{name}: {event.state}: {event.error}")
        if not self.verbose:
            return
        if self._live:
            if event.state == "done":
                self._trials[key] = _without_curves(event.trial)
                self._unranked = True
            self.refresh()
        else:
            self._print(
                f"{self._done()} {event.state} {name} ({duration(took)}; {self._line()})"
                + (f" {event.error}" if event.error else "")
            )

    def stopping(self) -> None:
        """Says that the run is about to end, which takes seconds."""
        if self.verbose:
            self._print("Stopping …")

    def refresh(self) -> None:
        """Redraws the live table, at most once in `SECONDS`."""
        now = time.monotonic()
        if not self._live or now < self._draw_at:
            return
        if self._unranked and now >= self._rank_at:
            self._rank()
        self._live.update(self._render(), refresh=True)
        self._draw_at = time.monotonic() + SECONDS

    def _count(self, before: str, now: str) -> None:
        """Moves one trial from one state to another, without counting all of them in the ledger."""
        self.counts[before] -= 1
        self.counts[now] += 1

    def seconds_left(self) -> float | None:
        """Estimate from the trials that finished in this run; None before the first one.

        Those that run now have a part of their time behind them.
        """
        if not self.finished:
            return None
        now, of_a_trial = time.monotonic(), self.took / self.finished
        spent = sum(min(now - begun, of_a_trial) for begun in self.running.values())
        left = self.counts["pending"] + self.counts["running"]
        return (left * of_a_trial - spent) / self.most_at_once

    def _print(self, line: str) -> None:
        (self._live or self).console.print(literal(line), soft_wrap=True)

    def _done(self) -> str:
        return f"{self.counts['done'] + self.counts['failed']}/{sum(self.counts.values())}"

    def _line(self) -> str:
        parts = [f"{self.counts[s]} {s}" for s in self.counts if self.counts[s]]
        left = self.seconds_left()
        if left is not None and self.counts["pending"] + self.counts["running"]:
            # Nothing is left for trials whose usual time is over: how long they take is unknown.
            usual = round(left, 2) > 0
            parts.append(f"about {duration(left)} left" if usual else "taking longer than usual")
        if self.controls and not self.counts["pending"]:
            parts.append("controls may follow")
        return ", ".join(parts)

    def _rank(self) -> None:
        started = time.monotonic()
        results = Results(list(self._trials.values()))
        task = results.only
        order = ranking.rank({arm: results.values(arm, task) for arm in results.arms})
        rows = []
        for arm in (*order.means, *order.placeless):
            scores = results.skills(arm) if task is None else results.scores(arm, task)
            scores = scores[np.isfinite(scores)]
            rows.append((arm, unscaled(np.mean, scores), scores.size))
        self._ranking = rows
        self._unit = results.unit if task is None else results.metric(task)[0]
        self._unranked = False
        ended = time.monotonic()
        self._rank_at = ended + (ended - started) / SHARE

    def _render(self) -> rich.console.Group:
        done = self.counts["done"] + self.counts["failed"]
        total = sum(self.counts.values())
        filled = round(40 * done / total) if total else 0
        bar = "━" * filled + "╌" * (40 - filled)
        parts: list[Any] = [literal(f"{bar} {self._done()}  {self._line()}")]
        if not self._begun:
            waited = time.monotonic() - self.started
            parts.append(
                literal(self.starting + (f" ({duration(waited)})" if waited >= 1 else " …"))
            )
        if self._ranking:
            table = rich.table.Table(box=rich.box.SIMPLE_HEAD, title="so far", title_justify="left")
            table.add_column("method")
            table.add_column(literal(f"mean {self._unit}"), justify="right")
            table.add_column("runs", justify="right")
            shown = self._ranking[:LINES]
            write = Decimals([mean for _, mean, _ in shown])
            for arm, mean, runs in shown:
                table.add_row(literal(arm), write(mean), str(runs))
            parts.append(table)
        parts += [literal(error) for error in self.errors]
        return rich.console.Group(*parts)


def _without_curves(trial: Trial) -> Trial:
    """A trial with only the parts of its result that a ranking needs, to be kept in memory."""
    if trial.result is None:
        return trial
    needed = ("status", "score", "metric", "mode", "baseline", "perfect", "success_threshold")
    result = {name: trial.result[name] for name in needed if name in trial.result}
    return dataclasses.replace(trial, result=result)


def _range(numbers: set[int]) -> str:
    least, most = min(numbers), max(numbers)
    return f"{least:,}" if least == most else f"{least:,} to {most:,}"


def clock(seconds: float) -> str:
    """A duration in the least space: 1:05, or 2:10:00 with hours."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
