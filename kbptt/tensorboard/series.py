"""The profiles of a run with their truncation windows, cached for the *Gradient flow* tab."""

import collections
import contextlib
import threading
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from kbptt.analysis import adaptive, gradient_flow
from kbptt.analysis.evidence import LayerEvidence
from kbptt.analysis.thresholds import Thresholds
from kbptt.tensorboard import layout
from kbptt.tensorboard.ragged import Ragged
from kbptt.truncation import windows

_MAX_CUTS = 60  # more lines would hide the heatmap
_CACHE_BYTES = 2**30


class Records:
    """The records of one run and tag.

    Args:
        steps: `(records,)`, strictly increasing.
        norms: `(records, timesteps)` or, by lag, `(records, lags)` with lag 0 last.
        damaged: Number of records that hold no profile.

    Attributes:
        bytes: Memory taken.
        sampled: Whether there may be more records than these.
    """

    def __init__(self, steps: np.ndarray, norms: Ragged, damaged: int = 0):
        self.steps = steps
        self.norms = norms
        self.damaged = damaged
        self.sampled = False
        self.bytes: int = 4 * norms.size + 200 * len(steps)  # float32, and the array objects
        self._overview: tuple[Any, dict[str, Any]] = None, {}

    def overview(self, layer: LayerEvidence, bounds: Thresholds) -> dict[str, Any]:
        """`layer.overview` of these records, cached: it reads them all."""
        lags = None if layer.by_lag is None else layer.by_lag.tobytes()
        key = layer.per_timestep, list(layer.windows), layer.window, lags, bounds
        if self._overview[0] != key:
            self._overview = key, layer.overview(bounds)
        return self._overview[1]


class Series:
    """The profiles of one run and tag, and the windows in force when they were written.

    Attributes:
        steps, norms, damaged, sampled: Those of `Records`.
        kind: The `layout.Kind`.
        per_timestep: Whether every timestep has an output.
    """

    def __init__(
        self,
        records: Records,
        kind: layout.Kind,
        content: dict[str, Any],
        lengths: list[tuple[int, float]],
        overlap: bool,
    ):
        self._records = records
        self.steps: np.ndarray = records.steps
        self.norms: Ragged = records.norms
        self.damaged: int = records.damaged
        self.sampled: bool = records.sampled
        self.kind: layout.Kind = kind
        self.per_timestep: bool = content.get("loss") == "all"
        # Lengths that `AdaptiveTruncation` chose, in force after their steps.
        lengths = [(step, length) for step, length in lengths if 1 <= length < np.inf]
        self._changes = [step for step, _ in lengths]
        chosen = [int(length) for _, length in lengths]
        # The window K to show and how it divides time: before the first change, then after each.
        first = layout.division(content)
        self._windows: list[tuple[int | None, layout.Division]] = [(first.length, first)]
        self._windows += [(k, layout.Division(*adaptive.window(k, overlap))) for k in chosen]

    def window(self, step: int) -> int | None:
        """Length of the windows in force when the profile of this step was measured, or None."""
        return self._in_force(step)[0]

    def judged_window(self, step: int, size: int) -> int | None:
        """Length of the last window of a profile of this size, to which its verdict is confined.

        None by lag, which is measured with full BPTT.
        """
        if self.kind.by_lag or not self.kind.gradient:
            return None
        return windows.length_of_last(size, self._in_force(step)[1])

    def overview(self, layer: LayerEvidence, bounds: Thresholds) -> dict[str, Any]:
        """`layer.overview`, cached with the records that the evidence is of."""
        return self._records.overview(layer, bounds)

    def cuts(self, step: int, size: int) -> list[int]:
        """First columns after a cut in a profile of this size; by lag, the first in the window."""
        length, division = self._in_force(step)
        if not self.kind.gradient:
            return []
        if self.kind.by_lag:
            return [size - length] if length and length < size else []
        edges = windows.of(size, division).edges
        return edges.tolist() if edges.size <= _MAX_CUTS else []

    def _in_force(self, step: int) -> tuple[int | None, layout.Division]:
        # The lag profile of a step led to the length that is written with it.
        side = "right" if self.kind.by_lag else "left"
        return self._windows[int(np.searchsorted(self._changes, step, side))]


def pieces(series: Series, steps: np.ndarray) -> list[list[Any]]:
    """`[[row, cuts], …]`: the rows of a grid from which the cuts are others than before."""
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
    """Keeps the records used last, so that moving a slider does not read all data again."""

    def __init__(self, size: int = _CACHE_BYTES):
        self._size = size
        # Least recently used first: key -> (version, value).
        self._entries: collections.OrderedDict[Any, tuple[Any, Any]] = collections.OrderedDict()
        self._lock = threading.Lock()  # TensorBoard answers every request in a thread of its own
        self._loading: dict[Any, threading.Lock] = collections.defaultdict(threading.Lock)

    def known(self, versions: Mapping[Any, Any]) -> dict[Any, Any]:
        """The entries of these keys and versions that are there, also while others are loaded."""
        with self._lock:
            found = {}
            for key, version in versions.items():
                entry = self._entries.get(key)
                if entry is not None and entry[0] == version:
                    self._entries.move_to_end(key)
                    found[key] = entry[1]
        return found

    def keep(self, versions: Mapping[Any, Any], loaded: Mapping[Any, Any]) -> None:
        """Makes entries, in place of those used least recently."""
        with self._lock:
            for key, value in loaded.items():
                if isinstance(value, Records):
                    self._entries[key] = versions[key], value
                    self._entries.move_to_end(key)
            while self._bytes() > self._size and len(self._entries) > 1:
                self._entries.popitem(last=False)

    def get(
        self, versions: Mapping[Any, Any], load: Callable[[list[Any]], Mapping[Any, Any]]
    ) -> dict[Any, Any]:
        """The entries of these keys and versions.

        Args:
            versions: The version of each key.
            load: Returns the values of keys that are missing, called once for all threads. An
                exception as a value is returned and not kept.
        """
        with contextlib.ExitStack() as stack:
            for key in sorted(versions):  # in one order, so that no two threads wait for each other
                with self._lock:
                    loading = self._loading[key]
                stack.enter_context(loading)
            found = self.known(versions)
            missing = [key for key in versions if key not in found]
            loaded = load(missing) if missing else {}
            self.keep(versions, loaded)
        return {**found, **loaded}

    def _bytes(self) -> int:
        return sum(r.bytes for _, r in self._entries.values())
