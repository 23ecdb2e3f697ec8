"""Reports: the ranking in the terminal, `results.csv`, `report.md` and `report.html`."""

import collections
import csv
import functools
import io
import itertools
import json
import math
import os
import pathlib
import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from kbptt._extras import optional_imports
from kbptt.ablation import statistics, tables, tuning_report
from kbptt.ablation.files import atomically
from kbptt.ablation.ledger import Ledger, LedgerError, disk_full, is_disk_full
from kbptt.ablation.results import Results, Row, clip_rate, decay, is_success, skipped
from kbptt.ablation.rows import STATES, Trial
from kbptt.ablation.spaces import described
from kbptt.ablation.text import one_line, visible

COLUMNS: list[str] = (
    "method task seed state score metric success diverged best_epoch decay_start decay_end "
    "clip_rate skipped_steps seconds_per_step training_memory_bytes peak_memory_bytes seconds "
    "directory error tuned"
).split()
LISTED = 100  # errors and environments on a page; results.csv has all errors
PRINTED = 20  # errors in the terminal
EXPLORATORY = (
    f"Exploratory: with fewer than {statistics.FEWEST_SEEDS} seeds no exact test can reach 5 %, "
    "whatever the effect."
)


class Report:
    """What an ablation found. Returned by `kbptt.ablation.compare` and `kbptt.ablation.report`.

    Args:
        directory: The log directory of an ablation, finished or not.
        reference: Label of the arm to compare with. Defaults to the baseline.

    Attributes:
        results: The scores by arm, task and seed (`kbptt.ablation.results.Results`).
        rows: The ranking over all tasks, a list of `Row`, best first.
        counts: Number of trials by state; "unreadable" are invalid rows of the ledger.
    """

    def __init__(self, directory: str | os.PathLike[str], reference: str | None = None):
        self.directory: pathlib.Path = pathlib.Path(directory)
        with Ledger(directory, read_only=True) as ledger:
            trials = ledger.trials()
            configuration = ledger.meta("configuration")
            self.commits: list[str] = ledger.commits
        self.configuration: dict[str, Any] = (
            configuration if isinstance(configuration, dict) else {}
        )
        if not trials:
            raise LedgerError(f"The ablation in {str(self.directory)!r} has no trials.")
        self.results: Results = Results(trials, reference)
        if not self.results.runs and not self.results.searches:
            raise LedgerError(
                f"No trial of the ablation in {str(self.directory)!r} can be read. The first: "
                f"{self.results.unreadable[0].error}"
            )
        found = collections.Counter(trial.state for trial in self.results.trials)
        self.counts: dict[str, int] = {state: found[state] for state in (*STATES, "unreadable")}
        self.rows: list[Row] = self.results.table()

    @property
    def tensorboard(self) -> str:
        """The command that shows the runs in TensorBoard."""
        return f"tensorboard --logdir {shlex.quote(str(self.directory))}"

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
        notes = []
        seeds, comparisons = len(self.results.seeds), self.results.comparisons
        if self.results.exploratory:
            notes.append(EXPLORATORY)
        elif comparisons and seeds < statistics.fewest_seeds(comparisons):
            smallest = tables.p_value(statistics.smallest_p(seeds, comparisons))
            notes.append(
                f"With {seeds} seeds and {comparisons} comparisons no p gets below {smallest} "
                f"after Holm's correction; 5 % takes {statistics.fewest_seeds(comparisons)} seeds."
            )
        unfinished = self.counts["pending"] + self.counts["running"]
        if unfinished:
            notes.append(f"Not finished: {_count(unfinished, 'trial')} without a result yet.")
        if self.counts["failed"]:
            crashed = _count(self.counts["failed"], "trial")
            notes.append(f"Crashed: {crashed}, without a score; their errors are below.")
        if self.counts["unreadable"]:
            rows = _count(self.counts["unreadable"], "row")
            notes.append(f"Unreadable: {rows} of the ledger, left out; listed below.")
        diverged = sum(row.diverged for row in self.rows)
        if diverged:
            notes.append(
                f"Diverged: {_count(diverged, 'run')}, counted as a failure at the worst score."
            )
        if len(self.environments) > 1 or len(self.commits) > 1:
            notes.append("Trials ran on different machines, versions or commits: bits may differ.")
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
            lines = [f"{directory}: {error}" for directory, error in pairs[:most]]
            if len(pairs) > most:
                lines.append(f"… and {len(pairs) - most} more: see results.csv")
            if lines:
                found.append((title, lines))
        return found

    def rules(self) -> list[str]:
        """How the numbers in the tables are computed."""
        ranked = [self.rows, *map(self.results.task_table, self.results.tasks)]
        means = [row.mean for rows in ranked for row in rows]
        return [
            *RULES[:3],
            *([INTERVALS] if any(math.isfinite(e.low) for e in means) else []),
            *([NO_INTERVALS] if any(e.runs for e in means) else []),
            *RULES[3:],
            *tuning_report.rules(self.results, self.configuration),
        ]

    def write(self) -> list[pathlib.Path]:
        """Writes `results.csv`, `report.md` and `report.html` into the log directory."""
        contents = {
            **tuning_report.files(self.results, _csv),
            "results.csv": self.csv(),
            "report.md": self.markdown(),
            "report.html": self.html(),
        }
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
        """One line for every trial; numbers in full precision."""
        runs = (
            {"method": arm, "task": task, "seed": seed, **_columns(trial)}
            for (arm, task, seed), trial in self.results.runs.items()
        )
        # Unreadable trials with a configuration are among the runs.
        others = (_columns(trial) for trial in self.results.unreadable if not trial.config)
        return _csv(COLUMNS, itertools.chain(runs, others))

    def markdown(self) -> str:
        """The tables and notes as Markdown."""
        parts = ["# Ablation", *(f"> {escaped(note)}" for note in self.notes())]
        for title, header, lines in self.tables():
            table = [header, ["---"] * len(header), *lines]
            parts.append(f"## {escaped(title)}")
            parts.append("\n".join("| " + " | ".join(map(escaped, line)) + " |" for line in table))
        for title, lines in self.troubles():
            parts.append(f"## {title}\n\n" + "\n".join(f"* {escaped(line)}" for line in lines))
        parts.append("## How to read this\n\n" + "\n".join(f"* {escaped(r)}" for r in self.rules()))
        parts.append(f"Show the runs: `{visible(self.tensorboard)}`")
        environment = [f"* {escaped(line)}" for line in self.environment_lines()]
        parts.append("## Environment\n\n" + "\n".join(environment))
        return "\n\n".join(parts) + "\n"

    def html(self) -> str:
        """One self-contained page: styles and figures are embedded, everything is escaped."""
        with optional_imports():
            from kbptt.ablation import figures

        return _template().render(
            report=self,
            tables=self.tables(),
            figures=figures.draw(self.results),
            configuration=json.dumps(self.configuration, indent=1, ensure_ascii=False),
        )

    def tables(self) -> list[tuple[str, list[str], list[list[str]]]]:
        """Title, header and lines of the overall table and of one for every task."""
        found = [("All tasks: skill", *tables.table(self.rows, "skill"))] if self.rows else []
        for task in self.results.tasks:
            metric, mode, baseline = self.results.metric(task)
            rows = self.results.task_table(task)
            if rows:
                better = "larger" if mode == "max" else "smaller"
                known = f"{better} is better; {tables.number(baseline)} without memory"
                title = f"{task}: {metric} ({known})"
                found.append((title, *tables.table(rows, metric)))
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
        """Prints the ranking to the terminal."""
        import rich.box
        import rich.console
        import rich.table

        from kbptt.ablation.progress import literal

        console = console or rich.console.Console()
        table = rich.table.Table(box=rich.box.SIMPLE_HEAD)
        header, lines = tables.fitting(*tables.table(self.rows, "skill"), console.width)
        for name in header:
            if name == "method":
                table.add_column(name, overflow="fold")
            else:
                table.add_column(name, justify="right", no_wrap=True)
        for line in lines:
            table.add_row(*map(literal, line))
        console.print(table)
        tuning_report.show(self.results, self.configuration, console)
        for note in self.notes():
            console.print(literal(note), style="yellow")
        for _, lines in self.troubles(PRINTED):
            for line in lines:
                console.print(literal(line), style="red")


