"""One grid for several runs: their geometric mean at the same step and the same lag."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from kbptt.tensorboard.grid import MISSING, Cells


class Placed(NamedTuple):
    """A run's grid of log10 values with the places of its cells.

    `values` is `(rows, columns)` as in `grid.Grid`. Row i lies between `steps[i:i+2]` and covers
    the recorded steps `first[i]` to `last[i]`; column j between `columns[j:j+2]`, timesteps counted
    from the end, which are negative.
    """

    values: np.ndarray
    steps: np.ndarray
    columns: np.ndarray
    first: np.ndarray
    last: np.ndarray


def combine(grids: Sequence[Placed], how: str = "mean") -> Placed:
    """The runs as one, by the rules of `grid.reduce`: NaN and infinite norms stay so.

    Args:
        grids: At least one. A cell of the result takes from each run the one that covers its
            middle.
        how: `"mean"` (of the logarithms), `"max"` or `"min"` over the runs.
    """
    if len(grids) == 1:
        return grids[0]
    steps = _common([one.steps for one in grids])
    columns = _common([one.columns for one in grids])
    first, last = np.full(len(steps) - 1, np.inf), np.full(len(steps) - 1, -np.inf)
    joined = Cells.of(np.full((len(steps) - 1, len(columns) - 1), MISSING), how)
    for one in grids:
        rows, across = _at(one.steps, steps), _at(one.columns, columns)
        inside = rows >= 0
        here = inside[:, None] & (across >= 0)[None, :]
        values = np.where(here, one.values[np.ix_(rows, across)], MISSING)
        joined = joined.joined(Cells.of(values, how), how)
        np.minimum(first, one.first[rows], where=inside, out=first)
        np.maximum(last, one.last[rows], where=inside, out=last)
    values = joined.values(how).astype(np.float32)
    covered = np.isfinite(first)
    middle = (steps[1:] + steps[:-1]) / 2  # of a gap that no run covers
    first, last = np.where(covered, first, middle), np.where(covered, last, middle)
    return Placed(values, steps, columns, first.astype(np.int64), last.astype(np.int64))


def _common(edges: Sequence[np.ndarray]) -> np.ndarray:
    """All edges, thinned out to as many cells as the finest has."""
    if all(np.array_equal(one, edges[0]) for one in edges):
        return edges[0]
    union = np.unique(np.concatenate(edges))
    most = max(map(len, edges))
    at = np.unique(np.linspace(0, len(union) - 1, min(len(union), most)).round().astype(int))
    return union[at]


def _at(edges: np.ndarray, cells: np.ndarray) -> np.ndarray:
    """For each of the cells the index of the one that covers its middle, -1 for none."""
    middle = (cells[1:] + cells[:-1]) / 2
    found = np.searchsorted(edges, middle, "right") - 1
    return np.where((middle >= edges[0]) & (middle < edges[-1]), found, -1)
