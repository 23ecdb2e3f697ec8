"""The sentence that a report opens with: what was found, and no more than that."""

import math
from collections.abc import Sequence

import numpy as np

from kbptt.ablation import ranking, statistics, tables, tally
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
    clauses = found.clauses(alone=not missing.lost and not missing.searching)
    if missing.searching and not results.runs:
        clauses = ["The searches are not finished, so the comparison has not started"]
    clauses = clauses or ["No trial has a result"]
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
        self.task: str | None = results.only
        self.where = f"on {self.task}" if self.task else f"over {len(results.tasks)} tasks"
        self.unit, rows = results.said()
        self.ranking: ranking.Ranking = results.rankings[self.task]
        self.ranked: list[Row] = [row for row in rows if not math.isnan(row.standing)]
        self.others: list[Row] = [row for row in rows if row.runs and math.isnan(row.standing)]
        # The numbers of the sentence are those of the table.
        self._mean, self._difference = tables.means(rows), tables.differences(rows)

    def clauses(self, alone: bool) -> list[str]:
        """The finding and what it rests on.

        Args:
            alone: Whether no other method is to come or is lost.
        """
        seeds = int(self.ranking.seeds.sum())
        found = [self.sentence(alone and not self.others)] if self.ranked else []
        if len(self.ranked) > 1 and self.ranking.beyond:
            found.append(f"ranked by the {count(seeds, 'seed')} that they share")
        if self.others and self.ranked:
            few = [f"{r.arm} ({self.has(r)} of {count(seeds, 'seed')})" for r in self.others]
            found.append(f"too few of the same seeds to rank {_listed(few)}")
        elif self.others:
            found.append(
                f"No method has a seed with results on all {len(self.results.tasks)} tasks"
            )
        if self.ranked and (diverged := self.ranked[0].diverged):
            found.append(f"{diverged} of the {self.ranked[0].runs} runs of the best diverged")
        return found

    def sentence(self, alone: bool) -> str:
        """What was found; `alone`: if there is one method only."""
        best = self.ranked[0]
        ties = [row for row in self.ranked if _equal(row.standing, best.standing)]
        if len(self.ranked) == 1:
            text = f"{best.arm} reaches {self.mean(best)} {self.where}"
            return text + ("; there is nothing to compare it with" if alone else "")
        if len(ties) > 1:
            return self.tie(ties)
        if best.comparison is None:
            return self.reference_is_best(best)
        pairs, better = best.comparison.pairs, best.comparison.better
        if not better:
            seen = f"no difference to {best.reference} is seen: 0 of {pairs} pairs are better"
            seen = seen if pairs else f"it shares no seed with {best.reference}"
            return f"{best.arm} has the best mean {self.where}, {self.mean(best)}, but {seen}"
        if best.p <= LEVEL:
            return f"{best.arm} is best {self.where}: {self.difference(best)}" + self.runner_up()
        return self.not_shown(best)

    def has(self, row: Row) -> int:
        """How many of the seeds that decide the ranking a method has."""
        scores = self.results.values(row.arm, self.task)
        return int(np.isfinite(scores[self.ranking.seeds]).all(axis=1).sum())

    def tie(self, ties: Sequence[Row]) -> str:
        names = [row.arm for row in ties]
        who = (
            f"All {len(names)} methods and settings"
            if len(names) == len(self.ranked) and len(names) > 2
            else _listed(names)
        )
        return f"{who} tie {self.where}, at {self._mean(ties[0].standing)} {self.unit} each"

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
        # Which of the scores is larger does not matter to the test.
        found = statistics.compare(
            *(self.results.values(row.arm, self.task) for row in (best, second))
        )
        return "" if found.p <= LEVEL else f"; {second.arm} is not shown to be worse"

    def mean(self, row: Row) -> str:
        return self._with_unit(row.mean, self._mean)

    def difference(self, row: Row, against: bool = True) -> str:
        comparison = _compared(row)
        text = self._with_unit(comparison.difference, self._difference, sign=True)
        text += f", {comparison.better} of {comparison.pairs} pairs"
        return text + (f" against {row.reference}" if against else "")

    def _with_unit(self, e: statistics.Estimate, write: Decimals, sign: bool = False) -> str:
        """An estimate as the table has it, with the unit behind its value."""
        value, space, spread = tables.show_estimate(e, write, sign).partition(" ")
        delta = "" if not sign or value[0] in f"+{tables.MINUS}" else "Δ "  # 0 would seem a score
        return f"{delta}{value} {self.unit}{space}{spread}"


def _compared(row: Row) -> statistics.Comparison:
    """The comparison of a row with its reference; without pairs if there is none."""
    return row.comparison or statistics.Comparison(NOTHING, NOTHING, math.nan, 0)


def _equal(first: float, second: float) -> bool:
    return abs(first / 2 - second / 2) <= _EQUAL * max(abs(first / 2), abs(second / 2))


def _listed(names: Sequence[str]) -> str:
    """The first few names."""
    last = names[-1] if len(names) <= 4 else f"{len(names) - 3} more"
    before = names[:-1] if len(names) <= 4 else names[:3]
    return f"{', '.join(before)} and {last}" if before else last
