"""Sequences as a stream reads them, wherever their steps are stored."""

import dataclasses
from collections.abc import Sequence
from typing import Any, Literal, TypeAlias

import numpy as np

from kbptt import _checks

Target: TypeAlias = Literal["next", "last"] | None


@dataclasses.dataclass(frozen=True)
class Sequences:
    """Sequences of steps, each a part of an array of which nothing is read before `read`.

    Attributes:
        x: Arrays ``(timesteps, …)``, equal in dtype and in the shape of a timestep.
        y: Arrays of targets, likewise; for `target` "last" one array, ``(sequences, …)``.
        target: ``"next"``: that of a step is the `x` of the step after; None: `y` has one for each
            step; ``"last"``: one for each sequence.
        of: Number of the array that each sequence is a part of.
        start: Where it begins there.
        sizes: Its steps.
    """

    x: Sequence[Any]
    y: Sequence[Any]
    target: Target
    of: np.ndarray
    start: np.ndarray
    sizes: np.ndarray

    def __len__(self) -> int:
        return len(self.sizes)

    @property
    def targets(self) -> Sequence[Any]:
        """The arrays that targets are read from."""
        return self.x if self.target == "next" else self.y

    def divided(self, parts: int) -> "Sequences":
        """The first sequence in contiguous parts of equal length, or but for one step."""
        bounds = np.arange(parts + 1) * int(self.sizes[0]) // parts
        start, sizes = bounds[:-1], np.diff(bounds)
        start, sizes = start[sizes > 0], sizes[sizes > 0]
        of = np.zeros(len(sizes), np.int64)
        return dataclasses.replace(self, of=of, start=start, sizes=sizes)

    def inputs(self) -> "Sequences":
        """All steps of all arrays, those without a target too, with zeros for targets."""
        zeros = np.zeros(len(self.x), np.float32)
        sizes = np.array([len(array) for array in self.x], np.int64)
        of, start = np.arange(len(sizes)), np.zeros(len(sizes), np.int64)
        return Sequences(self.x, [zeros], "last", of, start, sizes)

    def read(self, sequence: int, first: int, stop: int) -> tuple[Any, Any]:
        """x of the steps from `first` up to `stop`, and their targets; None with "last"."""
        of, start = self.of[sequence], self.start[sequence]
        inputs = self.x[of][start + first : start + stop]
        if self.target == "last":
            return inputs, None
        if self.target == "next":
            return inputs, self.x[of][start + first + 1 : start + stop + 1]
        return inputs, self.y[of][start + first : start + stop]


def gather(x: Any, y: Any, target: Target) -> Sequences:
    """The `Sequences` of the arguments of `kbptt.data.Streams`, each of a whole array."""
    _checks.one_of("target", target, ("next", "last", None))
    if (y is None) != (target == "next"):
        raise ValueError(
            "`target='next'` takes its targets from `x` and expects no `y`; `target=None` and "
            f"'last' expect `y`. Received: target={target!r}, y of type {type(y).__name__}."
        )
    if isinstance(x, (tuple, dict)):
        raise ValueError(
            "`x` expected one array or a list of sequences: models on streams have one input. "
            f"Received a {type(x).__name__}."
        )
    one = not isinstance(x, list)
    if one and target == "last":
        raise ValueError(
            "`target='last'` expected a list of sequences in `x`, one target for each in `y`. "
            f"Received: one array of shape {np.shape(x)}."
        )
    arrays = [_array("x", a) for a in ([x] if one else x)]
    if not arrays:
        raise ValueError("`x` expected at least one sequence. Received an empty list.")
    _check_alike("x", arrays)
    targets: list[Any] = []
    if target == "last":
        targets = [np.atleast_1d(np.asarray(y))]
        if len(targets[0]) != len(arrays):
            raise ValueError(
                f"`y` expected one target per sequence, {len(arrays)}. Received {len(targets[0])}."
            )
    elif target is None:
        targets = [_array("y", a) for a in ([y] if one else y)]
        _check_alike("y", targets)
        pairs = zip(arrays, targets, strict=False)
        if len(arrays) != len(targets) or any(len(a) != len(b) for a, b in pairs):
            raise ValueError(
                "`y` expected as many arrays and timesteps as `x`. Received timesteps "
                f"{_few(map(len, arrays))} in `x`, {_few(map(len, targets))} in `y`."
            )
    sizes = np.array([len(a) - (target == "next") for a in arrays], np.int64)
    if sizes.min() < 1:
        raise ValueError(
            f"`x` expected sequences of {2 if target == 'next' else 1} or more timesteps. Received "
            f"{sizes.min() + (target == 'next')}."
        )
    of, start = np.arange(len(arrays)), np.zeros(len(arrays), np.int64)
    return Sequences(arrays, targets, target, of, start, sizes)


def _array(name: str, value: Any) -> Any:
    """An array as it is, memory-mapped ones too; numbers in lists as one."""
    is_array = hasattr(value, "shape") and isinstance(getattr(value, "dtype", None), np.dtype)
    array = value if is_array else np.asarray(value)
    if len(array.shape) < 1 or array.dtype == object:
        raise ValueError(
            f"`{name}` expected an array (timesteps, …) or a list of such arrays. Received "
            f"{type(value).__name__} of shape {tuple(array.shape)}, dtype {array.dtype}."
        )
    return array


def _check_alike(name: str, arrays: list[Any]) -> None:
    kinds = {(tuple(a.shape[1:]), np.dtype(a.dtype).name) for a in arrays}
    if len(kinds) > 1:
        raise ValueError(
            f"`{name}` expected sequences of the same dtype and shape per timestep. Received "
            f"{_few(sorted(map(str, kinds)))}."
        )


def _few(values: Any) -> str:
    values = list(map(str, values))
    return ", ".join(values[:6]) + ", …" * (len(values) > 6)
