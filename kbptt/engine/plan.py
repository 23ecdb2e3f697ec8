"""How the C++ loops share their work over threads."""

from typing import NamedTuple

# Fewer rows than this are not worth a thread of their own.
ROWS_OF_A_TEAM = 4
# Nor are fewer units: their thread would wait longer for the others than it works.
UNITS_OF_A_MEMBER = 32
# With so many units a thread that had them all would read kernels that fit no cache of its own.
WIDE = 1024


class Sharing(NamedTuple):
    """Threads as teams; see ``native/team.hpp``.

    Attributes:
        teams: Number of teams, each with rows of its own.
        members: Threads of a team, each with units of its own.
    """

    teams: int
    members: int


def share(rows: int, units: int, threads: int, whole_rows: bool) -> Sharing:
    """How many threads work, and as what.

    Args:
        rows: Samples, or in the backward pass samples of windows.
        units: Width of the state.
        threads: As many as there may be.
        whole_rows: Whether a row cannot be divided: its units are summed up in each timestep, as by
            layer normalization.
    """
    teams = max(min(threads, rows // ROWS_OF_A_TEAM), 1)
    if whole_rows:
        return Sharing(teams, 1)
    members = max(min(threads, units // UNITS_OF_A_MEMBER), 1)
    if units >= WIDE:
        return Sharing(max(min(threads // members, teams), 1), members)
    return Sharing(teams, max(min(threads // teams, members), 1))
