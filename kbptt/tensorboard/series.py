"""What the *Gradient flow* tab serves: the profiles of a run, with their windows, kept at hand."""

import collections
import threading
from collections.abc import Callable
from typing import Any

import numpy as np

from kbptt.analysis import gradient_flow
from kbptt.tensorboard import layout
from kbptt.tensorboard.ragged import Ragged

_MAX_CUTS = 60  # more would hide what lies between them
_CACHE_BYTES = 2**30


class Records:
    """What the event files of a run hold for one tag.

    Args:
        steps: `(records,)`, strictly increasing.
        norms: `(records, timesteps)` or, by lag, `(records, lags)` with lag 0 last.
        damaged: Number of records that hold no profile.
    """

    def __init__(self, steps: np.ndarray, norms: Ragged, damaged: int = 0):
        self.steps, self.norms, self.damaged = steps, norms, damaged
        self._overview: tuple[Any, dict[str, Any]] = None, {}

    def overview(self, windows: list[int | None]) -> dict[str, Any]:
        """`gradient_flow.overview` of the records, under these windows; computed once.

        Takes part: every record with a timestep.
        """
        if self._overview[0] != windows:
            timed = [(v, w) for v, w in zip(self.norms.vectors, windows, strict=True) if len(v)]
            self._overview = windows, gradient_flow.overview(*zip(*timed, strict=True))
        return self._overview[1]


class Series:
    """The profiles of one run and tag, and the windows in force when they were written.

    Attributes:
        steps, norms, damaged: Those of `Records`.
        by_lag: Boolean.
    """

    def __init__(
        self,
        records: Records,
        by_lag: bool,
        content: dict[str, Any],
        lengths: list[tuple[int, float]],
        overlap: bool,
    ):
        self._records = records
        self.steps, self.norms = records.steps, records.norms
        self.damaged, self.by_lag = records.damaged, by_lag
        self._first = content.get("window")
        self._stride = content.get("stride", self._first)
        self._align = "start" if content.get("align") == "start" else "end"
        # Sliding windows overlap: no timestep is a sharp cut.
        self._first_is_sharp, self._sharp = not content.get("stride"), not overlap
        # Lengths that `AdaptiveTruncation` chose, in force after their steps.
        lengths = [(step, int(length)) for step, length in lengths if 1 <= length < np.inf]
        self._changes = [step for step, _ in lengths]
        self._lengths = [length for _, length in lengths]

    def window(self, step: int) -> int | None:
        """Length of the windows under which the profile of this step came about, None without."""
        number = self._number(step)
        return self._lengths[number] if number >= 0 else self._first

    def judged_window(self, step: int, size: int) -> int | None:
        """The window that the verdict on this step's profile of this size is confined to: the last.

        By lag nothing is cut: that is measured with full BPTT.
        """
        window = None if self.by_lag else self.window(step)
        if window is None or self._align == "end" or self._number(step) >= 0:
            return window
        # Counted from the start, the last window is as much shorter as its losses are fewer.
        stride = min(self._stride, window)
        return window - stride + (size % stride or stride)

    def overview(self) -> dict[str, Any]:
        """`gradient_flow.overview` of all profiles."""
        sizes = map(len, self.norms.vectors)
        return self._records.overview(list(map(self.judged_window, self.steps.tolist(), sizes)))

    def cuts(self, step: int, size: int) -> list[int]:
        """Columns of a profile of this size at whose beginning the gradient is cut.

        By lag: the one from which on lags are within the window.
        """
        number, window = self._number(step), self.window(step)
        if self.by_lag:
            return [size - window] if window and window < size else []
        sharp, align = (self._sharp, "end") if number >= 0 else (self._first_is_sharp, self._align)
        edges = layout.window_edges(size, window, align) if sharp else []
        return edges if len(edges) <= _MAX_CUTS else []

    def _number(self, step: int) -> int:
        """Which of the lengths is in force; -1: that of the metadata.

        The lag profile of a step led to the length that is written with it.
        """
        side = "right" if self.by_lag else "left"
        return int(np.searchsorted(self._changes, step, side)) - 1


def pieces(series: Series, steps: np.ndarray) -> list[list]:
    """`[[row, cuts], …]`: from which row of a grid on the gradient is cut where."""
    pieces = []
    for row, step in enumerate(steps.tolist()):
        cuts = series.cuts(step, series.norms.shape[1])
        if not pieces or pieces[-1][1] != cuts:
            pieces.append([row, cuts])
    return pieces


def fitted_line(norms: np.ndarray, window: int | None) -> list[list[float]] | None:
    """Ends `[t, log10 norm]` of the least-squares line through the last window.

    Its slope is the decay.
    """
    first = 0 if window is None else max(norms.size - window, 0)
    decay = gradient_flow.decay_per_step(norms[first:])
    usable = first + np.flatnonzero(np.isfinite(norms[first:]) & (norms[first:] > 0))
    if not decay > 0:  # NaN without a fit
        return None
    level = np.log10(norms[usable].astype(np.float64)).mean()
    ends = usable[[0, -1]].astype(np.float64)
    values = level - np.log10(decay) * (ends - usable.mean())
    return np.stack([ends, values], axis=1).tolist()


class Cache:
    """The series used last: moving a slider must not read all data each time."""

    def __init__(self, size: int = _CACHE_BYTES):
        self._size = size
        # From the longest unused to the latest: key -> (version, value).
        self._entries: collections.OrderedDict[Any, tuple[Any, Any]] = collections.OrderedDict()
        self._lock = threading.Lock()  # TensorBoard answers every request in a thread of its own
        self._loading: dict[Any, threading.Lock] = collections.defaultdict(threading.Lock)

    def get(self, key: Any, version: Any, load: Callable[[], Records]) -> Records:
        """The entry of this version, else what `load` returns, called once for all who wait."""
        with self._lock:
            loading = self._loading[key]
        with loading:
            with self._lock:
                entry = self._entries.get(key)
                if entry is not None and entry[0] == version:
                    self._entries.move_to_end(key)
                    return entry[1]
            value = load()
            with self._lock:
                self._entries[key] = version, value
                self._entries.move_to_end(key)
                while self._bytes() > self._size and len(self._entries) > 1:
                    self._entries.popitem(last=False)
        return value

    def _bytes(self) -> int:
        # float32, and some bytes for each vector's object.
        return sum(4 * r.norms.size + 200 * len(r.steps) for _, r in self._entries.values())
