"""Where a report gets its runs from: the ledger of an ablation, or a CSV file of scores."""

import datetime
import os
from collections.abc import Callable
from typing import Any, NamedTuple

from kbptt.ablation import repeat, scores
from kbptt.ablation.labels import Labels, labels
from kbptt.ablation.ledger import Ledger, LedgerError
from kbptt.ablation.results import Results
from kbptt.ablation.rows import Trial

UNCONTROLLED = (
    "The file has tuned values but no column 'stage', so it has no controls, and no difference "
    "between methods with different values is confirmed. `kbptt report` on the study writes a "
    "results.csv with them."
)
# From results, directory and reference to the command that gives them again.
Command = Callable[[Results, str | os.PathLike[str], str | None], str | None]


class Source(NamedTuple):
    """Runs, and what is known of their origin."""

    name: str
    trials: list[Trial]
    label: Labels
    command: Command
    dated: str
    configuration: dict[str, Any]
    commits: list[str]
    notes: list[str]


def of_ledger(directory: str | os.PathLike[str]) -> Source:
    """The trials of an ablation."""
    with Ledger(directory, read_only=True) as ledger:
        trials, commits = ledger.trials(), ledger.commits
        configuration, finished = ledger.meta("configuration"), ledger.last_finished()
        limits = ledger.meta("limits")  # an older ledger has none
    name = f"the ablation in {os.fspath(directory)!r}"
    if not trials:
        raise LedgerError(f"{name[0].upper()}{name[1:]} has no trials.")
    configuration = configuration if isinstance(configuration, dict) else {}
    limits = limits if isinstance(limits, dict) else {}

    def command(
        results: Results, directory: str | os.PathLike[str], reference: str | None
    ) -> str | None:
        known = (t.config["method"]["name"] for t in results.trials if t.config)
        return repeat.compare_command(
            configuration, list(dict.fromkeys(known)), directory, reference, limits
        )

    dated = _dated("Last result", finished)
    return Source(name, trials, labels, command, dated, configuration, commits, [])


def of_csv(path: str | os.PathLike[str]) -> Source:
    """The runs of a CSV file; see `kbptt.ablation.scores` for its columns."""
    found = scores.read(path)
    notes = []
    if found.ignored:
        few = ", ".join(found.ignored[:10]) + (", …" if len(found.ignored) > 10 else "")
        notes.append(f"Ignored columns: {few}.")
    if not found.staged and any("tuned" in trial.config for trial in found.trials):
        notes.append(UNCONTROLLED)

    def command(_: Results, directory: str | os.PathLike[str], reference: str | None) -> str:
        return repeat.report_command(directory, path, reference)

    dated = _dated("Scores", os.stat(path).st_mtime)
    return Source(
        f"{os.fspath(path)!r}", found.trials, scores.labels, command, dated, {}, [], notes
    )


def _dated(what: str, seconds: float | None) -> str:
    """A moment in UTC, which is the same wherever a report is made."""
    try:
        moment = datetime.datetime.fromtimestamp(seconds or 0, datetime.UTC)
    except (OverflowError, ValueError, OSError):  # a damaged ledger
        return ""
    return f"{what} of {moment:%Y-%m-%d %H:%M} UTC" if seconds else ""