RULES = (
    "The score of a run is the task's primary metric on its test data, at the epoch that the "
    "checkpoint rule names (by default the best validation score). Rule, seeds and tasks are the "
    "same for every method.",
    "Skill is the score between the baseline of the task (0: the best predictor without memory, "
    "or worse) and a perfect answer (1).",
    "A diverged run counts as a failure: skill 0, and the worst score of its task.",
    "IQM: mean of the middle half of the runs. Δ: mean difference to the reference over the seeds "
    "that both have. P(better): probability that a run beats a run of the reference.",
    "p: exact sign-flip test on the paired differences, two-sided, corrected after Holm for all "
    "comparisons of the table.",
    "Decay: factor of ‖∂L/∂h_t‖ for each timestep into the past at the end of training, median.",
    "Time per step and memory (by how much training raised the peak of its process) are medians, "
    "and depend on what else the machine and the process did.",
)
INTERVALS = (
    "Intervals: 95 %, BCa bootstrap over seeds within tasks (mean, IQM, Δ), Wilson (success)."
)
NO_INTERVALS = (
    f"With fewer than {statistics.FEWEST_FOR_INTERVAL} seeds there is no interval. The runs "
    "themselves are in parentheses, seed by seed (their means over several tasks)."
)


@functools.cache
def _template() -> Any:
    with optional_imports():
        import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("kbptt.ablation"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=lambda value: visible(value) if isinstance(value, str) else value,
    )
    return environment.get_template("report.html")


