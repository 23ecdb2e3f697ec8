"""The plan of a pass: rows, units, threads, what is kept. Speed is the subject of benchmarks."""

import os

import numpy as np
import pytest
from hypothesis import given, strategies as st

from kbptt.engine import plan
from kbptt.engine.plan import Sharing, share
from kbptt.truncation import Windowed
from kbptt.truncation.windows import of


@pytest.mark.parametrize(
    ("rows", "units", "threads", "expected"),
    [
        (1, 16, 1, Sharing(1, 1)),
        (64, 128, 1, Sharing(1, 1)),
        (8, 64, 2, Sharing(2, 1)),  # four rows each
        (7, 128, 2, Sharing(1, 2)),  # too few of them: 64 units each
        (7, 127, 2, Sharing(1, 1)),  # too few of those, too
        (2, 512, 8, Sharing(1, 8)),
        (8, 512, 8, Sharing(2, 4)),
        (10**6, 1023, 8, Sharing(8, 1)),
        (10**6, 1024, 8, Sharing(1, 8)),  # a kernel that fits no cache
    ],
)
def test_rows_first_then_units(rows, units, threads, expected):
    assert share(rows, units, threads, whole_rows=False) == expected


def test_rows_that_are_summed_up_stay_whole():
    assert share(2, 2048, 8, whole_rows=True) == Sharing(1, 1)
    assert share(32, 2048, 8, whole_rows=True, members=2) == Sharing(8, 1)


def test_members_that_are_asked_for():
    assert share(64, 64, 6, False, members=2) == Sharing(3, 2)
    assert share(64, 31, 6, False, members=2) == Sharing(6, 1)  # a vector each, at least


@given(
    rows=st.integers(1, 10**6),
    units=st.integers(1, 5000),
    threads=st.integers(1, 64),
    whole_rows=st.booleans(),
    members=st.none() | st.integers(1, 64),
)
def test_nobody_is_without_work(rows, units, threads, whole_rows, members):
    teams, of_each = share(rows, units, threads, whole_rows, members)
    assert 1 <= teams * of_each <= threads
    assert teams <= rows
    assert of_each == 1 or units >= of_each * plan.UNITS_OF_A_VECTOR
    assert of_each == 1 or not whole_rows


def test_gates_are_kept_by_the_memory_there_is(monkeypatch):
    chunks, overlapping = of(60, Windowed(20, 20)), of(60, Windowed(20, 5))
    assert plan.most_gates(chunks, None) == plan.memory() <= plan.KEPT_GATES
    assert plan.most_gates(chunks, 7) == 7
    # Otherwise those of a timestep would be computed again in each of four windows.
    assert plan.most_gates(overlapping, 7) == 4 * 7
    small = {"SC_PHYS_PAGES": 2**18, "SC_PAGE_SIZE": 2**12}  # 1 GiB
    monkeypatch.setattr(plan.os, "sysconf", small.get)
    assert plan.memory.__wrapped__() == 2**30 / 128
    monkeypatch.delattr(plan.os, "sysconf")  # as on Windows
    assert plan.memory.__wrapped__() == plan.KEPT_GATES


def test_c_is_kept_before_every_stretch():
    slots = plan.slots(of(100, Windowed(40, 40)))
    # Windows [0, 20), [20, 60), [60, 100) in steps of 16; before 0 is the initial state.
    kept = [16, 20, 36, 52, 60, 76, 92]
    expected = np.zeros(100, int)
    expected[np.array(kept) - 1] = np.arange(1, 8)  # that of the timestep before each
    np.testing.assert_array_equal(slots, expected)


def test_c_is_kept_everywhere_where_that_is_hardly_more():
    assert plan.slots(of(100, Windowed(1, 1))) is None
    assert plan.slots(of(100, Windowed(20, 5))) is None  # windows overlap


def test_threads_are_those_of_an_operation(monkeypatch):
    threading = plan.tf.config.threading
    monkeypatch.setattr(threading, "get_intra_op_parallelism_threads", lambda: 5)
    assert plan.threads.__wrapped__() == 5
    monkeypatch.setattr(threading, "get_intra_op_parallelism_threads", lambda: 0)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 3, 5}, raising=False)
    assert plan.threads.__wrapped__() == 3
    monkeypatch.delattr(os, "sched_getaffinity")  # as on macOS and Windows
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert plan.threads.__wrapped__() == 1
