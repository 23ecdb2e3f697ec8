"""Forecasting a time series of the user's own CSV file."""

import csv
import io
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from kbptt import _checks
from kbptt.tasks.base import Outputs, Task, TaskData, check_seed, check_sizes
from kbptt.tasks.registry import register
from kbptt.tasks.text import read_text


@register("csv")
class CSVSeries(Task):
    """Forecast one column of a CSV file, `horizon` rows ahead, at every timestep.

    The rows are in the order of time; the first line names the columns. The inputs are the columns
    with numbers (or `columns`), standardized with the mean and deviation of the training part; the
    answer at row t is the standardized target of row t + `horizon`. The first rows train, then
    come validation and test. The baseline is persistence: answering the target's present value.
    A missing value is refused, not guessed.

    Args:
        path: The CSV file, UTF-8, comma-separated.
        target: Name of the column to forecast. Defaults to `None`: the last numeric column.
        columns: Names of the input columns. Defaults to `None`: all numeric columns.
        horizon: Integer. Rows to look ahead. Defaults to `1`.
        length: Integer. Rows of one window. Defaults to `64`.
        stride: Integer. Rows between the starts of the training windows; validation and test
            windows do not overlap. Defaults to `None`: a quarter of `length`.
        held_out: Float in (0, 0.45]. Fraction of the rows for validation, and again for test.
            Defaults to `0.2`.
        sizes: Optional. Numbers of windows for training, validation and test, to use the beginning
            of each part only. Defaults to `None` (all).
    """

    metric, mode, success = "mse", "min", None

    def __init__(
        self,
        path: str | Path,
        target: str | None = None,
        columns: Sequence[str] | None = None,
        horizon: int = 1,
        length: int = 64,
        stride: int | None = None,
        held_out: float = 0.2,
        sizes: Sequence[int] | None = None,
    ):
        length = _checks.positive_integer("length", length)
        self.horizon = _checks.positive_integer("horizon", horizon)
        stride = max(1, length // 4) if stride is None else stride
        self.stride = _checks.positive_integer("stride", stride)
        held_out = _checks.number("held_out", held_out, above=0, at_most=0.45)
        self.columns, self.target, values = _read(path, target, columns)
        self.file = path

        rows = len(values)
        held = max(length + self.horizon, int(rows * held_out))
        ends = (rows - 2 * held, rows - held, rows)
        if ends[0] < length + self.horizon:
            raise ValueError(
                f"{path} is too short: it has {rows} rows, and one window of {length} rows each, "
                f"{self.horizon} ahead, for training, validation and test needs "
                f"{3 * (length + self.horizon)}. Give more rows or a smaller `length`."
            )
        mean, deviation = values[: ends[0]].mean(axis=0), values[: ends[0]].std(axis=0)
        values = (values - mean) / np.where(deviation > 0, deviation, 1.0)
        self._parts = [
            self._windows(values[start:end], length, self.stride if start == 0 else length)
            for start, end in zip((0, *ends[:2]), ends, strict=True)
        ]
        available = tuple(len(x) for x, _ in self._parts)
        if sizes is not None:
            sizes = tuple(map(min, check_sizes(sizes), available))
        super().__init__(length, sizes or available)
        self.features = len(self.columns)
        self.outputs = Outputs(1, per_timestep=True)
        x, y = self.data(0).test
        present = x[:, :, self.columns.index(self.target)]
        self.baseline = float(np.mean((present - y[:, :, 0]) ** 2))

    def data(self, seed: int) -> TaskData:
        """Returns the windows in the order of time, the same for every seed."""
        check_seed(seed)
        return TaskData(
            *((x[:n], y[:n]) for (x, y), n in zip(self._parts, self.sizes, strict=True))
        )

    def _windows(self, values, length, stride):
        starts = np.arange(0, len(values) - length - self.horizon + 1, stride)
        rows = starts[:, None] + np.arange(length)
        target = values[:, self.columns.index(self.target)]
        y = target[rows + self.horizon][:, :, None]
        return values[rows].astype(np.float32), y.astype(np.float32)


def _read(path, target, columns) -> tuple[list[str], str, np.ndarray]:
    """Returns the used columns' names, the target's name and the values, `(rows, columns)`."""
    names, rows = _rows(path)
    if isinstance(columns, str):
        columns = [name.strip() for name in columns.split(",")]
    if columns is None:
        columns = [name for i, name in enumerate(names) if any(_is_number(r[i]) for _, r in rows)]
    if not isinstance(columns, Sequence):
        raise ValueError(
            "Invalid value for argument `columns`. Expected a list of names. "
            f"Received: columns={columns!r} (of type {type(columns).__name__})."
        )
    for name in (*columns, *(() if target is None else (target,))):
        if name not in names:
            raise ValueError(f"{path} has no column {name!r}. It has: {', '.join(names)}.")
        if names.count(name) > 1:
            raise ValueError(f"{path} has {names.count(name)} columns named {name!r}.")
    if not columns:
        raise ValueError(f"{path} has no column of numbers.")
    target = columns[-1] if target is None else target
    columns = list(dict.fromkeys((*columns, target)))
    values = np.empty((len(rows), len(columns)))
    for column, index in enumerate(map(names.index, columns)):
        for number, (line, row) in enumerate(rows):
            if not _is_number(row[index]):
                raise ValueError(
                    f"{path}, line {line}, column {names[index]!r}: expected a number, found "
                    f"{row[index][:50]!r}. Leave the column out with `columns`, or fill the gap."
                )
            values[number, column] = float(row[index])
    return columns, target, values


def _rows(path) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """Returns the names of the columns, and the rows that are not empty with their lines."""
    reader = csv.reader(io.StringIO(read_text(path), newline=""))
    try:
        rows = [(reader.line_num, row) for row in reader if row]
    except csv.Error as error:
        raise ValueError(f"{path}, line {reader.line_num}: {error}.") from error
    if len(rows) < 2:
        raise ValueError(f"{path} has no rows below the line that names the columns.")
    names, rows = [name.strip() for name in rows[0][1]], rows[1:]
    for line, row in rows:
        if len(row) != len(names):
            raise ValueError(
                f"{path}, line {line}: {len(names)} columns expected, {len(row)} found."
            )
    return names, rows


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False
