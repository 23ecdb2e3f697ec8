"""The ranking as a table of text: complete for a page, reduced to fit a terminal."""

import math
import sys
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from kbptt.ablation.results import Row
from kbptt.ablation.statistics import Estimate
from kbptt.ablation.text import visible

LABEL = 16  # characters of a method's name before the terminal wraps it
MINUS = "\N{MINUS SIGN}"
CONTROLLED = "\N{DAGGER}"  # behind a p that a control decided
FOOTNOTE = (
    f"{CONTROLLED} p of the control, with both methods at the same tuned values (1 if it has not "
    "run). With separate values, p would be smaller."
)
_DECIMALS = 6  # more are written with an exponent


class Cell(str):
    """The text of a cell, and the finite number that a page sorts it by; None: by its text."""

    value: float | None

    def __new__(cls, text: str, value: float = math.nan) -> "Cell":
        cell = super().__new__(cls, text)
        limited = min(max(value, -sys.float_info.max), sys.float_info.max)
        cell.value = None if math.isnan(value) else limited
        return cell


class Table(NamedTuple):
    """A table of a report: its heading, the names of its columns and its lines of cells."""

    title: str
    header: list[str]
    lines: list[list[str]]

    kind = "table"

    @property
    def footnote(self) -> str:
        """The line below the table; empty if it needs none."""
        column = self.header.index("p") if "p" in self.header else None
        marked = column is not None and any(CONTROLLED in line[column] for line in self.lines)
        return FOOTNOTE if marked else ""


class Decimals:
    """Writes the numbers of one column with the same number of decimals.

    Three significant digits of the largest number; up to two more where a column also holds
    numbers that would lose theirs. Beyond six decimals or digits all have an exponent.

    Args:
        values: The numbers of the column.
        digits: Integer, significant digits of the largest. Defaults to `3`.
        small: Boolean, whether the smallest number counts too. Not in a column of differences,
            where a small number is one that happens to be about zero. Defaults to `True`.
    """

    def __init__(self, values: Iterable[float], digits: int = 3, small: bool = True):
        found = [abs(value) for value in values if value and math.isfinite(value)]
        places = [math.floor(math.log10(value)) for value in found] or [0]
        self.digits: int = digits
        self.decimals: int = max(0, digits - 1 - max(places))
        if small:
            self.decimals += max(0, min(2, digits - 2 - min(places) - self.decimals))
        self.exponent: bool = max(places) > _DECIMALS or self.decimals > _DECIMALS

    def __call__(self, value: float, sign: bool = False) -> str:
        """The number; empty for NaN, and with `sign` a plus before positive ones."""
        if math.isnan(value):
            return ""
        if math.isinf(value):  # the difference of two finite scores, for one
            return f"<{MINUS}1.8e308" if value < 0 else ">1.8e308"
        form = f".{self.digits - 1}e" if self.exponent else f".{self.decimals}f"
        return _signed(format(value, form), sign)


def means(rows: Sequence[Row]) -> Decimals:
    """How the means of a table are written."""
    return Decimals([row.mean.value for row in rows])


def differences(rows: Sequence[Row]) -> Decimals:
    """How the differences of a table are written."""
    found = [row.comparison.difference for row in rows if row.comparison]
    return Decimals([bound for e in found for bound in (e.value, e.low, e.high)], small=False)


def table(rows: Sequence[Row], metric: str) -> tuple[list[str], list[list[str]]]:
    """Header and lines of cells, without the empty columns."""
    compared = [row.comparison for row in rows]
    decays = [row.decay for row in rows]
    improvements = [c.improvement.value if c else math.nan for c in compared]
    columns: dict[str, list[Cell]] = {
        "#": [Cell("" if math.isnan(r.standing) else str(i), i) for i, r in enumerate(rows, 1)],
        "method": [Cell(row.arm) for row in rows],
        f"mean {visible(metric)}": _estimates([row.mean for row in rows], means(rows)),
        "IQM": _numbers([row.iqm.value for row in rows]),
        "gap": _numbers([row.gap for row in rows]),
        "success": [Cell(_share(row.success), row.success.value) for row in rows],
        "Δ": _estimates([c and c.difference for c in compared], differences(rows), sign=True),
        "P(better)": [Cell(_fixed(value, 2), value) for value in improvements],
        "p": [Cell(_p_of(row), row.p) for row in rows],
        "runs": [Cell(str(row.runs), row.runs) for row in rows],
        "diverged": [Cell(str(row.diverged or ""), row.diverged) for row in rows],
        "crashed": [Cell(str(row.failed or ""), row.failed) for row in rows],
        "decay": _numbers(decays, Decimals([1, *decays], 5, small=False)),
        "clipped": [Cell(_percent(row.clip_rate), row.clip_rate) for row in rows],
        "ms/step": _numbers([1000 * row.seconds_per_step for row in rows]),
        "memory": [
            Cell("" if math.isnan(row.memory) else f"{row.memory / 2**20:.0f} MiB", row.memory)
            for row in rows
        ],
    }
    always = list(columns)[:3]
    columns = {name: cells for name, cells in columns.items() if name in always or any(cells)}
    return list(columns), [list(line) for line in zip(*columns.values(), strict=True)]


