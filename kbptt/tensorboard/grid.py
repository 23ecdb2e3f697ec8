"""Reduces a matrix of gradient norms to a small grid of log10 values without hiding rare norms.

One NaN or infinite norm makes its whole cell so, and a cell is an exact zero only if all norms are.
"""

import itertools
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from kbptt.tensorboard.ragged import Ragged

# Value of a cell without any timestep (sequences of different lengths); no `log10` of a float32.
MISSING = np.float32(-1e30)


class Grid(NamedTuple):
    """`log10` of the norms with the edges of the cells.

    `values` is float32 `(rows, columns)`: finite log10 values, `-inf` for exact zeros, `inf` and
    NaN for such norms, `MISSING` for no norm. Row i covers the records `row_edges[i:i+2]`, column j
    the timesteps `column_edges[j:j+2]`.
    """

    values: np.ndarray
    row_edges: np.ndarray
    column_edges: np.ndarray


class Counts(NamedTuple):
    """How many norms are exactly zero, NaN and infinite."""

    zero: int
    nan: int
    inf: int


def count(norms: Ragged, block: int = 2**18) -> Counts:
    """Counts the norms of a table that have no logarithm."""
    found = np.zeros(3, np.int64)
    for _, part in norms.blocks(slice(None), block):
        if not _all_positive(part):
            nan, inf = np.isnan(part), np.isinf(part)
            found += [np.count_nonzero(special) for special in (part == 0, nan, inf)]
    return Counts(*found.tolist())


def _all_positive(norms: np.ndarray) -> bool:
    """Whether every norm has a logarithm: almost always, and fast to find out. NaN is not > 0."""
    return bool(norms.size and norms.min() > 0 and norms.max() < np.inf)


def reduce(
    norms: np.ndarray | Ragged, rows: int, columns: int, how: str = "mean", block: int = 2**21
) -> Grid:
    """Reduces norms `(records, timesteps)` to at most `(rows, columns)` cells.

    Args:
        norms: Array, masked array or `Ragged` of nonnegative norms.
        rows: Integer. Largest number of rows of the result.
        columns: Integer. Largest number of columns of the result.
        how: `"mean"` (of the log10 values: the geometric mean), `"max"` or `"min"` over the
            positive finite norms of a cell. Defaults to `"mean"`.
        block: Integer. About how many norms to reduce at once, which bounds the memory.
    """
    row_edges = _edges(norms.shape[0], rows)
    column_edges = _edges(norms.shape[1], columns)
    shape = len(row_edges) - 1, len(column_edges) - 1
    whole = Cells.of(np.full(shape, MISSING), how)
    if norms.shape[0] and norms.shape[1]:
        # Block by block, to avoid a second copy of a long history.
        for record, column, part in _blocks(norms, block):
            first, last = np.searchsorted(row_edges, [record, record + len(part) - 1], "right") - 1
            here = slice(int(first), int(last) + 1)
            starts = np.maximum(row_edges[here] - record, 0)
            cells = _reduce_block(part, starts, column_edges - column, how)
            joined = Cells(*(of[here] for of in whole)).joined(cells, how)
            for of, new in zip(whole, joined, strict=True):
                of[here] = new
    return Grid(whole.values(how).astype(np.float32), row_edges, column_edges)


def step_edges(steps: np.ndarray) -> np.ndarray:
    """Edges of the records' columns: half way between neighbouring steps."""
    steps = np.asarray(steps, np.float64)  # sums of whole numbers could overflow
    if len(steps) == 1:
        return np.array([steps[0] - 0.5, steps[0] + 0.5])
    middle = (steps[1:] + steps[:-1]) / 2
    first, last = 2 * steps[0] - middle[0], 2 * steps[-1] - middle[-1]
    return np.concatenate([[first], middle, [last]])


def _edges(size: int, cells: int) -> np.ndarray:
    return np.linspace(0, size, min(size, cells) + 1).astype(np.int64)


_LOG10_2 = np.float32(np.log10(2))


def _log10(norms: np.ndarray, positive: np.ndarray, nothing: float) -> np.ndarray:
    """log10 of the positive norms, `nothing` of the others. NumPy's log2 is 12 times as fast."""
    logs = np.log2(norms, where=positive, out=np.full(norms.shape, nothing, np.float32))
    return np.multiply(logs, _LOG10_2, where=positive, out=logs)


