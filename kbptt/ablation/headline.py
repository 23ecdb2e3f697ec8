"""The sentence that a report opens with: what was found, and no more than that."""

import math
from collections.abc import Sequence

import numpy as np

from kbptt.ablation import statistics, tally
from kbptt.ablation.controls import LEVEL
from kbptt.ablation.resampling import NOTHING
from kbptt.ablation.results import Results, Row
from kbptt.ablation.tables import Decimals
from kbptt.ablation.text import count

_EQUAL = 1e-12  # means that differ by less, relative to their size, differ by rounding


def headline(results: Results) -> str:
    """One sentence on the best method: by how much, how certainly, and what is missing.

    A method is called the best only if the exact test tells it from its reference after Holm's
    correction; a method that the test cannot tell from it is named too.
    """
    found, missing = _Finding(results), tally.of(results)
    if found.ranked:
        clauses = [found.sentence(alone=not missing.lost and not missing.searching)]
    elif missing.searching and not results.runs:
        clauses = ["The searches are not over, and the comparison has not begun"]
    else:
        clauses = ["No trial has a result"]
    if found.ranked and (diverged := found.ranked[0].diverged):
        clauses.append(f"{diverged} of the {found.ranked[0].runs} runs of the best diverged")
    return "; ".join(clauses + _missing(results, missing)) + "."


def _missing(results: Results, missing: tally.Tally) -> list[str]:
    """The clauses on trials without a result."""
    clauses = []
    if missing.lost:
        several = len({task for _, task in results.searches}) > 1
        names = [f"{arm} on {task}" if several else arm for arm, task in missing.lost]
        whose = "its search" if len(names) == 1 else "their searches"
        clauses.append(f"{_listed(names)} could not be tuned: every trial of {whose} crashed")
    if missing.crashed:
        clauses.append(f"{count(missing.crashed, 'trial')} crashed")
    if points := missing.crashed_points:
        few = f"{points} of the searches did"
        alone = f"{count(points, 'trial')} of the searches crashed"
        clauses.append(few if missing.crashed else alone)
    if missing.unfinished:
        clauses.append(f"{count(missing.unfinished, 'trial')} not finished")
    if missing.searching:
        clauses.append(f"{count(missing.searching, 'trial')} of the searches not finished")
    return clauses


