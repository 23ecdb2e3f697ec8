"""One grid for several runs: their geometric mean at the same step and the same lag."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from kbptt.tensorboard.grid import MISSING


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
    shape = len(steps) - 1, len(columns) - 1
    logs, positive = (
        np.full(shape, {"mean": 0.0, "max": -np.inf, "min": np.inf}[how]),
        np.zeros(shape),
    )
    missing, nan, infinite = np.ones(shape, bool), np.zeros(shape, bool), np.zeros(shape, bool)
    first, last = np.full(shape[0], np.inf), np.full(shape[0], -np.inf)
    join = {"mean": np.add, "max": np.maximum, "min": np.minimum}[how]
    for one in grids:
        rows, across = _at(one.steps, steps), _at(one.columns, columns)
        values = one.values[np.ix_(rows, across)]
        here = (rows >= 0)[:, None] & (across >= 0)[None, :] & (values != MISSING)
        finite = here & np.isfinite(values)
        logs = join(logs, values, where=finite, out=logs)
        positive += finite
        missing &= ~here
        nan |= here & np.isnan(values)
        infinite |= here & (values == np.inf)
        inside = rows >= 0
        np.minimum(first, one.first[rows], where=inside, out=first)
        np.maximum(last, one.last[rows], where=inside, out=last)
    mean = logs / np.maximum(positive, 1) if how == "mean" else logs
    values = np.where(positive > 0, mean, -np.inf).astype(np.float32)
    values[missing] = MISSING
    values[infinite] = np.inf
    values[nan] = np.nan
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
