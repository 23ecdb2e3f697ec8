"""Where the gradient of a truncated sequence starts, enters and ends: the only definition.

TBPTT(k1 = `stride`, k2 = `length`) (guide 1.2) divides time into blocks of `stride` steps, counted
from the end of the sequence or from its start. A window ends with each block: the losses of that
block enter it, and it goes back over `length` steps. The incomplete block is the first one
(`align="end"`) or the last one (`align="start"`).

         stride    stride    stride                      length = 5, stride = 3, align = "end"
    ┌──┬─────────┬─────────┬─────────┐
    │      starts│    entries    ends│                   the last window: starts = T − 5,
    └──┴─────────┴─────────┴─────────┘                   entries = T − 3, ends = T

The loops (C, TensorFlow, automatic differentiation), the closed forms of `kbptt.analysis`, the
edges in TensorBoard and the reports all read it. NumPy alone: TensorBoard loads this module.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, Literal, Protocol, TypeAlias

import numpy as np

Align: TypeAlias = Literal["start", "end"]

LARGEST = 2**31 - 1  # what an int32 tensor of a time axis can hold


class Division(Protocol):
    """How time is divided: a `kbptt.truncation.Truncation`, or the options of a loop.

    Attributes:
        length: Timesteps that a window reaches back; None is the whole sequence.
        stride: Timesteps between the ends of two windows; None is `length`.
        align: `"end"` or `"start"`: the side from which windows are counted.
    """

    @property
    def length(self) -> int | None: ...
    @property
    def stride(self) -> int | None: ...
    @property
    def align(self) -> str: ...


@dataclasses.dataclass(frozen=True)
class Windows:
    """The windows of one sequence.

    Sizes are integers, or integer tensors of a backend if `timesteps` is one; the arrays
    `starts`, `entries`, `ends` and `edges` need integers.

    Attributes:
        timesteps: T.
        length: Timesteps that a window goes back, at most those of `reach` blocks.
        stride: Timesteps of a block, at most T.
        count: Number of windows and of blocks.
        reach: Number of blocks that a window touches.
        front: Timesteps that the first block has too few.
        back: Timesteps that the last block has too few.
        overlapping: Boolean. Whether a window goes back into the block before its own.
    """

    timesteps: Any
    length: Any
    stride: Any
    count: Any
    reach: Any
    front: Any
    back: Any
    overlapping: bool

    def start(self, window: Any) -> Any:
        """The first timestep of a window; below 0 where it reaches over the start."""
        return self.end(window) - self.length

    def entry(self, window: Any) -> Any:
        """The first timestep whose loss enters the window."""
        return self.end(window) - self.stride

    def end(self, window: Any) -> Any:
        """The timestep after the last one of a window; above T in a block that is not filled."""
        return (window + 1) * self.stride - self.front

    @property
    def starts(self) -> np.ndarray:
        """`start` of every window, within the sequence: int64 `(count,)`."""
        return self._within(self.start)

    @property
    def entries(self) -> np.ndarray:
        """`entry` of every window, within the sequence: int64 `(count,)`."""
        return self._within(self.entry)

    @property
    def ends(self) -> np.ndarray:
        """`end` of every window, within the sequence: int64 `(count,)`."""
        return self._within(self.end)

    @property
    def edges(self) -> np.ndarray:
        """Timesteps t > 0 from which no gradient flows to t − 1: int64. None if windows overlap."""
        return np.empty(0, np.int64) if self.overlapping else self.starts[1:]

    def _within(self, bound: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        return np.clip(bound(np.arange(self.count, dtype=np.int64)), 0, self.timesteps)


def length_of_last(timesteps: int, division: Division) -> int | None:
    """Length of the last window of a sequence; None without windows.

    Counted from the start, it is as much shorter as the losses of its block are fewer.
    """
    return division.length and division.length - of(timesteps, division).back


def of(timesteps: Any, division: Division, minimum: Callable[[Any, Any], Any] = min) -> Windows:
    """Divides a sequence into windows.

    Args:
        timesteps: Number of timesteps T: an integer, or an integer tensor where it is known only
            when the graph runs.
        division: A `kbptt.truncation.Truncation`, or anything with its `length`, `stride` and
            `align`.
        minimum: The smaller of two sizes; for a tensor that of its backend. Defaults to `min`.
    """
    known = isinstance(timesteps, int | np.integer)
    length = division.length
    if length is None or (known and timesteps == 0):
        return Windows(timesteps, timesteps, timesteps, 1, 1, 0, 0, False)
    stride = division.stride or length
    blocks = -(-length // stride)
    overlapping = blocks > 1 and not (known and stride >= timesteps)
    length, stride, blocks = (min(size, LARGEST) for size in (length, stride, blocks))
    # A window may be much longer than the sequence.
    stride = minimum(stride, timesteps)
    count = -(-timesteps // stride)
    reach = minimum(blocks, count) if overlapping else 1
    unfilled = count * stride - timesteps
    front, back = (unfilled, 0) if division.align == "end" else (0, unfilled)
    length = minimum(length, reach * stride)
    return Windows(timesteps, length, stride, count, reach, front, back, overlapping)
