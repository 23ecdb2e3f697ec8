"""Reduction of norms to a grid: against loops, and nothing rare gets lost."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from kbptt.tensorboard import grid

CELLS = st.sampled_from([0.0, 1e-45, 1e-20, 0.5, 1.0, 3e38, np.inf, np.nan])
NORMS = hnp.arrays(np.float32, hnp.array_shapes(min_dims=2, max_dims=2, max_side=9), elements=CELLS)


def reference(cell, how):
    cell = [float(value) for value in cell.ravel()]
    if any(np.isnan(cell)):
        return np.nan
    if np.inf in cell:
        return np.inf
    positive = [np.log10(value) for value in cell if value > 0]
    return {"mean": np.mean, "max": max, "min": min}[how](positive) if positive else -np.inf


@settings(max_examples=60, deadline=None)
@given(NORMS, st.integers(1, 9), st.integers(1, 9), st.sampled_from(["mean", "max", "min"]))
def test_every_cell_against_a_loop(norms, rows, columns, how):
    reduced = grid.reduce(norms, rows, columns, how)
    assert reduced.values.shape == (min(rows, len(norms)), min(columns, norms.shape[1]))
    for i, row in enumerate(reduced.values):
        a, b = reduced.row_edges[i : i + 2]
        for j, value in enumerate(row):
            c, d = reduced.column_edges[j : j + 2]
            np.testing.assert_allclose(value, reference(norms[a:b, c:d], how), rtol=1e-5)


def test_without_reduction_it_is_the_logarithm():
    norms = np.array([[1e-3, 1e2], [1, 0]], np.float32)
    np.testing.assert_allclose(grid.reduce(norms, 9, 9).values, [[-3, 2], [0, -np.inf]], rtol=1e-6)


def test_missing_timesteps_are_neither_zero_nor_nan():
    norms = np.ma.MaskedArray([[np.nan, 1.0], [1.0, 1.0]], [[True, False], [False, False]])
    assert grid.reduce(norms, 2, 2).values.tolist() == [[grid.MISSING, 0], [0, 0]]
    assert grid.reduce(norms, 1, 2).values.tolist() == [[0, 0]]


@pytest.mark.parametrize("shape", [(0, 5), (5, 0)])
def test_empty(shape):
    assert grid.reduce(np.empty(shape, np.float32), 10, 10).values.shape == shape
