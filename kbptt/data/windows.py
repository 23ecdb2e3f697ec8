"""The windows of one epoch of a stream, as arrays."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from kbptt.data.schedule import NOTHING, Schedule
from kbptt.data.sequences import Sequences


class Places(NamedTuple):
    """Where the sequences stand in each window, ``(windows, rows)`` but for `real`.

    Attributes:
        first: int32, the first timestep of the window that belongs to a sequence.
        stop: int32, the timestep after the last one.
        fresh: Boolean, whether the states are initial before `first`; else they are carried over
            from the window before.
        real: int64 ``(windows,)``, how many sample weights are not 0.
    """

    first: np.ndarray
    stop: np.ndarray
    fresh: np.ndarray
    real: np.ndarray


class Run(NamedTuple):
    """Sequences that follow each other in a row without a gap.

    Attributes:
        members: Their numbers.
        ends: Steps of the run up to the end of each.
    """

    members: np.ndarray
    ends: np.ndarray


class Part(NamedTuple):
    """Steps of one sequence in one window.

    Attributes:
        sequence: Its number.
        first: The first of its steps.
        stop: The step after the last one.
        at: Timestep of the window where `first` stands.
    """

    sequence: int
    first: int
    stop: int
    at: int


class Epoch:
    """The windows of one epoch: reading one twice gives the same.

    Args:
        sequences: The `Sequences`.
        schedule: The `Schedule`, of sequences or of runs.
        runs: What the schedule's numbers stand for, or None if for sequences.
        context: Steps that are read again before each window.
    """

    def __init__(
        self, sequences: Sequences, schedule: Schedule, runs: list[Run] | None, context: int
    ) -> None:
        self.sequences = sequences
        self.schedule = schedule
        self.runs = runs
        self.context = context
        self.timesteps: int = context + schedule.length
        self.rows: int = schedule.sequence.shape[1]
        first, stop = schedule.bounds(context)
        fresh = (schedule.sequence != NOTHING) & (schedule.position <= context)
        if sequences.target == "last":
            ends = schedule.sizes[schedule.sequence] - schedule.position
            real = (schedule.sequence != NOTHING) & (0 < ends) & (ends <= schedule.length)
        else:
            real = stop - np.minimum(np.maximum(first, context), stop)
        self.places: Places = Places(
            first.astype(np.int32), stop.astype(np.int32), fresh, real.sum(axis=1)
        )

    def __len__(self) -> int:
        return len(self.schedule)

    def parts(self, window: int, row: int) -> Iterator[Part]:
        """What a row reads in a window."""
        at = window, row
        number = self.schedule.sequence.item(at)
        if number == NOTHING:
            return
        begin = self.schedule.position.item(at) - self.context  # the step at timestep 0
        first = begin + self.places.first.item(at)
        stop = begin + self.places.stop.item(at)
        if self.runs is None:
            if first < stop:
                yield Part(number, first, stop, first - begin)
            return
        members, ends = self.runs[number]
        member = int(np.searchsorted(ends, first, "right"))
        while first < stop:
            sequence, end = int(members[member]), int(ends[member])
            before = end - int(self.sequences.sizes[sequence])
            part = min(end, stop)
            yield Part(sequence, first - before, part - before, first - begin)
            first, member = part, member + 1

    def window(self, index: int) -> tuple[Any, np.ndarray, np.ndarray]:
        """``(x, y, sample weight)``, or with runs ``((x, resets), y, sample weight)``."""
        sequences, rows, timesteps = self.sequences, self.rows, self.timesteps
        by_step = sequences.target != "last"
        x = np.zeros((rows, timesteps, *sequences.x[0].shape[1:]), sequences.x[0].dtype)
        targets = sequences.targets[0]
        y = np.zeros((rows, *([timesteps] if by_step else []), *targets.shape[1:]), targets.dtype)
        if by_step:
            at = np.arange(timesteps)
            first = np.maximum(self.places.first[index], self.context)[:, None]
            stop = self.places.stop[index][:, None]
            weight = ((first <= at) & (at < stop)).astype(np.float32)
        else:
            weight = np.zeros(rows, np.float32)
        resets = None if self.runs is None else np.zeros((rows, timesteps), np.bool_)
        for row in range(rows):
            for sequence, first, stop, at in self.parts(index, row):
                end = at + stop - first
                inputs, labels = sequences.read(sequence, first, stop)
                x[row, at:end] = inputs
                if resets is not None:
                    resets[row, at] |= first == 0
                if by_step:
                    y[row, at:end] = labels
                elif stop == sequences.sizes[sequence] and end > self.context:
                    y[row], weight[row] = targets[sequence], 1
        return x if resets is None else (x, resets), y, weight
