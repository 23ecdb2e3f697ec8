"""The tuning in a report: who was tuned how, on what, and which differences are the tuning's."""

import collections
import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from kbptt.ablation import controls, options, tuning
from kbptt.ablation.results import Results
from kbptt.ablation.spaces import Choice, Space, described, parsed
from kbptt.ablation.tables import Cell, Decimals, Table
from kbptt.ablation.text import literal, print_table

COLUMNS = (
    "stage method task seed state validation_score score metric chosen tuned directory error"
).split()
LISTED = 8  # arms in a note, and differences that are not confirmed
RULES = (
    "Tuning: every method has the same budget on every task: {budget}, which the comparison does "
    "not use. The mean validation score decides; a trial that crashed or diverged counts as the "
    "worst. Searches do not read test data.",
    "Controls: where p is at most 5 %, the weaker of the two methods also ran at the tuned values "
    "of the stronger one, and p is the larger of both tests. A difference that vanishes there is "
    "due to the searches, not to the methods.",
)


@dataclasses.dataclass(frozen=True)
class _Searched:
    """A search and what came of it."""

    arm: str
    task: str
    points: list[tuning.Point]
    chosen: dict[str, Any] | None  # so far the best, while the search is not over
    compared: bool

    @property
    def settled(self) -> list[tuning.Point]:
        """The points of which every trial has ended."""
        return [point for point in self.points if point.settled]

    @property
    def over(self) -> bool:
        """Whether no trial is left to run."""
        return self.compared or len(self.settled) == len(self.points)

    @property
    def score(self) -> float:
        """Mean validation score of the chosen point, in the sign of the metric."""
        points = self.points if self.over else self.settled
        results = [t.result for point in points for t in point.trials if t.result]
        values = [point.values for point in points]
        if self.chosen not in values or not results:
            return math.nan
        score = tuning.scores(points)[values.index(self.chosen)]
        return score if results[0]["mode"] == "max" else -score

    @property
    def crashed(self) -> bool:
        """Whether every trial crashed."""
        return not self.compared and all(
            trial.state == "failed" for point in self.points for trial in point.trials
        )

    @property
    def failed(self) -> int:
        """How many trials crashed or diverged."""
        trials = [trial for point in self.points for trial in point.trials]
        diverged = [t for t in trials if t.result and t.result["status"] != "ok"]
        return len(diverged) + sum(trial.state == "failed" for trial in trials)

    def end(self, name: str, space: Space) -> str:
        """ "lowest" or "highest" if the chosen value of an option is that of those tried."""
        tried: list[Any] = [point.values.get(name) for point in self.points]
        if isinstance(space[name], Choice):
            tried = list(space[name].all()) if space[name].size > 2 else []
        if (
            not self.over
            or self.chosen is None
            or not all(type(value) in (int, float) for value in tried)
        ):
            return ""
        if len(set(tried)) > 1:
            for word, value in (("lowest", min(tried)), ("highest", max(tried))):
                if self.chosen.get(name) == value:
                    return word
        return ""


def tables(results: Results, configuration: Mapping[str, Any]) -> list[Table]:
    """The section on the tuning as a table with its title; nothing without tuning."""
    found, space = _searched(results), _space(configuration)
    if not found or not space:
        return []
    lines = []
    writes = {  # the scores of a task are in one metric
        task: Decimals(search.score for search in found if search.task == task)
        for task in {search.task for search in found}
    }
    for search in found:
        values = search.chosen or {}
        cells = []
        for name in space:
            shown = options.show(values[name], options.path_of(name)) if name in values else ""
            end = search.end(name, space)
            cells.append(f"{shown} ({end})" if end else shown)
        settled = len(search.settled)
        so_far = "" if search.over or math.isnan(search.score) else " so far"
        lines.append(
            [
                search.task,
                search.arm,
                *cells,
                Cell(writes[search.task](search.score) + so_far, search.score),
                str(len(search.points)) if search.over else f"{settled} of {len(search.points)}",
                str(search.failed or ""),
            ]
        )
    header = ["task", "method", *space, "validation", "points", "failed"]
    title = "; ".join(f"{name} {dimension.describe()}" for name, dimension in space.items())
    return [Table(f"Tuning: {title}", header, lines)]


