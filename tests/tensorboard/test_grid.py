"""Reduction of norms to a grid: against loops, and nothing rare gets lost."""

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from hypothesis.extra import numpy as hnp

from kbptt.tensorboard import grid
from kbptt.tensorboard.ragged import Ragged

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


@pytest.mark.parametrize("how", ["mean", "max", "min"])
def test_ragged_profiles_are_reduced_as_the_padded_table(how):
    rng = np.random.default_rng(0)
    vectors = []
    for length in (0, 7, 7, 3, 1, 7, 5, 5, 5, 0):
        norms = rng.lognormal(size=length).astype(np.float32)
        norms[rng.random(length) < 0.2] = rng.choice([0, np.nan, np.inf])
        vectors.append(norms)
    ragged = Ragged(vectors)
    assert ragged.shape == (10, 7) and ragged.size == 40
    for block in (1, 8, 1000):
        for rows, columns in ((10, 7), (3, 2), (1, 1), (1, 7), (4, 5)):
            one = grid.reduce(ragged, rows, columns, how, block)
            other = grid.reduce(ragged[:], rows, columns, how, block)
            np.testing.assert_allclose(one.values, other.values, rtol=1e-6, atol=1e-7)
    part = ragged.part(slice(2, 8), 2, 5)
    np.testing.assert_array_equal(part[:].filled(-1), ragged[2:8][:, 2:5].filled(-1))
    assert ragged.part(slice(0, 10), -3, 99).size == 40
    assert ragged.part(slice(0, 10), 6, 2).shape == (10, 0)


def test_edges_of_the_largest_steps():
    steps = np.array([2**53 - 2, 2**53])
    assert grid.step_edges(steps).tolist() == [2.0**53 - 3, 2.0**53 - 1, 2.0**53 + 1]
