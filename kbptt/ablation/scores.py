"""Scores as a CSV file: what a report exports, and reads again from any source of runs.

The contract is one line for each run, under a line with the names of the columns. Needed are
`method`, `task`, `seed` and `score`. Read, if they are there:

* `metric` and `mode` ("max" or "min", which is better), together and the same for all runs of a
  task; without them the score is called "score", and larger is better;
* `baseline`, `perfect`: the scores of skill 0 and 1; those of a task's first run count;
* `success_threshold`: the score from which a run is a success;
* `state`: "done", or "failed" for a run that crashed, with its `error`; "pending" or "running" for
  one without a result so far;
* `diverged`: true for a failed run, which counts at the worst score;
* `tuned`: the values that a search has chosen for the run;
* `stage`: "control" for a run of a method at the `tuned` values of another one, which is no run of
  the comparison but decides whether a difference is one of the methods: see
  `kbptt.ablation.controls`;
* `best_epoch`, `decay_start`, `decay_end`, `clip_rate`, `skipped_steps`, `seconds_per_step`,
  `training_memory_bytes`, `peak_memory_bytes`, `seconds`, as a report of kbptt exports them.

An empty score means that there is no result, a score of nan or inf that the run diverged. A method
may end in its settings in brackets, `clip [units=8]`: it is then compared with the reference at the
same settings.
"""

import csv
import io
import itertools
import math
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from kbptt.ablation import controls, limits
from kbptt.ablation.labels import LabelArm, LabelTask
from kbptt.ablation.ledger import LedgerError
from kbptt.ablation.outcome import MODES
from kbptt.ablation.results import Results, clip_rate, decay, is_success, skipped
from kbptt.ablation.rows import STATES, Trial
from kbptt.ablation.spaces import described
from kbptt.ablation.text import shown, visible

NEEDED = ("method", "task", "seed", "score")
_SCALE = ("baseline", "perfect", "success_threshold")
_COST = ("seconds_per_step", "training_memory_bytes", "peak_memory_bytes", "seconds")
COLUMNS: list[str] = [
    *("method", "task", "seed", "state", "score", "metric", "mode", *_SCALE),
    *("success", "diverged", "best_epoch", "decay_start", "decay_end", "clip_rate"),
    *("skipped_steps", *_COST, "directory", "error", "tuned", "stage"),
]
_AS_TEXT = ""  # in place of options: the key of all tuned values, which a file has in one text
_FORMULA = ("=", "+", "-", "@", "\t", "\r")  # a spreadsheet would run what starts so
_TRUTH = {"true": True, "1": True, "false": False, "0": False, "": False}


class Scores(NamedTuple):
    """The runs of a CSV file, the columns in it that are not read, and whether it has stages."""

    trials: list[Trial]
    ignored: list[str]
    staged: bool


def write(results: Results, output: Any) -> None:
    """Writes one line for every run and control to a text file; numbers in full precision."""
    found = [(arm, task, trial) for (arm, task, _), trial in results.runs.items()]
    runs = (
        {"method": arm, "task": task, "seed": trial.config["seed"], **_columns(trial)}
        for arm, task, trial in (*found, *results.controls())
    )
    # Unreadable trials with a configuration are among the runs.
    others = (_columns(trial) for trial in results.unreadable if not trial.config)
    output.write(text(COLUMNS, itertools.chain(runs, others)))