def notes(results: Results, configuration: Mapping[str, Any]) -> list[str]:
    """What a reader must know of the tuning before trusting the table."""
    found, space = _searched(results), _space(configuration)
    written = []
    if not results.runs and not all(search.crashed for search in found):
        written.append("The searches are not finished, so the comparison has not started.")
    lost = [f"{s.arm} on {s.task}" for s in found if s.crashed]
    if lost:
        written.append(f"Not compared, because every trial of the search crashed: {_listed(lost)}.")
    at_end = collections.defaultdict(list)
    for search in found:
        for name in space:
            if search.compared and (end := search.end(name, space)):
                at_end[name, end].append(f"{search.arm} on {search.task}")
    for (name, end), arms in at_end.items():
        written.append(
            f"{name}: the {end} value tried was the best for {_listed(arms)}. A wider space may "
            "have a better one."
        )
    return written + _unconfirmed(results)


def _unconfirmed(results: Results) -> list[str]:
    """Notes on the differences that are those of the searches, or may be."""
    written = {}
    for task in (None, *results.tasks) if results.tuned else ():
        for arm, reference, weaker in controls.unconfirmed(results, task):
            stronger = reference if weaker == arm else arm
            ran = np.isfinite(results.values(weaker, task, at=stronger)).all(axis=1).any()
            where = "over all tasks" if task is None else f"on {task}"
            # The sole task is all tasks: what is said of it once more takes the place.
            key = arm, task if len(results.tasks) > 1 else None
            written[key] = (
                f"{arm} and {reference} {where}: their difference is not confirmed, since {weaker} "
                f"at the tuned values of {stronger} "
                + ("is not shown to be worse." if ran else "has not run: compare again.")
            )
    found, more = list(written.values())[:LISTED], len(written) - LISTED
    return found + ([f"{more} more differences are not confirmed either."] if more > 0 else [])


def rules(results: Results, configuration: Mapping[str, Any]) -> list[str]:
    """How methods were tuned and are compared; nothing without tuning."""
    tuned = configuration.get("tuning")
    if not results.searches or not isinstance(tuned, Mapping):
        return [RULES[1]] if results.tuned else []
    budget = f"{tuned.get('trials')} {tuned.get('sampler')} points, each on the seeds "
    budget += ", ".join(map(str, tuned.get("seeds") or []))
    return [RULES[0].format(budget=budget), RULES[1]]


def files(results: Results, csv: Callable[..., str]) -> dict[str, str]:
    """`tuning.csv`, with a line for every trial of a search and every control."""
    rows = []
    for search in _searched(results):
        for point in search.points:
            for trial in point.trials:
                result = trial.result
                rows.append(
                    {
                        **_row(search.arm, search.task, trial),
                        "validation_score": result
                        and tuning.validation_score(result, trial.config),
                        "chosen": search.compared and point.values == search.chosen,
                    }
                )
    for arm, task, trial in results.controls():
        score = (trial.result or {}).get("score")
        rows.append({**_row(arm, task, trial), "score": score})
    return {"tuning.csv": csv(COLUMNS, rows)} if rows else {}


def _row(arm: str, task: str, trial: Any) -> dict[str, Any]:
    return {
        "stage": trial.config["stage"],
        "method": arm,
        "task": task,
        "seed": trial.config["seed"],
        "state": trial.state,
        "metric": (trial.result or {}).get("metric"),
        "tuned": described(trial.config["tuned"]),
        "directory": trial.directory,
        "error": trial.error,
    }


def show(results: Results, configuration: Mapping[str, Any], console: Any) -> None:
    """Prints the table of the tuning to a console of rich."""
    for title, header, lines in tables(results, configuration):
        console.print(literal(title), style="bold")
        print_table(console, header, lines)


def _space(configuration: Mapping[str, Any]) -> Space:
    """The search space of a configuration; empty if there is none, or none that can be read."""
    try:
        return {name: parsed(d) for name, d in configuration["tuning"]["space"].items()}
    except (KeyError, TypeError, AttributeError):  # a damaged ledger
        return {}


def _searched(results: Results) -> list[_Searched]:
    found = []
    for (arm, task), trials in results.searches.items():
        points = tuning.points_of(trials)
        values = results.tuned_values(arm, task)
        compared = values is not None
        if not compared:
            best = tuning.best([point for point in points if point.settled])
            values = best.values if best else None
        found.append(_Searched(arm, task, points, values, compared))
    return found


def _listed(names: list[str]) -> str:
    more = len(names) - LISTED
    return ", ".join(names[:LISTED]) + (f" and {more} more" if more > 0 else "")