def _count(number: int, what: str) -> str:
    return f"{number} {what}" + ("" if number == 1 else "s")


def _csv(columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> str:
    """A CSV file, one line for each row."""
    output = io.StringIO()
    writer = csv.DictWriter(output, columns, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({name: _cell(value) for name, value in row.items()})
    return output.getvalue()


def _columns(trial: Trial) -> dict[str, Any]:
    """The columns of `results.csv` that describe a trial and its result."""
    found = {"state": trial.state, "directory": trial.directory, "error": trial.error}
    found["tuned"] = described(trial.config.get("tuned") or {})
    if not (result := trial.result):
        return found
    cost = result.get("cost") or {}
    measured = ("seconds_per_step", "training_memory_bytes", "peak_memory_bytes", "seconds")
    return found | {
        "score": result["score"],
        "metric": result["metric"],
        "success": is_success(result),
        "diverged": result["status"] == "diverged",
        "best_epoch": result.get("best_epoch"),
        "decay_start": decay(result, "start"),
        "decay_end": decay(result, "end"),
        "clip_rate": clip_rate(result),
        "skipped_steps": skipped(result),
        **{name: cost.get(name) for name in measured},
    }


def _cell(value: Any) -> Any:
    """A CSV cell: empty for None and NaN, and never text that a spreadsheet runs as a formula."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, str):
        text = visible(value)
        return "'" + text if value[:1] in ("=", "+", "-", "@", "\t", "\r") else text
    return repr(value) if isinstance(value, float) else value


def escaped(text: str) -> str:
    """Text that Markdown shows literally."""
    text = one_line(str(text)).replace("&", "&amp;").replace("<", "&lt;")
    return "".join("\\" + c if c in "\\`*_[]|#>" else c for c in text) if text != "---" else text
