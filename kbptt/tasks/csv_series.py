"""Forecasting a time series from a CSV file."""

import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kbptt import _checks
from kbptt.tasks.base import Outputs, Task, TaskData, check_seed, check_sizes
from kbptt.tasks.csv_table import Column, Table, is_data
from kbptt.tasks.files import too_few
from kbptt.tasks.registry import register

# A deviation of a few units in the last place is rounding.
ROUNDING = 64 * np.finfo(np.float64).eps
# Standard deviations from the mean of the training part. Values farther away cannot be forecast
# from the training part, and the square of an error may overflow float32.
FARTHEST = 1e6
# Rows to train on from which a model has something to learn.
ENOUGH = 500


@register("csv")
class CSVSeries(Task):
    """Forecast a column of a CSV file, one or more rows ahead.

    There is a forecast at every timestep. The rows are in chronological order; the first line names
    the columns. The inputs are the numeric columns (or `columns`), standardized with the mean and
    standard deviation of the training part; the answer at row t is the standardized target of row t
    + `horizon`. A column that is constant in the training part, up to rounding, is centered but not
    scaled. The first rows train, then come validation and test. The baseline is persistence:
    predicting the target's current value.

    `data` has windows, each from a zero state; those for training overlap. `streams` has each part
    as one long sequence, read once, with the state carried from window to window. Either way, the
    model answers at every row, and validation and test use the same rows, so the scores are
    comparable.

    Unusable data raise an error with line and column: a missing value, a number in a different
    notation (`1,234`, `12%`, `$5`, `True`), a blank line, a value more than a million standard
    deviations away from the training part. A warning names the columns that are left out, which are
    those with words or dates and those without a name.

    Args:
        path: The CSV file, UTF-8, comma-separated. Large files are read faster with pandas
            (`pip install 'kbptt[csv]'`).
        target: Name of the column to forecast. Defaults to `None`: the last numeric column.
        columns: Names of the input columns. Defaults to `None`: all numeric columns.
        horizon: Integer. Rows to look ahead. Defaults to `1`.
        length: Integer. Rows of one window. Defaults to `64`.
        stride: Integer. Rows between the starts of the training windows of `data`; validation and
            test windows do not overlap, nor do those of streams. Defaults to `None`: a quarter of
            `length`.
        held_out: Float in (0, 0.45]. Fraction of the rows for validation, and again for test.
            Defaults to `0.2`.
        sizes: Optional. Numbers of windows for training, validation and test, to use only the
            beginning of each part. Defaults to `None`, all.
        header: Boolean, whether the first line names the columns. Otherwise columns are named by
            position: "1", "2", ... Defaults to `None`: it does, but names that are all numbers, in
            any notation, or markers for missing values raise an error, because the line looks like
            data.

    Raises:
        ValueError: for a file or option that cannot be used, in one sentence.
    """

    metric: str = "mse"
    mode: str = "min"
    success: float | None = None
    counts_in: str = "rows"

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
        header: bool | None = None,
    ):
        length = _checks.positive_integer("length", length)
        self.length: int = length
        self.horizon: int = _checks.positive_integer("horizon", horizon)
        stride = max(1, length // 4) if stride is None else stride
        self.stride: int = _checks.positive_integer("stride", stride)
        held_out = _checks.number("held_out", held_out, above=0, at_most=0.45)
        table = Table(path, header is None or _checks.flag("header", header))
        target = _as_name(target)
        if columns is None:
            used, target = _numeric_columns(table, target, header is None)
        else:
            used, target = _named_columns(table, target, columns)
        self.columns: list[str] = [column.name for column in used]
        self.target: str = target
        self.file: str | Path | None = path
        values = np.stack([column.values for column in used], axis=1)

        rows = len(values)
        held = max(length + self.horizon, int(rows * held_out))
        ends = (rows - 2 * held, rows - held, rows)
        if ends[0] < length + self.horizon:
            raise ValueError(
                f"{path} is too short: it has {rows} rows, but one window of {length} rows each, "
                f"{self.horizon} ahead, for training, validation and test needs "
                f"{3 * (length + self.horizon)}. Use more rows or a smaller `length`."
            )
        standardized, deviation = standardize(values, ends[0])
        _check_magnitudes(table, used, values, ends[0], standardized, deviation)
        self._unit = float(deviation[self.columns.index(target)])
        values = standardized.astype(np.float32)
        self._parts = [
            (values[start:end], self._starts(end - start, self.stride if start == 0 else length))
            for start, end in zip((0, *ends[:2]), ends, strict=True)
        ]
        available = tuple(len(starts) for _, starts in self._parts)
        if sizes is not None:
            sizes = tuple(map(min, check_sizes(sizes), available))
        super().__init__(length, sizes or available)
        self.features: int = len(self.columns)
        self.outputs: Outputs = Outputs(1, per_timestep=True)
        x, y = self._windows(2)
        present = x[:, :, self.columns.index(target)].astype(np.float64)
        self.baseline: float = float(np.mean((present - y[:, :, 0]) ** 2))

    def data(self, seed: int) -> TaskData:
        """Returns the windows in chronological order, the same for every seed."""
        check_seed(seed)
        return TaskData(*map(self._windows, range(len(self._parts))))

    def series(self, seed: int) -> TaskData:
        """Returns the rows that the windows of each part cover, and the target of each."""
        check_seed(seed)
        return TaskData(*map(self._series, range(len(self._parts))))

    def describe(self) -> str:
        """Names the target, the inputs and the unit of the errors."""
        unit = (
            f"its standard deviation in the training part, {self._unit:.4g}"
            if self._unit
            else "its own: it is constant in the training part"
        )
        ahead = "the next row" if self.horizon == 1 else f"{self.horizon} rows ahead"
        rows = len(self._series(0)[0])
        hint = too_few(rows, self.counts_in, ENOUGH, "little better than persistence")
        return (
            f"Forecasts {_quoted(self.target)}, {ahead}, from {_listed(self.columns)}. The unit of "
            f"the errors is {unit}.{f' {hint}' if hint else ''}"
        )

    def _starts(self, rows: int, stride: int) -> np.ndarray:
        return np.arange(0, rows - self.length - self.horizon + 1, min(stride, rows))

    def _series(self, part: int) -> tuple[np.ndarray, np.ndarray]:
        values, starts = self._parts[part]
        end = starts[self.sizes[part] - 1] + self.length
        target = values[self.horizon : end + self.horizon, self.columns.index(self.target)]
        return values[:end], target[:, None]

    def _windows(self, part: int) -> tuple[np.ndarray, np.ndarray]:
        x, y = self._series(part)
        starts = self._parts[part][1][: self.sizes[part], None]
        rows = starts + np.arange(self.length)
        return x[rows], y[rows]


def standardize(values: np.ndarray, known: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns `(values - mean) / deviation`, of the first `known` rows, column by column.

    A column whose deviation there does not exceed the rounding of its values is constant: it is
    centered but not scaled.

    Args:
        values: Finite float64 of any magnitude, `(rows, columns)`.
        known: Integer. Rows of the training part.

    Returns:
        The result, float64, `(rows, columns)`, infinite or NaN where it overflows; and the
        deviations, `(columns,)`, exactly 0 for a constant column.
    """
    # Scaled by a power of two, which is exact, so that no square overflows or underflows.
    exponent = np.frexp(np.abs(values[:known]).max(axis=0))[1]
    with np.errstate(over="ignore", invalid="ignore"):
        scaled = np.ldexp(values, -exponent)
        # Subtracting one of the values first keeps the digits of nearly equal ones.
        origin = scaled[0]
        mean = origin + (scaled[:known] - origin).mean(axis=0)
        deviation = np.sqrt(np.square(scaled[:known] - mean).mean(axis=0))
        rounding = ROUNDING * np.abs(scaled[:known]).max(axis=0)
        constant = deviation <= rounding
        centered = values - np.ldexp(mean, exponent)
        centered[np.abs(centered) <= np.ldexp(rounding, exponent)] = 0
        standardized = (scaled - mean) / np.where(constant, 1, deviation)
        deviation = np.where(constant, 0, np.ldexp(deviation, exponent))
        return np.where(constant, centered, standardized), deviation


def _check_magnitudes(
    table: Table,
    columns: Sequence[Column],
    values: np.ndarray,
    known: int,
    standardized: np.ndarray,
    deviation: np.ndarray,
) -> None:
    """Refuses values that float64 cannot distinguish, and those too far away for a score."""
    largest = np.abs(values[:known]).max(axis=0)
    for index in np.flatnonzero((deviation == 0) & (largest >= 2**53)).tolist():
        raise ValueError(
            f"{table.path}, line {table.line(0)}, column {_quoted(columns[index].name)}: the "
            f"{known} training rows are all about {values[0, index]:g}, where float64 cannot "
            "represent differences of 1. Leave the column out with `columns`, or subtract a "
            "constant from it."
        )
    near = np.abs(standardized) <= FARTHEST
    if not near.all():
        row, index = np.argwhere(~near)[0]
        training = values[:known, index]
        raise ValueError(
            f"{table.path}, line {table.line(row)}, column {_quoted(columns[index].name)}: "
            f"{values[row, index]:g} is more than {FARTHEST:,.0f} standard deviations (units, if "
            f"they are 0) away from the {known} training rows, which lie between "
            f"{training.min():.12g} and {training.max():.12g}. Leave the column out with "
            "`columns`, or use its logarithm or its differences."
        )


def _named_columns(table: Table, target: str | None, columns: Any) -> tuple[list[Column], str]:
    """Returns the columns that the user chose, and the name of the target."""
    if isinstance(columns, str):
        columns = [name.strip() for name in columns.split(",")]
    if not isinstance(columns, Sequence):
        raise ValueError(
            "Invalid value for argument `columns`. Expected a list of names. "
            f"Received: columns={columns!r} (of type {type(columns).__name__})."
        )
    if not columns:
        raise ValueError(f"{table.path} has no column of numbers among `columns`=[].")
    names = list(map(_as_name, columns))
    names.append(names[-1] if target is None else target)
    for name in names:
        _check_name(table, name)
    names = list(dict.fromkeys(names))
    used = table.read(map(table.names.index, names))
    for column in used:
        _check_numbers(table, column)
    return used, names[-1] if target is None else target


def _numeric_columns(
    table: Table, target: str | None, doubt_names: bool
) -> tuple[list[Column], str]:
    """Returns all named columns of numbers, and the name of the target; warns of those left out.

    With `doubt_names`, names that could all be values are refused, unless the target is given.
    """
    if target is not None:
        _check_name(table, target)
    columns = table.read()
    numeric = [column for column in columns if column.has_numbers or column.foreign]
    names = [column.name for column in numeric if column.named]
    if doubt_names and target is None and names and all(map(is_data, names)):
        raise ValueError(
            f"{table.path}, line 1: expected the names of the columns, found the values "
            f"{_listed(map(_quoted, names))}. If that line is data, use the option `header=False` "
            "(the columns are then called '1', '2', ...); if it is the names, `header=True`."
        )
    used = [column for column in numeric if column.named or column.name == target]
    if not used:
        with_name = " with a name" if numeric else ""
        raise ValueError(
            f"{table.path} has no column of numbers{with_name}.{table.separator_hint()}"
        )
    target = used[-1].name if target is None else target
    if target not in (column.name for column in used):
        used.append(columns[table.names.index(target)])
    for column in used:
        _check_name(table, column.name)
        _check_numbers(table, column)
    _warn_of_left_out(table, [column for column in columns if column not in used], used, target)
    return used, target


def _check_name(table: Table, name: str) -> None:
    count = table.names.count(name)
    if count == 0:
        raise ValueError(
            f"{table.path} has no column {_quoted(name)}. Its columns are: {_listed(table.names)}."
            + table.separator_hint()
        )
    if count > 1:
        raise ValueError(
            f"{table.path}, line 1: {count} columns named {_quoted(name)}. Rename all but one, or "
            "choose others with `columns`."
        )


def _check_numbers(table: Table, column: Column) -> None:
    fault = column.fault if column.has_numbers else column.foreign or column.fault
    if fault is None:
        return
    row, field = fault
    raise ValueError(
        f"{table.path}, line {table.line(row)}, column {_quoted(column.name)}: expected a number, "
        f"found {field[:50]!r}. Write numbers with digits and a decimal point only (True as 1), "
        "fill gaps, or leave the column out with `columns`."
    )


def _warn_of_left_out(
    table: Table, left_out: Sequence[Column], used: Sequence[Column], target: str
) -> None:
    if not left_out:
        return
    reasons = []
    for column in left_out[:10]:
        reason = f"{_quoted(column.name)} (no name in line 1)"
        if column.named:
            row, field = column.fault
            reason = f"{_quoted(column.name)} (line {table.line(row)}: {field[:20]!r})"
        reasons.append(reason)
    more = f" and {len(left_out) - 10} more" if len(left_out) > 10 else ""
    warnings.warn(
        f"{table.path}: columns left out: {', '.join(reasons)}{more}. Inputs: "
        f"{_listed(column.name for column in used)}; target: {_quoted(target)}. Pass `columns` to "
        "choose others or to silence this warning.",
        stacklevel=5,  # where the task was asked for
    )


def _as_name(name: Any) -> Any:
    """Returns a name that was given as a number, such as a year or a position, as a string."""
    return str(name) if isinstance(name, int) and not isinstance(name, bool) else name


def _quoted(name: Any) -> str:
    return repr(name[:50] if isinstance(name, str) else name)


def _listed(names: Iterable[str]) -> str:
    """Returns the first names, without line breaks and escape sequences."""
    names = [name[:50] if name[:50].isprintable() else repr(name[:50]) for name in names]
    return ", ".join(names[:20]) + (f", ... ({len(names)} in all)" if len(names) > 20 else "")