class _Finding:
    """The ranking that the sentence is about: of the only task in its metric, or in skill."""

    def __init__(self, results: Results):
        self.results = results
        tasks = results.tasks
        self.task: str | None = tasks[0] if len(tasks) == 1 else None
        if self.task is None:
            self.unit, self.where = "skill", f"over {len(tasks)} tasks"
            rows = results.table()
        else:
            self.unit, self.where = results.metric(self.task)[0], f"on {self.task}"
            rows = results.task_table(self.task)
        self.ranked: list[Row] = [row for row in rows if not math.isnan(row.mean.value)]

    def sentence(self, alone: bool) -> str:
        """The finding; `alone`: if only one method has a result, no other is to come or is lost."""
        best = self.ranked[0]
        ties = [row for row in self.ranked if _equal(row.mean.value, best.mean.value)]
        if len(self.ranked) == 1:
            text = f"{best.arm} reaches {self.mean(best)} {self.where}"
            return text + ("; there is nothing to compare it with" if alone else "")
        if len(ties) > 1:
            return self.tie(ties)
        if best.comparison is None:
            return self.reference_is_best(best)
        if not _compared(best).pairs:
            return (
                f"{best.arm} has the best mean {self.where}, {self.mean(best)}, but shares no seed "
                f"with {best.reference}"
            )
        if best.p <= LEVEL:
            return f"{best.arm} is best {self.where}: {self.difference(best)}" + self.runner_up()
        return self.not_shown(best)

    def tie(self, ties: Sequence[Row]) -> str:
        names = [row.arm for row in ties]
        who = (
            f"All {len(names)} methods and settings"
            if len(names) == len(self.ranked) and len(names) > 2
            else _listed(names)
        )
        return f"{who} tie {self.where}, at {self.mean(ties[0])} each"

    def reference_is_best(self, best: Row) -> str:
        rivals = [r for r in self.ranked if r.reference == best.arm and _compared(r).pairs]
        if not rivals:
            return f"{best.arm} has the best mean {self.where}, {self.mean(best)}"
        closest = rivals[0]
        return (
            f"No method has a better mean than {best.arm} {self.where}: the closest, "
            f"{closest.arm}, {self.difference(closest, against=False)}"
        )

    def not_shown(self, best: Row) -> str:
        """No difference is shown for the best mean; perhaps one is for a method below it."""
        pairs = _compared(best).pairs
        if pairs < statistics.FEWEST_SEEDS:
            few = pairs < statistics.FEWEST_FOR_INTERVAL
            why = "too few pairs for an interval" if few else "exploratory, with so few pairs"
            return f"{best.arm} has the best mean {self.where}: {self.difference(best)} ({why})"
        sure = [r for r in self.ranked if r.p <= LEVEL and _compared(r).better * 2 > r.runs]
        if sure:
            return (
                f"{sure[0].arm} is better than {sure[0].reference} {self.where}: "
                f"{self.difference(sure[0], against=False)}; {best.arm} has the best mean but is "
                f"not shown to differ from {best.reference}"
            )
        return (
            f"No method is shown to differ from {best.reference} {self.where}: the best mean is "
            f"that of {best.arm}, {self.difference(best, against=False)}"
        )

    def runner_up(self) -> str:
        """The clause on a method that the same test cannot tell from the best."""
        best, second = self.ranked[:2]
        if second.arm == best.reference:
            return ""
        found = statistics.compare(*(self._scores(row.arm) for row in (best, second)))
        return "" if found.p <= LEVEL else f"; {second.arm} is not shown to be worse"

    def _scores(self, arm: str) -> np.ndarray:
        """The scores that are ranked; which of them is larger does not matter to the test."""
        if self.task is None:
            return self.results.skills(arm)
        return self.results.scores(arm, self.task)[:, None]

    def mean(self, row: Row) -> str:
        return f"{self.estimate(row.mean)} {self.unit}{self.interval(row.mean)}"

    def difference(self, row: Row, against: bool = True) -> str:
        comparison = _compared(row)
        shown = comparison.difference
        text = f"{self.estimate(shown, sign=True)} {self.unit}{self.interval(shown, sign=True)}"
        text += f", {comparison.better} of {comparison.pairs} pairs"
        return text + (f" against {row.reference}" if against else "")

    def estimate(self, e: statistics.Estimate, sign: bool = False) -> str:
        return _decimals(e)(e.value, sign)

    def interval(self, e: statistics.Estimate, sign: bool = False) -> str:
        """The interval or, of few seeds, the runs."""
        write = _decimals(e)
        if math.isfinite(e.low):
            return f" [{write(e.low)}, {write(e.high)}]"
        return f" ({', '.join(write(run, sign) for run in e.runs)})" if len(e.runs) > 1 else ""


def _compared(row: Row) -> statistics.Comparison:
    """The comparison of a row with its reference; without pairs if there is none."""
    return row.comparison or statistics.Comparison(NOTHING, NOTHING, math.nan, 0)


def _decimals(e: statistics.Estimate) -> Decimals:
    return Decimals([e.value, e.low, e.high, *e.runs], digits=2, small=False)


def _equal(first: float, second: float) -> bool:
    return abs(first / 2 - second / 2) <= _EQUAL * max(abs(first / 2), abs(second / 2))


def _listed(names: Sequence[str]) -> str:
    """The first few names."""
    last = names[-1] if len(names) <= 4 else f"{len(names) - 3} more"
    before = names[:-1] if len(names) <= 4 else names[:3]
    return f"{', '.join(before)} and {last}" if before else last
