"""Reads gradient profiles back from event files, without TensorFlow and without TensorBoard."""

import contextlib
import glob
import os
import struct
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np

from kbptt.tensorboard import layout
from kbptt.tensorboard.ragged import Ragged

# Ends of the names of event files: of `GradientFlow`, and of other callbacks, which may write lag
# profiles and scalars to the same directory.
SUFFIX = ".gradient_flow"
OTHER_SUFFIX = ".kbptt"

# Bounds of kbptt's records: 64 MiB of float32, and the exact integers of a browser.
MAX_TIMESTEPS = 2**24
MAX_STEP = 2**53

Profiles = tuple[np.ndarray, np.ndarray]


def read(log_dir: str | os.PathLike[str], by_lag: bool = False) -> dict[str, Profiles]:
    """Reads the gradient profiles that `GradientFlow` wrote into one run directory.

    Args:
        log_dir: Directory of one run (its subdirectories are not searched).
        by_lag: Boolean. Read the gradients by lag, written by `AdaptiveTruncation` and by
            `GradientFlow` with `lag_data`, instead of those by timestep. Defaults to False.

    Returns:
        A dict from the layer's name to `(steps, norms)`: the training steps `(records,)`, strictly
        increasing, and the norms `(records, timesteps)`, or `(records, lags)` with lag 0 first. If
        several records have the same step, the last one counts. If the number of timesteps (lags)
        varied, `norms` is a masked array aligned at the last timestep (lag 0). Records without a
        valid profile are skipped, with one warning.

    Raises:
        FileNotFoundError: If `log_dir` is not a directory.
    """
    scan = Scan.of(log_dir)
    found = scan.lags if by_lag else scan.profiles
    if by_lag:
        # Aligned at lag 0.
        found = {
            layer: {s: v[::-1] for s, v in vectors.items()} for layer, vectors in found.items()
        }
    stacked = {layer: stack(vectors) for layer, vectors in sorted(found.items())}
    if by_lag:
        return {layer: (steps, norms[:, ::-1]) for layer, (steps, norms) in stacked.items()}
    return stacked


class Scan:
    """Everything that kbptt's callbacks wrote into one run directory.

    If several records have the same step, the last one counts.

    Attributes:
        profiles: Norms `(timesteps,)` by layer and step.
        lags: Norms `(lags,)`, lag 0 first, by layer and step.
        contents: The fields of the plugin content of each layer's profiles; those of its lags where
            it has no profiles.
        scalars: Values by (group, name) and step.
    """

    def __init__(self) -> None:
        self.profiles: dict[str, dict[int, np.ndarray]] = {}
        self.lags: dict[str, dict[int, np.ndarray]] = {}
        self.contents: dict[str, dict[str, Any]] = {}
        self.scalars: dict[tuple[str, str], dict[int, float]] = {}
        self._unreadable = 0

    @classmethod
    def of(cls, log_dir: str | os.PathLike[str]) -> "Scan":
        """Reads a directory (its subdirectories are not searched).

        Records without a valid profile are left out, with one warning.

        Raises:
            FileNotFoundError: If `log_dir` is not a directory.
        """
        log_dir = os.fspath(log_dir)
        if not os.path.isdir(log_dir):
            raise FileNotFoundError(f"There is no run directory {log_dir!r}.")
        # Protobuf modules are slow to import, and `last_step` does not need them.
        from google.protobuf import message
        from tensorboard.compat.proto import event_pb2

        scan = cls()
        for path in _event_files(log_dir, SUFFIX, OTHER_SUFFIX):
            for _, record in records(path):
                try:
                    event = event_pb2.Event.FromString(record)
                except message.DecodeError:
                    break  # a damaged file: no later record can be trusted
                for value in event.summary.value:
                    if value.HasField("tensor"):
                        scan._add(event.step, value)
        if scan._unreadable:
            warnings.warn(
                f"Skipped {scan._unreadable} damaged record(s) of {log_dir!r}: expected vectors "
                "of nonnegative norms.",
                stacklevel=3,
            )
        return scan

    def _add(self, step: int, value: Any) -> None:
        if (scalar := layout.statistic_of(value.tag)) is not None:
            number = _array(value.tensor)
            if number is not None and number.shape == () and number.dtype.kind == "f":
                self.scalars.setdefault(scalar, {})[step] = float(number)
            return
        named = layout.kind_of(value.tag)
        if named is None or not named[1].gradient:
            return
        layer, kind = named
        array = _array(value.tensor)
        norms = None if array is None else profile(step, array)
        if norms is None:
            self._unreadable += 1
            return
        found = self.lags if kind.by_lag else self.profiles
        found.setdefault(layer, {})[step] = norms
        if layer not in self.contents or not kind.by_lag:
            self.contents[layer] = layout.parse_content(value.metadata.plugin_data.content)


def _array(tensor: Any) -> np.ndarray | None:
    """The tensor of an event, or None if it is damaged."""
    from tensorboard.util import tensor_util

    from kbptt.tensorboard import guard

    # A tensor with foreign fields can raise anything.
    with contextlib.suppress(Exception):
        if guard.is_sound(tensor):
            return tensor_util.make_ndarray(tensor)
    return None


def profile(step: int, tensor: np.ndarray) -> np.ndarray | None:
    """A record's tensor as float32 profile `(timesteps,)`, or None if it is not one."""
    if tensor.ndim != 1 or tensor.size > MAX_TIMESTEPS or abs(step) > MAX_STEP:
        return None
    if not np.issubdtype(tensor.dtype, np.floating) and not np.issubdtype(tensor.dtype, np.integer):
        return None
    with np.errstate(over="ignore"):
        norms = tensor.astype(np.float32, copy=False)
    return None if (norms < 0).any() else norms


def stack(profiles: dict[int, np.ndarray]) -> Profiles:
    """Sorts `{step: norms}` into `(steps, norms)`, aligned at the last timestep."""
    steps = sorted(profiles)
    return np.array(steps, np.int64), Ragged([profiles[step] for step in steps])[:]


def last_step(log_dir: str) -> int:
    """Largest step of `GradientFlow` in `log_dir`, or -1. Reads only the head of each record."""
    files = _event_files(log_dir, SUFFIX)
    return max((_step(head) for path in files for _, head in records(path, head=24)), default=-1)


def records(path: str, head: int | None = None) -> Iterator[tuple[int, bytes]]:
    """Yields `(length, data)` of every complete record; with `head`, only its first bytes.

    The last record of a killed run may be incomplete; it is left out.
    """
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        while len(prefix := file.read(12)) == 12:
            (length,) = struct.unpack("<Q", prefix[:8])
            end = file.tell() + length + 4
            if end > size:
                return
            yield length, file.read(length if head is None else min(head, length))
            file.seek(end)


def _event_files(log_dir: str, *suffixes: str) -> list[str]:
    pattern = os.path.join(glob.escape(log_dir), "events.out.tfevents.*")
    # By time, then by the serial number within a process: of equal steps the later file counts.
    found = [path for path in glob.glob(pattern) if path.endswith(suffixes)]
    return sorted(found, key=lambda path: (os.path.getmtime(path), path))


def _step(head: bytes) -> int:
    """Step of a serialized `Event`: field 1 is a double (tag 0x09), field 2 a varint (tag 0x10)."""
    if len(head) < 11 or head[0] != 0x09 or head[9] != 0x10:
        # protobuf omits a step of 0; the file's version record has no step either.
        return -1 if len(head) < 10 or head[9] != 0x2A else 0
    step = shift = 0
    for byte in head[10:]:
        step |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            break
    return step
