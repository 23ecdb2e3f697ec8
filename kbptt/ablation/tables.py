"""The ranking as a table of text: complete for a page, reduced to fit a terminal."""

import math
from collections.abc import Sequence

from kbptt.ablation.results import Row
from kbptt.ablation.statistics import Estimate

LABEL = 16  # characters of a method's name before the terminal wraps it


def table(rows: Sequence[Row], metric: str) -> tuple[list[str], list[list[str]]]:
    """Header and lines of cells, without the empty columns."""
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
                number(row.iqm.value),
                _share(row.success),
                _estimate(comparison.difference, sign=True) if comparison else "",
                number(comparison.improvement.value) if comparison else "",
                p_value(row.p),
                str(row.runs),
                str(row.diverged or ""),
                str(row.failed or ""),
                number(row.decay, 4),
                _percent(row.clip_rate),
                number(1000 * row.seconds_per_step),
                "" if math.isnan(row.memory) else f"{row.memory / 2**20:.0f} MiB",
            ]
        )
    kept = [i for i in range(len(header)) if i < 3 or any(line[i] for line in lines)]
    return [header[i] for i in kept], [[line[i] for i in kept] for line in lines]


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
                i = header.index(name)
                header, *lines = (line[:i] + line[i + 1 :] for line in (header, *lines))

    leave_out("memory", "clipped", "ms/step", "IQM", "P(better)", "runs", "success", "decay")
    for name in ("Δ", next(name for name in header if name.startswith("mean"))):
        if not fits() and name in header:
            i = header.index(name)
            lines = [[*line[:i], line[i].partition(" ")[0], *line[i + 1 :]] for line in lines]
    leave_out("#", "crashed", "diverged", "Δ", "p")  # a table for less than 60 characters
    return header, lines


def _estimate(e: Estimate, sign: bool = False) -> str:
    """A mean or difference with its interval, or with the runs it was computed from."""
    if math.isnan(e.value):
        return ""

    def show(value: float) -> str:
        return ("+" if sign and 0 < value < math.inf else "") + number(value)

    if math.isfinite(e.low):
        return f"{show(e.value)} [{number(e.low)}, {number(e.high)}]"
    return show(e.value) + (f" ({', '.join(map(show, e.runs))})" if len(e.runs) > 1 else "")


def _share(e: Estimate) -> str:
    """A rate with its interval, or as counts."""
    if e.runs:
        return f"{sum(e.runs):.0f} of {len(e.runs)}"
    interval = "" if math.isnan(e.low) else f" [{_percent(e.low)}, {_percent(e.high)}]"
    return _percent(e.value) + interval


def number(value: float, digits: int = 3) -> str:
    if math.isinf(value):  # the difference of two finite scores, for one
        return "<-1.8e308" if value < 0 else ">1.8e308"
    return "" if math.isnan(value) else f"{value + 0.0:.{digits}g}"  # -0.0 + 0.0 is 0.0


def _percent(value: float) -> str:
    return "" if math.isnan(value) else f"{100 * value:.0f} %"


def p_value(value: float) -> str:
    return "" if math.isnan(value) else "<0.001" if value < 0.001 else f"{value:.3f}"
