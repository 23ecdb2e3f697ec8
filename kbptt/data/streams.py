"""Windows of long sequences, one after the other: data to train on with the state carried on."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import keras
import numpy as np

from kbptt import _checks, _keras
from kbptt.data import schedule as schedules
from kbptt.data.schedule import NOTHING, Schedule
from kbptt.data.sequences import Sequences, gather
from kbptt.tasks.base import check_seed

class Run(NamedTuple):
    """Sequences that follow each other without a gap.

    Attributes:
        members: Their numbers.
        ends: Steps up to the end of each.
    """

    members: np.ndarray
    ends: np.ndarray


ORDERS = ("given", "shuffled")
OFFSETS = ("random", 0)


class Streams(_keras.DataAdapter, keras.utils.PyDataset):
    """Long sequences as batches of windows, in which each row goes on where it stopped.

    Truncated BPTT with an update per window: `model.fit` reads a window, updates the weights, and
    `kbptt.callbacks.StreamState` carries the states of the recurrent layers on to the next one.

    ```python
    data = kbptt.data.Streams(tokens, length=128, batch_size=16)
    model.fit(data, epochs=10, callbacks=[kbptt.callbacks.StreamState(data)])
    ```

    In an epoch every step of every sequence is read once, with its target. One array is divided
    into `batch_size` contiguous parts, a row of the batch each; sequences of a list queue up for
    the rows. Where a row has no steps, before or after those of its sequence, its sample weight is
    0 and `StreamState` holds the states. Batches are ``(x, y, sample weight)``, never shuffled by
    `fit`, and arrays may be larger than memory (`np.memmap`).

    Args:
        x: Array ``(timesteps, …)`` of tokens or features, or a list of such arrays, of any lengths.
        y: Targets, aligned with `x`; see `target`. Defaults to `None`.
        length: Integer. Steps of a window. Defaults to `128`.
        batch_size: Integer. Number of rows. Defaults to `16`.
        target: `"next"`: the `x` of the step after, across the ends of windows too. `None`: `y` has
            one target for each step. `"last"`: `y` has one for each sequence, at its last step.
            Defaults to `"next"`.
        context: Integer. Steps before each window that are read again with it, without a loss:
            TBPTT(k1 = `length`, k2 = `length + context`), guide 1.2. Defaults to `0`.
        context_gradient: Boolean. Whether the gradient flows back into the context; False burns in
            the state alone (R2D2). Defaults to `True`.
        offset: `"random"`: where the windows of a sequence begin is drawn in every epoch. `0`: its
            first step begins one. Defaults to `"random"`.
        order: `"given"`, or `"shuffled"`: whole sequences, in every epoch. Defaults to `"given"`.
        pack: Boolean. Whether a sequence may begin inside a window, right behind the one before it.
            Then inputs are a pair ``(x, resets)``, where the boolean ``(batch, timesteps)`` is the
            `resets` of kbptt's layers. Defaults to `False`.
        seed: Non-negative integer. Defaults to `0`.

    Attributes:
        epoch: The epoch whose windows are read.
        schedule: Its `kbptt.data.schedule.Schedule`.

    Reference:
        [Kapturowski et al., 2019](https://openreview.net/forum?id=r1lyTjAqYX) (burn-in)
    """

    def __init__(
        self,
        x: Any,
        y: Any = None,
        length: int = 128,
        batch_size: int = 16,
        target: str | None = "next",
        context: int = 0,
        context_gradient: bool = True,
        offset: str | int = "random",
        order: str = "given",
        pack: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.length: int = _checks.positive_integer("length", length)
        self.rows: int = _checks.positive_integer("batch_size", batch_size)
        self.context: int = context and _checks.positive_integer("context", context)
        self.context_gradient = bool(context_gradient)
        self.offset: str | int = _checks.one_of("offset", offset, OFFSETS)
        self.order: str = _checks.one_of("order", order, ORDERS)
        self.pack = bool(pack)
        self.seed = check_seed(seed)
        self.sequences: Sequences = gather(x, y, target, self.rows)
        if self.pack and target == "last":
            raise ValueError(
                "`pack=True` and `target='last'` exclude each other: several sequences may end in "
                "one window of a row. Give a target for each step, with `target=None`."
            )
        self.begin(0)

    # The windows of an epoch ------------------------------------------------------------------

    def begin(self, epoch: int) -> None:
        """Draws order and offsets of an epoch, whose windows are read from now on."""
        generator = np.random.default_rng([self.seed, epoch])
        sizes = self.sequences.sizes
        if self.pack:
            queues = self._share_out(sizes, generator)
            self._runs = [Run(queue, np.cumsum(sizes[queue])) for queue in queues if len(queue)]
            sizes = np.array([run.ends[-1] for run in self._runs])
        leads = np.zeros(len(sizes), np.int64)
        if self.offset == "random":
            leads = schedules.draw_leads(sizes, self.length, generator)
        if self.pack:
            queues = [np.arange(row, row + 1) for row in range(len(sizes))]
            queues += [np.arange(0)] * (self.rows - len(sizes))
        else:
            costs = schedules.windows(sizes, leads, self.length)
            queues = self._share_out(costs, generator)
        self.epoch = epoch
        self.schedule: Schedule = Schedule(sizes, leads, queues, self.length)
        self._bounds = self.schedule.bounds(self.context)

    def _share_out(self, costs: np.ndarray, generator: np.random.Generator) -> list[np.ndarray]:
        if self.order == "shuffled":
            return schedules.deal(costs, self.rows, generator)
        return schedules.queue_up(costs, self.rows)

    def __len__(self) -> int:
        """Windows of an epoch, the same for all epochs."""
        return len(self.schedule)

    def __getitem__(self, index: int) -> tuple[Any, np.ndarray, np.ndarray]:
        """Window `index` of the epoch: ``(x, y, sample weight)``."""
        if not 0 <= index < len(self):
            raise IndexError(f"Window {index} of {len(self)} was asked for.")
        batch = _Batch(self.sequences, self.rows, self.context + self.length, self.pack)
        first, stop = (bound[index] for bound in self._bounds)
        for row, unit in enumerate(self.schedule.sequence[index]):
            if unit != NOTHING:
                begin = self.schedule.position[index, row] - self.context  # its step at 0
                for part in self._parts(unit, begin + first[row], begin + stop[row]):
                    batch.add(row, *part, begin, self.context)
        return batch.arrays()

    def _parts(self, unit: int, first: int, stop: int) -> Iterator[tuple[int, int, int, int]]:
        """The sequences among the steps from `first` up to `stop` of what follows each other in a
        row: number, first step, step behind the last one, and where the sequence begins there."""
        if not self.pack:
            yield unit, first, stop, 0
            return
        members, ends = self._runs[unit]
        number = int(np.searchsorted(ends, first, "right"))
        while first < stop:
            end = min(int(ends[number]), stop)
            begin = int(ends[number] - self.sequences.sizes[members[number]])
            yield int(members[number]), first - begin, end - begin, begin
            first, number = end, number + 1
