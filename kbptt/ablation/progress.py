"""Progress of an ablation in the terminal: states, time left and the ranking so far."""

import contextlib
import dataclasses
import time
from typing import Any

import rich.box
import rich.console
import rich.live
import rich.table
import rich.text

from kbptt.ablation.ledger import Ledger, Trial
from kbptt.ablation.results import Results
from kbptt.ablation.runner import Event

LINES = 12  # of the ranking


class Progress:
    """Shows what happens; a live table in a terminal, one line for each event elsewhere.

    Args:
        ledger: The ledger that runs.
        verbose: Whether to show anything.
        console: Rich console. Defaults to standard output.
    """

    def __init__(self, ledger: Ledger, verbose: bool = True, console: Any = None):
        self.ledger, self.verbose = ledger, verbose
        self.console = console or rich.console.Console()
        self.counts = ledger.counts()
        self.started = time.monotonic()
        self.finished = 0
        self.running: dict[str, float] = {}
        self.errors: list[str] = []
        self._trials: dict[str, Trial] = {}
        self._ranking: list[tuple[str, float, int]] = []
        self._live = None

    def __enter__(self) -> "Progress":
        if self.verbose and self.console.is_terminal and self.counts["pending"]:
            self._trials = {trial.key: _without_curves(trial) for trial in self.ledger.trials()}
            self._rank()
            self._live = rich.live.Live(
                self._render(), console=self.console, auto_refresh=False, transient=True
            )
            self._live.start()
        elif self.verbose and self.counts["pending"]:
            self._print(self._line())
        return self

    def __exit__(self, *_: Any) -> None:
        if self._live:
            with contextlib.suppress(Exception):
                self._live.stop()

    def event(self, event: Event) -> None:
        """Takes note of an `Event` of the runner."""
        self.counts = self.ledger.counts()
        name = event.trial.directory
        if event.state == "running":
            self.running[event.trial.key] = time.monotonic()
            return
        took = time.monotonic() - self.running.pop(event.trial.key, time.monotonic())
        if event.state in ("done", "failed"):
            self.finished += 1
        if event.error:
            self.errors.append(f"{name}: {event.state}: {event.error}")
        if not self.verbose:
            return
        if self._live:
            if event.state == "done":
                self._trials[event.trial.key] = _without_curves(event.trial)
                self._rank()
            self.refresh()
        else:
            self._print(
                f"{self._done()} {event.state} {name} ({_duration(took)}; {self._line()})"
                + (f" {event.error}" if event.error else "")
            )

    def refresh(self) -> None:
        """Draws the live table again."""
        if self._live:
            self._live.update(self._render(), refresh=True)

    def seconds_left(self) -> float | None:
        """Estimate from the trials that finished in this run; None before the first one."""
        left = self.counts["pending"] + self.counts["running"]
        if not self.finished:
            return None
        return (time.monotonic() - self.started) / self.finished * left

    def _print(self, line: str) -> None:
        self.console.print(literal(line), soft_wrap=True)

    def _done(self) -> str:
        return f"{self.counts['done'] + self.counts['failed']}/{sum(self.counts.values())}"

    def _line(self) -> str:
        counts = ", ".join(f"{self.counts[s]} {s}" for s in self.counts if self.counts[s])
        left = self.seconds_left()
        return counts + (f", about {_duration(left)} left" if left is not None else "")

    def _rank(self) -> None:
        results = Results(list(self._trials.values()))
        ranking = []
        for arm in results.arms:
            skills = results.skills(arm)
            skills = skills[skills == skills]
            if skills.size:
                ranking.append((arm, float(skills.mean()), skills.size))
        self._ranking = sorted(ranking, key=lambda row: -row[1])

    def _render(self) -> rich.console.Group:
        done = self.counts["done"] + self.counts["failed"]
        total = sum(self.counts.values())
        filled = round(40 * done / total) if total else 0
        bar = "━" * filled + "╌" * (40 - filled)
        parts: list[Any] = [literal(f"{bar} {self._done()}  {self._line()}")]
        if self._ranking:
            table = rich.table.Table(box=rich.box.SIMPLE_HEAD, title="so far", title_justify="left")
            table.add_column("method")
            table.add_column("mean skill", justify="right")
            table.add_column("runs", justify="right")
            for arm, skill, runs in self._ranking[:LINES]:
                table.add_row(literal(arm), f"{skill:.3f}", str(runs))
            parts.append(table)
        parts += [literal(error) for error in self.errors[-3:]]
        return rich.console.Group(*parts)


def _without_curves(trial: Trial) -> Trial:
    """A trial with what a ranking needs of its result: kept, not read anew from the ledger."""
    if trial.result is None:
        return trial
    needed = ("status", "score", "metric", "mode", "baseline", "perfect", "success_threshold")
    result = {name: trial.result[name] for name in needed if name in trial.result}
    return dataclasses.replace(trial, result=result)


def literal(text: str) -> rich.text.Text:
    """Text that the terminal shows as it is: no markup, no escape sequences of a user's file."""
    return rich.text.Text("".join(c if c.isprintable() or c == "\n" else "�" for c in text))


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {seconds} s" if minutes else f"{seconds} s"
