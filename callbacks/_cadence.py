"""When `GradientFlow` logs: every so many steps or epochs, less often as a run gets longer."""

from collections.abc import Callable

from kbptt.callbacks._options import Frequency


class Cadence:
    """Counts the steps, or epochs, of a run.

    Attributes:
        by_epoch: Whether epochs are counted.
    """

    def __init__(self) -> None:
        self._stretch = 1
        self._records = 0

    def start(self, frequency: Frequency, max_records: int, steps: int | None) -> None:
        """Begins a `fit`, whose first step (or epoch) is logged.

        Args:
            frequency: Steps from one record to the next, or "epoch".
            max_records: After this many records, and after each further half as many, the interval
                doubles.
            steps: Of an epoch, if they are known.
        """
        self.by_epoch: bool = frequency == "epoch"
        self._frequency = 1 if self.by_epoch else int(frequency)
        self._max_records = max_records
        self._steps = steps
        self._logged_at: int | None = None
        self._last_batch = -1
        self._seen = self._interval() - 1

    def _interval(self) -> int:
        return self._stretch * self._frequency

    def begin_epoch(self) -> None:
        self._last_batch = -1

    def ends_with(self, batch: int, together: int) -> bool:
        """Whether a record is due after the steps that begin.

        Args:
            batch: Number of the first of them in its epoch.
            together: How many run before the next hook is called.
        """
        if not self.by_epoch:
            return self._seen + together >= self._interval()
        if self._seen + 1 < self._interval():
            return False
        # Of an epoch of unknown length the first step stands for the last.
        return batch + together >= self._steps if self._steps is not None else batch == 0

    def end_batch(self, batch: int, now: Callable[[], int]) -> int | None:
        """The step to log after this batch, the last of those that ran together, or None."""
        units, self._last_batch = batch - self._last_batch, batch
        return None if self.by_epoch else self._count(units, now)

    def end_epoch(self, now: Callable[[], int]) -> int | None:
        """The step to log after this epoch, or None."""
        self._steps = self._last_batch + 1
        return self._count(1, now) if self.by_epoch else None

    def _count(self, units: int, now: Callable[[], int]) -> int | None:
        self._seen += units
        interval = self._interval()
        if self._seen < interval:
            return None
        step = now()  # only here, since it waits for the device
        if not self.by_epoch and self._logged_at is not None:
            # A batch is not always a step: gradient accumulation, skipped steps; and Keras counts
            # the last batches of an epoch as a whole execution.
            self._seen = step - self._logged_at
            if self._seen < interval:
                return None
        self._seen %= interval
        self._logged_at = step - self._seen
        return step

    def recorded(self) -> None:
        """Counts a record, after which the interval may double."""
        self._records += 1
        if self._records >= self._max_records:
            self._stretch *= 2
            self._records = self._max_records // 2