def fitting(
    header: list[str], lines: list[list[str]], width: int
) -> tuple[list[str], list[list[str]]]:
    """Reduces a table to a terminal's width, dropping the least informative parts first."""

    def fits() -> bool:
        widths = [max(map(len, column)) for column in zip(header, *lines, strict=True)]
        label = header.index("method")
        widths[label] = min(widths[label], LABEL)
        return sum(widths) + 3 * len(widths) + 1 <= width

    def leave_out(*names: str) -> None:
        nonlocal header, lines
        for name in names:
            if not fits() and name in header:
                header, lines = without(header, lines, name)

    leave_out(
        *("memory", "clipped", "ms/step", "gap", "IQM", "P(better)", "runs", "success", "decay")
    )
    for name in ("Δ", next(name for name in header if name.startswith("mean"))):
        if not fits() and name in header:
            i = header.index(name)
            lines = [[*line[:i], line[i].partition(" ")[0], *line[i + 1 :]] for line in lines]
    leave_out("#", "crashed", "diverged", "Δ", "p")  # a table for less than 60 characters
    return header, lines


def without(
    header: list[str], lines: list[list[str]], *names: str
) -> tuple[list[str], list[list[str]]]:
    """The table without the columns of these names."""
    kept = [i for i, name in enumerate(header) if name not in names]
    return [header[i] for i in kept], [[line[i] for i in kept] for line in lines]


def show_estimate(e: Estimate, write: Decimals, sign: bool = False) -> str:
    """A mean or difference with its interval, or with the runs it was computed from."""
    if math.isfinite(e.low):
        return f"{write(e.value, sign)} [{write(e.low)}, {write(e.high)}]"
    runs = ", ".join(write(run, sign) for run in e.runs)
    return write(e.value, sign) + (f" ({runs})" if len(e.runs) > 1 else "")


def number(value: float, digits: int = 3) -> str:
    """A number that stands alone, with so many significant digits."""
    if not math.isfinite(value):
        return Decimals([])(value)
    return _signed(f"{value + 0.0:.{digits}g}")  # -0.0 + 0.0 is 0.0


def p_value(value: float) -> str:
    return "" if math.isnan(value) else "<0.001" if value < 0.001 else f"{value:.3f}"


def _p_of(row: Row) -> str:
    text = p_value(row.p)
    return f"{text} {CONTROLLED}" if text and row.controlled else text


def _estimates(
    estimates: Sequence[Estimate | None], write: Decimals, sign: bool = False
) -> list[Cell]:
    return [
        Cell("") if e is None else Cell(show_estimate(e, write, sign), e.value) for e in estimates
    ]


def _numbers(values: Sequence[float], write: Decimals | None = None) -> list[Cell]:
    write = write or Decimals(values)
    return [Cell(write(value), value) for value in values]


def _fixed(value: float, decimals: int) -> str:
    return "" if math.isnan(value) else _signed(f"{value:.{decimals}f}")


def _signed(text: str, plus: bool = False) -> str:
    """A formatted number with a real minus sign, and none before a zero."""
    if float(text) == 0:
        return text.lstrip("-")
    return ("+" if plus and text[0] != "-" else "") + text.replace("-", MINUS)


def _share(e: Estimate) -> str:
    """A rate with its interval, or as counts."""
    if e.runs:
        return f"{sum(e.runs):.0f} of {len(e.runs)}"
    interval = "" if math.isnan(e.low) else f" [{100 * e.low:.0f}, {100 * e.high:.0f}]"
    return _percent(e.value) + interval


def _percent(value: float) -> str:
    return "" if math.isnan(value) else f"{100 * value:.0f} %"
