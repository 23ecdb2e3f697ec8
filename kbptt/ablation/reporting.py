"""Reports: the ranking in the terminal, `results.csv`, `report.md` and `report.html`."""

import contextlib
import csv
import io
import json
import math
import os
import pathlib
import shlex
from collections.abc import Sequence
from typing import Any

from kbptt.ablation import statistics
from kbptt.ablation.ledger import Ledger, LedgerError, disk_full, is_disk_full
from kbptt.ablation.results import Results, Row, clip_rate, decay, is_success, skipped

COLUMNS = (
    "method task seed state score metric success diverged best_epoch decay_start decay_end "
    "clip_rate skipped_steps seconds_per_step training_memory_bytes peak_memory_bytes seconds "
    "directory error"
)
LABEL = 16  # characters of a method's name before the terminal breaks it over lines
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
        counts: Number of trials by state.
    """

    def __init__(self, directory: str | os.PathLike, reference: str | None = None):
        self.directory = pathlib.Path(directory)
        with Ledger(directory, read_only=True) as ledger:
            trials = ledger.trials()
            self.counts = ledger.counts()
            self.configuration = ledger.meta("configuration") or {}
            self.commits = ledger.meta("commits") or []
        if not trials:
            raise LedgerError(f"The ablation in {str(self.directory)!r} has no trials.")
        self.results = Results(trials, reference)
        self.rows = self.results.table()

    @property
    def tensorboard(self) -> str:
        """The command that shows the runs in TensorBoard."""
        return f"tensorboard --logdir {shlex.quote(str(self.directory))}"

    @property
    def environments(self) -> list[dict[str, Any]]:
        """The different machines and versions that the trials ran on."""
        found = {}
        for trial in self.results.done():
            environment = trial.result.get("environment")
            if environment:
                found[json.dumps(environment, sort_keys=True)] = environment
        return list(found.values())

    def notes(self) -> list[str]:
        """What a reader must know before believing the table."""
        notes = []
        seeds, comparisons = len(self.results.seeds), self.results.comparisons
        if self.results.exploratory:
            notes.append(EXPLORATORY)
        elif comparisons and seeds < statistics.fewest_seeds(comparisons):
            notes.append(
                f"With {seeds} seeds and {comparisons} comparisons no p gets below "
                f"{_p(statistics.smallest_p(seeds, comparisons))} after Holm's correction; 5 % "
                f"takes {statistics.fewest_seeds(comparisons)} seeds."
            )
        unfinished = self.counts["pending"] + self.counts["running"]
        if unfinished:
            notes.append(f"Not finished: {_count(unfinished, 'trial')} without a result yet.")
        if self.counts["failed"]:
            crashed = _count(self.counts["failed"], "trial")
            notes.append(f"Crashed: {crashed}, without a score; their errors are below.")
        diverged = sum(row.diverged for row in self.rows)
        if diverged:
            notes.append(
                f"Diverged: {_count(diverged, 'run')}, counted as a failure at the worst score."
            )
        if len(self.environments) > 1 or len(self.commits) > 1:
            notes.append("Trials ran on different machines, versions or commits: bits may differ.")
        return notes

    def failures(self) -> list[tuple[str, str]]:
        """Directory and error of every trial that crashed."""
        trials = self.results.trials
        return [(t.directory, t.error or "") for t in trials if t.state == "failed"]

    def write(self) -> list[pathlib.Path]:
        """Writes `results.csv`, `report.md` and `report.html` into the log directory."""
        contents = {
            "results.csv": self.csv(),
            "report.md": self.markdown(),
            "report.html": self.html(),
        }
        paths = []
        for name, content in contents.items():
            path = self.directory / name
            partial = path.with_name(f".{name}.partial")
            try:
                partial.write_text(content, encoding="utf-8", newline="")
                partial.replace(path)
            except OSError as error:
                with contextlib.suppress(OSError):
                    partial.unlink(missing_ok=True)
                if is_disk_full(error):
                    raise disk_full(self.directory) from error
                raise LedgerError(f"Cannot write {str(path)!r}: {error.strerror}.") from error
            paths.append(path)
        return paths

    def csv(self) -> str:
        """One line for every trial; numbers in full precision."""
        output = io.StringIO()
        writer = csv.writer(output, lineterminator="\n")
        writer.writerow(COLUMNS.split())
        for (arm, task, seed), trial in self.results.runs.items():
            result = trial.result or {}
            cost = result.get("cost") or {}
            known = bool(result)
            writer.writerow(
                _cell(value)
                for value in (
                    arm,
                    task,
                    seed,
                    trial.state,
                    result.get("score"),
                    result.get("metric"),
                    is_success(result) if known else None,
                    result["status"] == "diverged" if known else None,
                    result.get("best_epoch"),
                    decay(result, "start"),
                    decay(result, "end"),
                    clip_rate(result),
                    skipped(result),
                    cost.get("seconds_per_step"),
                    cost.get("training_memory_bytes"),
                    cost.get("peak_memory_bytes"),
                    cost.get("seconds"),
                    trial.directory,
                    trial.error,
                )
            )
        return output.getvalue()

    def markdown(self) -> str:
        """The tables and notes as Markdown."""
        parts = ["# Ablation", *(f"> {_md(note)}" for note in self.notes())]
        for title, header, lines in self.tables():
            table = [header, ["---"] * len(header), *lines]
            parts.append(f"## {_md(title)}")
            parts.append("\n".join("| " + " | ".join(map(_md, line)) + " |" for line in table))
        if self.failures():
            lines = [f"* `{d}`: {_md(e)}" for d, e in self.failures()]
            parts.append("## Crashed\n\n" + "\n".join(lines))
        parts.append("## How to read this\n\n" + "\n".join(f"* {_md(r)}" for r in RULES))
        parts.append(f"Show the runs: `{self.tensorboard}`")
        environment = [f"* {_md(line)}" for line in self.environment_lines()]
        parts.append("## Environment\n\n" + "\n".join(environment))
        return "\n\n".join(parts) + "\n"

    def html(self) -> str:
        """One page that needs nothing else: styles and figures are inside, everything escaped."""
        import jinja2

        from kbptt.ablation import figures

        environment = jinja2.Environment(
            loader=jinja2.PackageLoader("kbptt.ablation"),
            autoescape=True,
            undefined=jinja2.StrictUndefined,
        )
        return environment.get_template("report.html").render(
            report=self,
            tables=self.tables(),
            figures=figures.draw(self.results),
            rules=RULES,
            configuration=json.dumps(self.configuration, indent=1, ensure_ascii=False),
        )

    def tables(self) -> list[tuple[str, list[str], list[list[str]]]]:
        """Title, header and lines of the overall table and of one for every task."""
        tables = [("All tasks: skill", *_table(self.rows, "skill"))]
        for task in self.results.tasks:
            metric, mode, baseline = self.results.metric(task)
            rows = self.results.task_table(task)
            if rows:
                better = "larger" if mode == "max" else "smaller"
                title = f"{task}: {metric} ({better} is better; {_n(baseline)} without memory)"
                tables.append((title, *_table(rows, metric)))
        return tables

    def environment_lines(self) -> list[str]:
        """Versions, commit, device, threads and determinism, one per line."""
        lines = [f"commit of the working directory: {commit}" for commit in self.commits]
        for environment in self.environments:
            for name, value in environment.items():
                shown = ", ".join(map(str, value)) if isinstance(value, list) else value
                lines.append(f"{name}: {shown}")
        return lines

    def print(self, console: Any = None) -> None:
        """Prints the ranking to the terminal."""
        import rich.box
        import rich.console
        import rich.table

        from kbptt.ablation.progress import literal

        console = console or rich.console.Console()
        table = rich.table.Table(box=rich.box.SIMPLE_HEAD)
        header, lines = _fitting(*_table(self.rows, "skill"), console.width)
        for name in header:
            if name == "method":
                table.add_column(name, overflow="fold")
            else:
                table.add_column(name, justify="right", no_wrap=True)
        for line in lines:
            table.add_row(*map(literal, line))
        console.print(table)
        for note in self.notes():
            console.print(literal(note), style="yellow")
        for directory, error in self.failures():
            console.print(literal(f"{directory}: {error}"), style="red")


RULES = (
    "The score of a run is the task's primary metric on its test data, at the epoch that the "
    "checkpoint rule names (by default the best validation score). Rule, seeds and tasks are the "
    "same for every method.",
    "Skill is the score between the baseline of the task (0: the best predictor without memory, "
    "or worse) and a perfect answer (1).",
    "A diverged run counts as a failure: skill 0, and the worst score of its task.",
    "Intervals: 95 %, BCa bootstrap over seeds within tasks (mean, IQM, Δ), Wilson (success).",
    "IQM: mean of the middle half of the runs. Δ: mean difference to the reference over the seeds "
    "that both have. P(better): probability that a run beats a run of the reference.",
    "p: exact sign-flip test on the paired differences, two-sided, corrected after Holm for all "
    "comparisons of the table.",
    "Decay: factor of ‖∂L/∂h_t‖ for each timestep into the past at the end of training, median.",
    "Time for each step and memory (by how much training raised the peak of its process) are "
    "medians, and depend on what else the machine and the process did.",
)


def _table(rows: Sequence[Row], metric: str) -> tuple[list[str], list[list[str]]]:
    """Header and cells; columns without any content are left out."""
    header = ["#", "method", f"mean {metric}", "IQM", "success", "Δ", "P(better)", "p"]
    header += ["runs", "diverged", "crashed", "decay", "clipped", "ms/step", "memory"]
    lines = []
    for rank, row in enumerate(rows, 1):
        comparison = row.comparison
        lines.append(
            [
                str(rank) if row.runs else "",
                row.arm,
                _estimate(row.mean),
                _n(row.iqm.value),
                _estimate(row.success, percent=True),
                _estimate(comparison.difference, sign=True) if comparison else "",
                _n(comparison.improvement.value) if comparison else "",
                _p(row.p),
                str(row.runs),
                str(row.diverged or ""),
                str(row.failed or ""),
                _n(row.decay, 4),
                _percent(row.clip_rate),
                _n(1000 * row.seconds_per_step),
                "" if math.isnan(row.memory) else f"{row.memory / 2**20:.0f} MiB",
            ]
        )
    kept = [i for i in range(len(header)) if i < 3 or any(line[i] for line in lines)]
    return [header[i] for i in kept], [[line[i] for i in kept] for line in lines]


def _fitting(
    header: list[str], lines: list[list[str]], width: int
) -> tuple[list[str], list[list[str]]]:
    """What of a table fits into a terminal; of columns and intervals, what says least goes."""

    def fits() -> bool:
        widths = [max(map(len, column)) for column in zip(header, *lines, strict=True)]
        label = header.index("method")
        widths[label] = min(widths[label], LABEL)
        return sum(widths) + 3 * len(widths) + 1 <= width

    def leave_out(*names: str) -> None:
        nonlocal header, lines
        for name in names:
            if not fits() and name in header:
                i = header.index(name)
                header, *lines = (line[:i] + line[i + 1 :] for line in (header, *lines))

    leave_out("memory", "clipped", "ms/step", "IQM", "P(better)", "runs", "success", "decay")
    for name in ("Δ", next(name for name in header if name.startswith("mean"))):
        if not fits() and name in header:
            i = header.index(name)
            lines = [[*line[:i], line[i].partition(" ")[0], *line[i + 1 :]] for line in lines]
    leave_out("#", "crashed", "diverged", "Δ", "p")  # a table for less than 60 characters
    return header, lines


def _estimate(e: statistics.Estimate, percent: bool = False, sign: bool = False) -> str:
    if math.isnan(e.value):
        return ""
    show = _percent if percent else _n
    plus = "+" if sign and e.value > 0 else ""
    interval = "" if math.isnan(e.low) else f" [{show(e.low)}, {show(e.high)}]"
    return f"{plus}{show(e.value)}{interval}"


def _n(value: float, digits: int = 3) -> str:
    return "" if math.isnan(value) else f"{value + 0.0:.{digits}g}"  # -0.0 + 0.0 is 0.0


def _count(number: int, what: str) -> str:
    return f"{number} {what}" + ("" if number == 1 else "s")


def _percent(value: float) -> str:
    return "" if math.isnan(value) else f"{100 * value:.0f} %"


def _p(value: float) -> str:
    return "" if math.isnan(value) else "<0.001" if value < 0.001 else f"{value:.3f}"


def _cell(value: Any) -> Any:
    """A CSV cell: empty for nothing, and no text that a spreadsheet takes for a formula."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, str) and value[:1] in "=+-@\t\r" and value:
        return "'" + value
    return repr(value) if isinstance(value, float) else value


def _md(text: str) -> str:
    """Text that Markdown shows as it is."""
    text = " ".join(str(text).split()).replace("&", "&amp;").replace("<", "&lt;")
    return "".join("\\" + c if c in "\\`*_[]|#>" else c for c in text) if text != "---" else text
