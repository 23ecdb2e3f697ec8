"""Which step of which sequence every row of a stream reads in every window.

A stream has `rows` rows, the batch. Time in a row is a grid of windows of `length` steps. Sequences
queue up for the rows; each takes as many windows as it needs, the first of which may begin with a
lead of steps that belong to nothing:

    window      0        1        2        3        4            length = 4
    row 0   [· · 0 1][2 3 4 5][6 7 · ·][0 1 2 3][4 · · ·]        leads 2 and 0
    row 1   [· 0 1 2][3 4 5 6][7 8 9 ·]                          lead 1

So all windows have one shape, and where they begin can be drawn anew in every epoch without a step
that is left out or read twice. NumPy alone.
"""

import heapq
from collections.abc import Sequence

import numpy as np

NOTHING = -1  # in place of the number of a sequence


class Schedule:
    """The windows of an epoch.

    Args:
        sizes: Steps of each sequence, at least 1.
        leads: Steps before the first one of each, fewer than `length`.
        queues: For each row the numbers of its sequences, in order.
        length: Steps of a window.

    Attributes:
        sequence: ``(windows, rows)``: number of the sequence that is read; `NOTHING` at the end of
            a row that has fewer windows than others.
        position: ``(windows, rows)``: its step at the beginning of the window, below 0 within the
            lead.
    """

    def __init__(
        self,
        sizes: np.ndarray,
        leads: np.ndarray,
        queues: Sequence[np.ndarray],
        length: int,
    ) -> None:
        self.sizes = sizes
        self.length = length
        counts = windows(sizes, leads, length)
        count = max(int(counts[queue].sum()) for queue in queues)
        self.sequence: np.ndarray = np.full([count, len(queues)], NOTHING, np.int32)
        self.position: np.ndarray = np.zeros([count, len(queues)], np.int64)
        for row, queue in enumerate(queues):
            of_each = counts[queue]
            ends = np.cumsum(of_each)
            used = int(of_each.sum())
            within = np.arange(used) - np.repeat(ends - of_each, of_each)
            self.sequence[:used, row] = np.repeat(queue, of_each)
            self.position[:used, row] = within * length - np.repeat(leads[queue], of_each)

    def __len__(self) -> int:
        return len(self.sequence)

    @property
    def begins(self) -> np.ndarray:
        """Boolean ``(windows, rows)``: whether a sequence has its first step in the window."""
        return (self.sequence != NOTHING) & (self.position <= 0)

    def bounds(self, context: int = 0) -> tuple[np.ndarray, np.ndarray]:
        """Where the steps of the sequence begin and end in each window: two ``(windows, rows)``.

        Args:
            context: Steps that are read again before each window.
        """
        sizes = np.where(self.sequence == NOTHING, -context, self.sizes[self.sequence])
        first = np.maximum(context - self.position, 0)
        stop = np.clip(sizes - self.position + context, 0, self.length + context)
        return np.minimum(first, stop), stop


def windows(sizes: np.ndarray, leads: np.ndarray, length: int) -> np.ndarray:
    """How many windows each sequence takes."""
    return (sizes + leads + length - 1) // length


def draw_leads(sizes: np.ndarray, length: int, generator: np.random.Generator) -> np.ndarray:
    """A lead for each sequence, so drawn that it takes as many windows in every epoch.

    Of the `length` leads, those are drawn from that need the more frequent number of windows: at
    least half of them. A sequence that fits into one window has none.
    """
    last = (sizes - 1) % length + 1  # steps in the last window, without a lead
    fits = length - last + 1  # leads that need no window more
    more = fits < last - 1
    low, high = np.where(more, fits, 0), np.where(more, length, fits)
    return np.where(sizes <= length, 0, generator.integers(low, high))


def queue_up(costs: np.ndarray, rows: int) -> list[np.ndarray]:
    """Sequences in their order, each in the row that has had the least so far."""
    queues: list[list[int]] = [[] for _ in range(rows)]
    loads = [(0, row) for row in range(rows)]
    for sequence, cost in enumerate(costs.tolist()):
        load, row = loads[0]
        queues[row].append(sequence)
        heapq.heapreplace(loads, (load + cost, row))
    return [np.array(queue, np.int64) for queue in queues]


def deal(costs: np.ndarray, rows: int, generator: np.random.Generator) -> list[np.ndarray]:
    """Sequences in random order, of nearly the same cost for each row, the same in every epoch."""
    drawn = generator.permutation(len(costs))
    # The longest first: then all loads follow from the costs, whatever the order of equal ones.
    drawn = drawn[np.argsort(-costs[drawn], kind="stable")]
    return [generator.permutation(drawn[queue]) for queue in queue_up(costs[drawn], rows)]
