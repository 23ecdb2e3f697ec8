"""Reports: the ranking in the terminal, and as CSV, Markdown, LaTeX and HTML."""

import collections
import functools
import io
import json
import math
import os
import pathlib
import shlex
from collections.abc import Sequence
from typing import Any

from kbptt._extras import optional_imports
from kbptt.ablation import (
    explaining,
    headline,
    markup,
    scores,
    sources,
    statistics,
    tables,
    tally,
    text,
    tuning_report,
)
from kbptt.ablation.files import atomically
from kbptt.ablation.ledger import LedgerError, disk_full, is_disk_full, make_directory
from kbptt.ablation.results import Results, Row
from kbptt.ablation.rows import STATES
from kbptt.ablation.sections import Drawing, Drawings, Folded, Listing, Section
from kbptt.ablation.tables import Table
from kbptt.ablation.text import count, literal, print_table, visible

LISTED = 100  # errors and environments on a page; results.csv has all errors
PRINTED = 20  # errors in the terminal
NAMED = 3  # trials with the same error
EXPLORATORY = (
    f"Exploratory: with fewer than {statistics.FEWEST_SEEDS} seeds no exact test can reach 5 %, "
    "whatever the effect."
)

UNEQUAL = (
    "Not every method has a result for every seed. Tables are sorted by the means over the seeds "
    "that all methods share, but show the means over all runs of a method. A method with fewer "
    "than half of the seeds is listed last, without a rank."
)