# The log10 values of a cell: how two blocks of it are joined, and what an empty block has.
_JOIN = {"mean": (np.add, 0.0), "max": (np.maximum, -np.inf), "min": (np.minimum, np.inf)}


class Cells(NamedTuple):
    """Accumulators of cells over the norms so far; all arrays have the shape of the cells."""

    logs: np.ndarray  # sum, largest or smallest of the positive finite norms' log10
    positive: np.ndarray  # how many of those there are
    missing: np.ndarray  # whether all are missing
    infinite: np.ndarray  # whether any is
    nan: np.ndarray  # whether any is

    @classmethod
    def of(cls, values: np.ndarray, how: str) -> "Cells":
        """Cells as `Grid.values` has them, each of which counts as one norm."""
        positive = np.isfinite(values) & (values != MISSING)
        return cls(
            np.where(positive, values.astype(np.float64), _JOIN[how][1]),
            positive.astype(np.int64),
            values == MISSING,
            np.isposinf(values),
            np.isnan(values),
        )

    def joined(self, other: "Cells", how: str) -> "Cells":
        """The cells over the norms of both."""
        return Cells(
            _JOIN[how][0](self.logs, other.logs),
            self.positive + other.positive,
            self.missing & other.missing,
            self.infinite | other.infinite,
            self.nan | other.nan,
        )

    def values(self, how: str) -> np.ndarray:
        """The cells as `Grid.values` has them."""
        logs = self.logs / np.maximum(self.positive, 1) if how == "mean" else self.logs
        values = np.where(self.positive > 0, logs, -np.inf)
        values[self.missing] = MISSING
        values[self.infinite] = np.inf
        values[self.nan] = np.nan
        return values


def _blocks(norms: np.ndarray | Ragged, size: int) -> Iterator[tuple[int, int, np.ndarray]]:
    """`(first record, first column, norms)` of all."""
    if isinstance(norms, Ragged):
        record = 0
        for column, part in norms.blocks(slice(None), size):
            yield record, column, part
            record += len(part)
        return
    together = max(1, size // norms.shape[1])
    for at in range(0, len(norms), together):
        yield at, 0, norms[at : at + together]


def _reduce_block(norms: np.ndarray, rows: np.ndarray, edges: np.ndarray, how: str) -> Cells:
    """The cells of a block of records.

    Args:
        norms: `(records, columns)`; left of column 0 norms are missing.
        rows: First record of each row of cells, from 0.
        edges: Of the columns of cells, in columns of the block.
    """
    join, nothing = _JOIN[how]
    empty = int(np.searchsorted(edges[1:], 0, "right"))  # cells that end there or before
    columns = np.maximum(edges[empty:-1], 0)
    mask = np.ma.getmask(norms)
    norms = np.ma.getdata(norms)

    def per_cell(table, function, default, dtype=None):
        records = np.append(rows, len(table))
        over_records = np.stack(
            [
                function.reduce(table[first:last], axis=0, dtype=dtype)
                for first, last in itertools.pairwise(records.tolist())
            ]
        )
        found = np.full((len(rows), empty + len(columns)), default, over_records.dtype)
        if columns.size:
            found[:, empty:] = function.reduceat(over_records, columns, axis=1)
        return found

    if not np.any(mask) and _all_positive(norms):  # in a fraction of the time
        sizes = np.zeros(empty + len(columns), np.int64)
        sizes[empty:] = np.diff(np.append(columns, norms.shape[1]))
        positive = np.diff(np.append(rows, len(norms)))[:, None] * sizes
        none = np.zeros(positive.shape, bool)
        if how == "mean":
            logs = per_cell(np.log2(norms) * _LOG10_2, join, nothing, np.float64)
        else:  # the logarithm keeps the order
            extreme = per_cell(norms, join, 1.0).astype(np.float64)
            logs = np.where(positive, np.log10(extreme), nothing)
        return Cells(logs, positive, none | (sizes == 0), none, none)
    missing = np.broadcast_to(mask, norms.shape)
    positive = np.isfinite(norms) & (norms > 0) & ~missing
    logs = _log10(norms, positive, nothing)
    return Cells(
        per_cell(logs, join, nothing, np.float64),
        per_cell(positive, np.add, 0, np.int64),
        per_cell(missing, np.logical_and, True),
        per_cell(np.isinf(norms) & ~missing, np.logical_or, False),
        per_cell(np.isnan(norms) & ~missing, np.logical_or, False),
    )
