"""Reduces a matrix of gradient norms to a small grid of log10 values that hides nothing.

A reduced cell keeps what its norms have in common without losing the rare ones: one NaN or infinite
norm makes the whole cell so, and a cell is an exact zero only if all its norms are.
"""

import itertools
from typing import NamedTuple

import numpy as np

# Value of a cell without any timestep (sequences of different lengths). Not a float that
# `log10` of a positive float32 can be.
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


def reduce(norms: np.ndarray, rows: int, columns: int, how: str = "mean") -> Grid:
    """Reduces norms `(records, timesteps)` to at most `(rows, columns)` cells.

    Args:
        norms: Array or masked array of nonnegative norms.
        rows: Integer. Largest number of rows of the result.
        columns: Integer. Largest number of columns of the result.
        how: `"mean"` (of the log10 values: the geometric mean), `"max"` or `"min"` over the
            positive finite norms of a cell. Defaults to `"mean"`.
    """
    missing = np.ma.getmaskarray(norms)
    norms = np.ma.getdata(norms)
    row_edges = _edges(norms.shape[0], rows)
    column_edges = _edges(norms.shape[1], columns)
    # Row band by row band: a long history of 20,000 timesteps needs no second copy of itself.
    bands = [
        _reduce_band(norms[a:b], missing[a:b], column_edges, how)
        for a, b in itertools.pairwise(row_edges)
    ]
    shape = (len(row_edges) - 1, len(column_edges) - 1)
    values = np.array(bands, np.float32).reshape(shape)
    return Grid(values, row_edges, column_edges)


def step_edges(steps: np.ndarray) -> np.ndarray:
    """Edges of the records' columns: half way between neighbouring steps."""
    if len(steps) == 1:
        return np.array([steps[0] - 0.5, steps[0] + 0.5])
    middle = (steps[1:] + steps[:-1]) / 2
    first, last = 2 * steps[0] - middle[0], 2 * steps[-1] - middle[-1]
    return np.concatenate([[first], middle, [last]])


def _edges(size: int, cells: int) -> np.ndarray:
    return np.linspace(0, size, min(size, cells) + 1).astype(np.int64)


def _reduce_band(norms, missing, column_edges, how):
    starts = column_edges[:-1]
    if not len(starts):
        return np.empty(0)
    positive = np.isfinite(norms) & (norms > 0) & ~missing
    logs = np.log10(norms, where=positive, out=np.zeros(norms.shape))

    def per_cell(table, function=np.add):
        return function.reduceat(function.reduce(table, axis=0), starts)

    counts = per_cell(positive.astype(np.int64))
    if how == "mean":
        values = per_cell(logs) / np.maximum(counts, 1)
    elif how == "max":
        values = per_cell(np.where(positive, logs, -np.inf), np.maximum)
    else:
        values = per_cell(np.where(positive, logs, np.inf), np.minimum)
    values = np.where(counts > 0, values, -np.inf)
    values[per_cell(missing, np.logical_and)] = MISSING
    values[per_cell(np.isinf(norms) & ~missing, np.logical_or)] = np.inf
    values[per_cell(np.isnan(norms) & ~missing, np.logical_or)] = np.nan
    return values