class Report:
    """The results of an ablation, returned by `kbptt.ablation.compare` and `kbptt.ablation.report`.

    A notebook displays it: the finding, the tables and the figures over all tasks.

    Args:
        directory: The log directory of an ablation, finished or not; with `csv` the directory for
            the files of the report.
        reference: Label of the arm to compare with. Defaults to the baseline.
        csv: File with scores from any source, one line per run: columns `method`, `task`, `seed`
            and `score`, and those in `kbptt.ablation.scores`. Defaults to None: the ledger in
            `directory`.

    Attributes:
        results: The scores by arm, task and seed (`kbptt.ablation.results.Results`).
        rows: The ranking over all tasks, a list of `Row`, best first.
        counts: Number of trials by state; "unreadable" are invalid rows of the ledger. Crashed
            trials of a search are not "failed" but "failed_searches", unless all of them crashed
            and the method could not be tuned.
        headline: The finding in one sentence.
        command: The command that repeats the ablation or, with `csv`, the report; None if the
            ledger does not hold a whole configuration.

    Raises:
        LedgerError: if there is no ablation, or a file of scores does not have the required format.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        reference: str | None = None,
        csv: str | os.PathLike[str] | None = None,
    ):
        self.directory: pathlib.Path = pathlib.Path(directory)
        self._csv = None if csv is None else pathlib.Path(csv)
        found = sources.of_ledger(directory) if csv is None else sources.of_csv(csv)
        self.configuration: dict[str, Any] = found.configuration
        self.commits: list[str] = found.commits
        self._dated, self._notes = found.dated, found.notes
        self.results: Results = Results(found.trials, reference, found.label)
        if not self.results.runs and not self.results.searches:
            raise LedgerError(
                f"No trial of {found.name} can be read. The first: "
                f"{self.results.unreadable[0].error}"
            )
        states = collections.Counter(trial.state for trial in self.results.trials)
        self._missing: tally.Tally = tally.of(self.results)
        self.counts: dict[str, int] = {state: states[state] for state in (*STATES, "unreadable")}
        self.counts["failed_searches"] = self._missing.crashed_points
        self.counts["failed"] -= self._missing.crashed_points
        self.rows: list[Row] = self.results.table()
        self.command: str | None = found.command(self.results, directory, reference)

    @property
    def name(self) -> str:
        """The name of the ablation: its directory's or its file's."""
        return self._csv.name if self._csv else self.directory.resolve().name

    @functools.cached_property
    def headline(self) -> str:
        return headline.headline(self.results)

    @property
    def date(self) -> str:
        """When the last result came, in UTC; empty if that is not known."""
        return self._dated

    @property
    def tensorboard(self) -> str:
        """The command that shows the runs in TensorBoard; empty if there are none to show."""
        return "" if self._csv else f"tensorboard --logdir {shlex.quote(str(self.directory))}"

    def commands(self) -> list[tuple[str, str]]:
        """What a reader may want to do next, and the command for it."""
        found = [("Repeat it with", self.command), ("See the runs with", self.tensorboard)]
        return [(what, command) for what, command in found if command]

    @property
    def environments(self) -> list[dict[str, Any]]:
        """The distinct machines and versions that the trials ran on."""
        found = {}
        for trial in self.results.done():
            environment = trial.result.get("environment")
            if environment:
                found[json.dumps(environment, sort_keys=True)] = environment
        return list(found.values())

    def notes(self) -> list[str]:
        """What a reader must know before trusting the table."""
        notes = list(self._notes)
        seeds, comparisons = len(self.results.seeds), self.results.comparisons
        if not self.results.runs:  # the searches are not over
            planned = self.configuration.get("seeds")
            seeds = len(planned) if isinstance(planned, list) else seeds
        if statistics.is_exploratory(seeds):
            notes.append(EXPLORATORY)
        elif comparisons and seeds < statistics.fewest_seeds(comparisons):
            smallest = tables.p_value(statistics.smallest_p(seeds, comparisons))
            notes.append(
                f"With {seeds} seeds and {comparisons} comparisons, no p can be below {smallest} "
                f"after Holm's correction; 5 % takes {statistics.fewest_seeds(comparisons)} seeds."
            )
        missing = self._missing
        for number, where in ((missing.unfinished, ""), (missing.searching, " of the searches")):
            if number:
                trials = count(number, "trial") + where
                notes.append(f"Not finished: {trials} without a result yet.")
        if missing.crashed:
            crashed = count(missing.crashed, "trial")
            notes.append(f"Crashed: {crashed}, without a score; their errors are below.")
        if missing.crashed_points:
            crashed = count(missing.crashed_points, "trial")
            notes.append(
                f"Crashed in the searches: {crashed}, counted as the worst of the search; their "
                "errors are below."
            )
        if self.counts["unreadable"]:
            rows = count(self.counts["unreadable"], "row")
            notes.append(f"Unreadable: {rows} of the ledger, excluded; listed below.")
        if any(order.beyond or order.placeless for order in self.results.rankings.values()):
            notes.append(UNEQUAL)
        diverged = sum(row.diverged for row in self.rows)
        if diverged:
            notes.append(
                f"Diverged: {count(diverged, 'run')}, counted as failures with the worst score."
            )
        if len(self.environments) > 1 or len(self.commits) > 1:
            notes.append(
                "Trials ran on different machines, versions or commits: results may differ."
            )
        return notes + tuning_report.notes(self.results, self.configuration)

    def failures(self) -> list[tuple[str, str]]:
        """Directory and error of every trial that crashed."""
        trials = self.results.trials
        return [(t.directory, t.error or "") for t in trials if t.state == "failed"]

    def unreadable(self) -> list[tuple[str, str]]:
        """Directory of every trial whose row of the ledger is invalid, and the reason."""
        return [(trial.directory, trial.error or "") for trial in self.results.unreadable]

    def troubles(self, most: int = LISTED) -> list[tuple[str, list[str]]]:
        """Headings and lines on trials without a result, at most `most` lines for each."""
        found = []
        for title, pairs in (("Crashed", self.failures()), ("Unreadable", self.unreadable())):
            alike: dict[str, list[str]] = {}  # each error once, however many trials have it
            for directory, error in pairs:
                alike.setdefault(error, []).append(directory)
            lines = [f"{_first(where)}: {error}" for error, where in list(alike.items())[:most]]
            if len(alike) > most:
                lines.append(f"… and {len(alike) - most} more errors: see results.csv")
            if lines:
                found.append((title, lines))
        return found

    def rules(self) -> list[str]:
        """How the numbers in the tables are computed."""
        found = explaining.rules(
            self.results, self.tables(), self.configuration, in_file=self._csv is not None
        )
        return found + tuning_report.rules(self.results, self.configuration)

    def write(self) -> list[pathlib.Path]:
        """Writes `results.csv`, `report.md`, `report.html` and `report.tex` into the directory.

        Of a tuned study also `tuning.csv`. A report on a CSV file writes no CSV files.
        """
        contents = {}
        if not self._csv:
            contents["results.csv"] = self.csv()
            contents |= tuning_report.files(self.results, scores.text)
        contents |= {
            "report.md": self.markdown(),
            "report.html": self.html(),
            "report.tex": self.latex(),
        }
        make_directory(self.directory)
        for name, content in contents.items():
            path = self.directory / name
            try:
                with atomically(path) as partial:
                    partial.write_text(content, encoding="utf-8", newline="")
            except OSError as error:
                if is_disk_full(error):
                    raise disk_full(self.directory) from error
                raise LedgerError(f"Cannot write {str(path)!r}: {error.strerror}.") from error
        return [self.directory / name for name in contents]

    def csv(self) -> str:
        """One line for every run and control, in full precision; the argument `csv` reads it."""
        output = io.StringIO()
        scores.write(self.results, output)
        return output.getvalue()

    def markdown(self) -> str:
        """The finding, the tables and the notes as Markdown."""
        parts = [f"# Ablation: {markup.escaped(self.name)}", markup.escaped(self.headline)]
        parts += [f"{self.date}."] if self.date else []
        parts += [f"{what}: `{visible(command)}`" for what, command in self.commands()]
        parts += [f"> {markup.escaped(note)}" for note in self.notes()]
        parts += markup.markdown(self.sections())
        return "\n\n".join(parts) + "\n"

    def latex(self) -> str:
        """The tables for a LaTeX document that uses `booktabs` and `graphicx`."""
        return markup.latex(self.tables(), self.headline)

    def html(self) -> str:
        """One self-contained page: styles and figures are embedded, everything is escaped."""
        from kbptt.ablation import page

        return page.page(self, self.sections(self.figures()))

    def _repr_html_(self) -> str:
        """What a notebook shows: finding, tables, figures over all tasks, and errors."""
        from kbptt.ablation import page

        figures = Drawings(self.figures(overall=True))
        troubles = [Listing(*trouble) for trouble in self.troubles(PRINTED)]
        return page.fragment(self, [*self.tables(), figures, *troubles])

    def figures(self, overall: bool = False) -> list[Drawing]:
        """The figures of the page; `overall` leaves out those of single tasks."""
        with optional_imports():
            from kbptt.ablation import figures

        return figures.overall(self.results) if overall else figures.draw(self.results)

    def sections(self, figures: Sequence[Drawing] = ()) -> list[Section]:
        """The parts of the report below its notes, in order."""
        found: list[Section] = [*self.tables()]
        found += [Drawings(list(figures))] if figures else []
        found += [Listing(*trouble) for trouble in self.troubles()]
        found.append(Listing("How to read this", self.rules()))
        if environment := self.environment_lines():
            found.append(Listing("Environment", environment))
        if self.configuration:
            json_text = json.dumps(self.configuration, indent=1, ensure_ascii=False)
            found.append(Folded("Configuration", json_text))
        return found

    def tables(self) -> list[Table]:
        """The overall table and one for every task."""
        found = []
        if self.results.sole is None and self.rows:
            found.append(Table("All tasks: skill", *tables.table(self.rows, "skill")))
        for task in self.results.tasks:
            metric, mode, baseline = self.results.metric(task)
            rows = self.results.task_table(task)
            if rows:
                better = "larger" if mode == "max" else "smaller"
                without = f"; {tables.number(baseline)} without memory"
                known = f"{better} is better" + ("" if math.isnan(baseline) else without)
                title = f"{task}: {metric} ({known})"
                found.append(Table(title, *tables.table(rows, metric)))
        return found + tuning_report.tables(self.results, self.configuration)

    def environment_lines(self) -> list[str]:
        """Versions, commit, device, threads and determinism, one per line."""
        lines = [f"commit of the working directory: {commit}" for commit in self.commits]
        for environment in self.environments:
            for name, value in environment.items():
                shown = ", ".join(map(str, value)) if isinstance(value, list) else value
                lines.append(f"{name}: {shown}")
        more = len(lines) - LISTED
        return lines if more <= 0 else [*lines[:LISTED], f"… and {more} more: see the ledger"]

    def print(self, console: Any = None) -> None:
        """Prints the ranking to the terminal, or to another console of rich."""
        console = console or text.console()
        console.print(literal(self.headline), style="bold")
        unit, rows = self.results.said()
        header, lines = tables.fitting(*tables.table(rows, unit), console.width)
        print_table(console, header, lines)
        if footnote := Table("", header, lines).footnote:
            console.print(literal(footnote))
        tuning_report.show(self.results, self.configuration, console)
        for note in self.notes():
            console.print(literal(note), style="yellow")
        for _, lines in self.troubles(PRINTED):
            for line in lines:
                console.print(literal(line), style="red")


def _first(directories: Sequence[str]) -> str:
    """The first directories of some trials, and how many more there are."""
    more = len(directories) - NAMED
    return ", ".join(directories[:NAMED]) + (f" and {more} more" if more > 0 else "")
