"""How the C++ loops run a problem: which thread does what, and what is kept for the backward pass.

Every choice that depends on sizes or on the machine is made here, but for the blocks of rows that
fit a cache (``native/blocks.hpp``). The measurements behind them are a table in ``docs/speed.md``;
`kbptt.explain` prints the choices for a layer.
"""

import functools
import os
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from kbptt._cores import cores
from kbptt.truncation.windows import Windows

# Fewer rows than this are not worth a thread of their own.
ROWS_OF_A_TEAM = 4
# Nor are fewer units: their thread would wait longer for the others than it works.
UNITS_OF_A_MEMBER = 64
# A thread needs at least one vector: AVX-512 has the longest.
UNITS_OF_A_VECTOR = 16
# With so many units a thread that had them all would read kernels that fit no cache of its own.
WIDE = 1024
# Timesteps that the backward pass computes again at a time, where their c was not kept.
SPAN = 16
# Bytes up to which gates are kept, and which share of the machine's memory if that is less.
KEPT_GATES, SHARE_OF_MEMORY = 2**27, 1 / 128


class Sharing(NamedTuple):
    """Threads as teams; see ``native/team.hpp``.

    Attributes:
        teams: Number of teams, each with rows of its own.
        members: Threads of a team, each with units of its own.
    """

    teams: int
    members: int


def share(
    rows: int, units: int, threads: int, whole_rows: bool, members: int | None = None
) -> Sharing:
    """How many threads work, and as what.

    Args:
        rows: Samples, or in the backward pass samples of windows.
        units: Width of the state.
        threads: As many as there may be.
        whole_rows: Whether a row cannot be divided: its units are summed up in each timestep, as by
            layer normalization.
        members: Threads of a team if that is not to be chosen.
    """
    teams = max(min(threads, rows // ROWS_OF_A_TEAM), 1)
    if whole_rows:
        return Sharing(teams, 1)
    if members is not None:
        members = max(min(members, threads, units // UNITS_OF_A_VECTOR), 1)
        return Sharing(max(min(threads // members, rows), 1), members)
    members = max(min(threads, units // UNITS_OF_A_MEMBER), 1)
    if units >= WIDE:
        return Sharing(max(min(threads // members, teams), 1), members)
    return Sharing(teams, max(min(threads // teams, members), 1))


def most_gates(windows: Windows, limit: int | None) -> int:
    """Bytes up to which gates are kept for the backward pass; more are computed again there.

    Args:
        windows: The `Windows`.
        limit: Where they do not overlap; None is `memory()`.
    """
    # Where windows overlap, gates that are not kept would be computed many times.
    return (memory() if limit is None else limit) * windows.reach


def slots(windows: Windows) -> np.ndarray | None:
    """Where c of each timestep is kept if the gates are not: as `Problem` says. None: everywhere.

    Gates are computed again from h and c. If those of a stretch of time are, c comes along: then
    only that before each stretch of each window is kept, and nothing grows with the sequence but
    inputs and outputs.
    """
    if windows.overlapping:
        return None  # sums of gradients do, and cost more
    starts = np.zeros([windows.timesteps + 1], np.int64)
    for start, end in zip(windows.starts, windows.ends, strict=True):
        starts[start:end:SPAN] = 1
    starts[0] = 0  # the initial state is there
    numbers = np.cumsum(starts) * starts
    return numbers[1:] if 2 * numbers.max() <= windows.timesteps else None


@functools.cache
def memory() -> int:
    """What may be taken for gates where windows do not overlap, in bytes."""
    if not hasattr(os, "sysconf") or "SC_PHYS_PAGES" not in os.sysconf_names:
        return KEPT_GATES
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return min(KEPT_GATES, int(SHARE_OF_MEMORY * memory))


@functools.cache
def threads() -> int:
    """As many as TensorFlow gives to one operation."""
    return tf.config.threading.get_intra_op_parallelism_threads() or cores()