def text(columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> str:
    """A CSV file, one line for each row."""
    output = io.StringIO()
    writer = csv.DictWriter(output, columns, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({name: _cell(value) for name, value in row.items()})
    return output.getvalue()


def read(path: str | os.PathLike[str]) -> Scores:
    """Reads the runs of a CSV file (see the module) as trials.

    Raises:
        LedgerError: with line and column, for a file that does not keep to the contract.
    """
    name = visible(str(path))
    try:
        limits.check_file(path)
        with open(path, encoding="utf-8-sig", newline="") as file:
            return _read(name, file)
    except OSError as error:
        raise LedgerError(f"Cannot read {name!r}: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise LedgerError(
            f"{name} is not UTF-8 text ({error.reason} at byte {error.start}). Save it as UTF-8."
        ) from error


def labels(configs: Sequence[dict[str, Any]]) -> tuple[LabelArm, LabelTask]:
    """The labels of what `read` returned: the names as they stand in the file."""

    def label_arm(config: dict[str, Any]) -> tuple[str, str]:
        method, settings = config["method"]["name"], config["settings"]
        return method + (f" [{settings}]" if settings else ""), settings

    return label_arm, lambda config: config["task"]["name"]


class _Line:
    """One line of the file: its fields by column, as values or an error that names the place."""

    def __init__(self, name: str, number: int, fields: dict[str, str]):
        self.place: str = f"{name}, line {number}"
        self.at: int = number
        self.fields = fields

    def text(self, column: str) -> str:
        text = self.fields.get(column, "").strip()
        # `_cell` protects spreadsheets from text that they would run.
        return text[1:] if text[:1] == "'" and text[1:2] in _FORMULA else text

    def wrong(self, column: str, expected: str, mend: str = "") -> LedgerError:
        found = self.text(column)
        return LedgerError(
            f"{self.place}, column {column!r}: expected {expected}, found {shown(found)}.{mend}"
        )

    def named(self, column: str) -> str:
        if not (text := self.text(column)):
            raise self.wrong(column, "a name")
        return text

    def one_of(self, column: str, valid: Sequence[str], default: str) -> str:
        text = self.text(column) or default
        if text not in valid:
            raise self.wrong(column, f"one of {', '.join(valid)}")
        return text

    def number(self, column: str) -> float | None:
        """A number; None for an empty field."""
        text = self.text(column)
        try:
            if "_" not in text:  # which Python would take as a separator
                return float(text) if text else None
        except ValueError:
            pass
        mend = " Write decimals with a point, and thousands without a separator."
        raise self.wrong(column, "a number", mend)

    def seed(self) -> int:
        number = self.number("seed")
        if number is None or not 0 <= number < 2**63 or number != int(number):
            raise self.wrong("seed", "a non-negative integer")
        text = self.text("seed")
        return int(text) if text.isdecimal() else int(number)

    def truth(self, column: str) -> bool:
        if (found := _TRUTH.get(self.text(column).lower())) is None:
            raise self.wrong(column, "true or false")
        return found


def _read(name: str, file: Any) -> Scores:
    lines = _lines(name, file)
    columns = next(lines, None)
    if columns is None:
        raise LedgerError(f"{name} is empty. Its first line names the columns: {_expected()}.")
    _check_columns(name, list(columns.fields))
    trials, places, scales, compared = [], {}, {}, False
    for line in lines:
        if len(trials) == limits.LIMITS["trials"]:
            raise LedgerError(f"{line.place}: a report has at most {len(trials):,} runs.")
        if line.text("state") == "unreadable":
            trials.append(_unreadable(line))
            continue
        trial = _trial(line)
        run = line.text("method"), line.text("task"), trial.config["seed"]
        control = line.text("tuned") if "stage" in trial.config else None
        compared = compared or control is None
        if (*run, control) in places:
            raise LedgerError(
                f"{line.place}: method {shown(run[0])}, task {shown(run[1])} and seed {run[2]} "
                f"are already in line {places[*run, control]}. Each run needs its own line and "
                "seed."
            )
        places[*run, control] = line.at
        if trial.result is not None:
            scale = trial.result["metric"], trial.result["mode"]
            first = scales.setdefault(run[1], scale)
            for column, here, there in zip(("metric", "mode"), scale, first, strict=True):
                if here != there:
                    raise line.wrong(column, f"{there!r} as in the task's first run")
        trials.append(trial)
    if not compared:
        raise LedgerError(f"{name} has no runs below the column names.")
    ignored = [column for column in columns.fields if column not in COLUMNS]
    return Scores(trials, ignored, "stage" in columns.fields)


def _lines(name: str, file: Any) -> Iterator[_Line]:
    """The line with the names of the columns (as fields of themselves), then the others."""
    reader, columns = csv.reader(file, strict=True), []
    while True:
        number = reader.line_num + 1
        try:
            fields = next(reader, None)
        except csv.Error as error:
            raise LedgerError(f"{name}, line {number}: {error}.") from error
        if fields is None:
            return
        if not any(fields):
            continue
        if not columns:
            columns = [field.strip() for field in fields]
            if len(set(columns)) < len(columns):
                twice = next(c for c in columns if columns.count(c) > 1)
                raise LedgerError(f"{name}, line {number}: two columns are named {shown(twice)}.")
            yield _Line(name, number, dict(zip(columns, columns, strict=True)))
            continue
        if len(fields) != len(columns):
            raise LedgerError(
                f"{name}, line {number}: expected {len(columns)} fields, one for each column, "
                f"found {len(fields)}. Quote a field that contains a comma."
            )
        yield _Line(name, number, dict(zip(columns, fields, strict=True)))


def _check_columns(name: str, columns: Sequence[str]) -> None:
    missing = [column for column in NEEDED if column not in columns]
    if missing:
        hint = "".join(
            f" Its columns seem to be separated by {what}: use commas."
            for character, what in ((";", "semicolons"), ("\t", "tabs"))
            if any(character in column for column in columns)
        )
        raise LedgerError(
            f"{name}, line 1: no column {' and no column '.join(map(repr, missing))}. Expected "
            f"{_expected()}. Found: {shown(', '.join(columns), 200)}.{hint}"
        )
    # Of an error larger would be better, which nobody would notice.
    if "metric" in columns and "mode" not in columns:
        raise LedgerError(
            f"{name}, line 1: there is a column 'metric' but no column 'mode'. Add it, with max or "
            "min in each line, to state whether a larger or a smaller score is better."
        )


def _expected() -> str:
    return (
        f"{', '.join(NEEDED)} and, optionally, {', '.join(c for c in COLUMNS if c not in NEEDED)}"
    )


def _trial(line: _Line) -> Trial:
    method, task = line.named("method"), line.named("task")
    parts = re.fullmatch(r"(.+?) \[(.+)\]", method, re.DOTALL)
    base, settings = parts.groups() if parts else (method, "")
    config = {
        "task": {"name": task, "options": {}},
        "method": {"name": base, "definition": {"layer": {}, "optimizer": {}}},
        "model": {"layer": {}},
        "optimizer": {},
        "training": {},
        "seed": line.seed(),
        "settings": settings,
        **_stage(line),
    }
    ended = line.text("score") or line.truth("diverged")
    state = line.one_of("state", STATES, "done" if ended else "pending")
    result = _result(line) if state == "done" else None
    error = line.text("error") or None
    return Trial(f"line {line.at}", config, _directory(line), state, 1, result, error)


def _stage(line: _Line) -> dict[str, Any]:
    """The tuned values of a run and its stage."""
    tuned, stage = line.text("tuned"), line.text("stage")
    if stage not in ("", controls.STAGE):
        raise line.wrong("stage", f"{controls.STAGE!r} or, for a run of the comparison, nothing")
    if stage and not tuned:
        raise line.wrong("tuned", "the values of the control")
    return ({"tuned": {_AS_TEXT: tuned}} if tuned else {}) | ({"stage": stage} if stage else {})


def _unreadable(line: _Line) -> Trial:
    return Trial(f"line {line.at}", {}, _directory(line), "unreadable", error=line.text("error"))


def _directory(line: _Line) -> str:
    """Where the run is listed if it failed: its directory or, without one, its place."""
    return line.text("directory") or f"line {line.at}"


def _result(line: _Line) -> dict[str, Any]:
    """The result of a run, in the parts that trials return."""
    score = line.number("score")
    infinite = score is not None and not math.isfinite(score)
    diverged = infinite or line.truth("diverged")
    if score is None or infinite:
        score = None if diverged else math.nan
    scale = {name: line.number(name) for name in _SCALE}
    layer = {
        f"statistics_{when}": {"decay": value}
        for when in ("start", "end")
        if (value := line.number(f"decay_{when}")) is not None
    }
    clipping = {
        key: value
        for key, name in (("clip_rate", "clip_rate"), ("skipped", "skipped_steps"))
        if (value := line.number(name)) is not None
    }
    return {
        "status": "diverged" if diverged else "ok",
        "metric": line.text("metric") or "score",
        "mode": line.one_of("mode", MODES, "max"),
        "score": score,
        **scale,
        "best_epoch": line.number("best_epoch"),
        "cost": {name: line.number(name) for name in _COST},
        "gradient": {"layer": layer} if layer else {},
        "clipping": {"clip": clipping} if clipping else {},
    }


def _columns(trial: Trial) -> dict[str, Any]:
    """The columns that describe a trial and its result."""
    found = {"state": trial.state, "directory": trial.directory, "error": trial.error}
    tuned = trial.config.get("tuned") or {}
    found["tuned"] = tuned[_AS_TEXT] if _AS_TEXT in tuned else described(tuned)
    found["stage"] = trial.config.get("stage")
    if not (result := trial.result):
        return found
    cost = result.get("cost") or {}
    return found | {
        **{name: result.get(name) for name in ("score", "metric", "mode", *_SCALE)},
        "success": is_success(result),
        "diverged": result["status"] == "diverged",
        "best_epoch": result.get("best_epoch"),
        "decay_start": decay(result, "start"),
        "decay_end": decay(result, "end"),
        "clip_rate": clip_rate(result),
        "skipped_steps": skipped(result),
        **{name: cost.get(name) for name in _COST},
    }


def _cell(value: Any) -> Any:
    """A CSV cell: empty for None and NaN, and never text that a spreadsheet runs as a formula."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, str):
        text = visible(value)
        return "'" + text if value[:1] in _FORMULA else text
    return repr(value) if isinstance(value, float) else value
