"""`kbptt.truncation.windows` is TBPTT(k1, k2) as it is defined."""

import subprocess
import sys

import numpy as np
import pytest
import reference_bptt
import tensorflow as tf
from hypothesis import given, strategies as st

from kbptt.truncation import Full, Windowed, windows


@st.composite
def divisions(draw):
    length = draw(st.integers(1, 12))
    align = draw(st.sampled_from(["end", "start"]))
    return Windowed(length, draw(st.integers(1, length)), align)


def expected(timesteps, truncation):
    t = truncation
    found = reference_bptt.windows(timesteps, t.length, t.stride, t.align)
    return sorted((w.start, w.first, w.end) for w in found)


@given(st.integers(1, 15), divisions())
def test_starts_entries_and_ends_are_those_of_the_definition(timesteps, truncation):
    found = windows.of(timesteps, truncation)
    bounds = zip(found.starts, found.entries, found.ends, strict=True)
    assert sorted(tuple(map(int, b)) for b in bounds) == expected(timesteps, truncation)


@given(st.integers(1, 15), divisions())
def test_every_loss_enters_one_window(timesteps, truncation):
    found = windows.of(timesteps, truncation)
    entered = [np.arange(a, b) for a, b in zip(found.entries, found.ends, strict=True)]
    np.testing.assert_array_equal(np.concatenate(entered), np.arange(timesteps))


@given(st.integers(1, 15), divisions())
def test_no_gradient_crosses_an_edge_and_one_crosses_everything_else(timesteps, truncation):
    """Edges are the steps t > 0 that no window has together with t − 1."""
    found = windows.of(timesteps, truncation)
    crossed = set()
    for start, end in zip(found.starts, found.ends, strict=True):
        crossed |= set(range(start + 1, end))
    assert set(found.edges.tolist()) == set(range(1, timesteps)) - crossed


@given(st.integers(1, 15), divisions())
def test_a_length_that_is_known_only_in_the_graph_gives_the_same_windows(timesteps, truncation):
    known = windows.of(timesteps, truncation)
    late = windows.of(tf.constant(timesteps), truncation, tf.minimum)
    for bound in ("start", "entry", "end"):
        found = getattr(late, bound)(tf.range(late.count))
        exact = getattr(known, bound)(np.arange(known.count))
        np.testing.assert_array_equal(np.clip(found, 0, timesteps), np.clip(exact, 0, timesteps))


@pytest.mark.parametrize("truncation", [Full(), Windowed(9), Windowed(9, 8), Windowed(2**40)])
def test_a_window_of_the_whole_sequence_is_the_only_one(truncation):
    found = windows.of(7, truncation)
    assert (found.starts, found.entries, found.ends) == (0, 0, 7)
    assert not found.overlapping
    assert found.edges.size == 0


def test_tensorboard_can_read_windows_without_tensorflow():
    program = (
        "import sys; from kbptt.truncation import windows\n"
        "assert not {'tensorflow', 'keras'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
