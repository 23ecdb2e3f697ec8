"""Writes gradient profiles, scalars and images to TensorBoard event files.

Each write opens, appends and closes, synchronously: errors surface where they can be handled, a fit
that raises leaves no handle or thread behind, and everything written is on disk.
"""

import functools
import itertools
import os
import re
import socket
import time
from pathlib import Path
from typing import Any

import numpy as np
from tensorboard.compat.proto import event_pb2, summary_pb2, tensor_pb2, types_pb2
from tensorboard.plugins.image import metadata as image_metadata
from tensorboard.plugins.scalar import metadata as scalar_metadata
from tensorboard.summary.writer.record_writer import RecordWriter
from tensorboard.util import tensor_util

from kbptt.tensorboard import layout, reader

Value = summary_pb2.Summary.Value

_serial = itertools.count()


def profile_value(layer: str, norms: np.ndarray, content: bytes) -> Value:
    """Summary value of one profile `(timesteps,)`, float32, oldest timestep first."""
    return _tensor_value(layout.profile_tag(layer), norms, content)


def lag_value(layer: str, norms: np.ndarray, content: bytes) -> Value:
    """Summary value of the norms by lag `(lags,)`, float32, lag 0 first."""
    return _tensor_value(layout.lag_tag(layer), norms, content)


def state_value(layer: str, state: str, norms: np.ndarray, content: bytes) -> Value:
    """Summary value of the norms of a state, `"h"` or `"c"`, by timestep `(timesteps,)`."""
    return _tensor_value(layout.tensor_tag(layer, layout.STATES[state]), norms, content)


def scalar_value(tag: str, value: float) -> Value:
    """Summary value of one scalar."""
    return Value(tag=tag, tensor=_scalar_tensor(value), metadata=_scalar_metadata())


def image_value(tag: str, png: bytes, width: int, height: int) -> Value:
    """Summary value of one PNG image."""
    metadata = image_metadata.create_summary_metadata(display_name=None, description=None)
    metadata.data_class = summary_pb2.DATA_CLASS_BLOB_SEQUENCE
    image = np.array([str(width).encode(), str(height).encode(), png], dtype=object)
    return _value(tag, image, metadata)


def check_log_dir(log_dir: Any) -> str:
    """Returns `log_dir` as a string if a run could be written there. Creates nothing.

    Raises:
        ValueError: If `log_dir` is not a path, is a file or below one, or is not writable.
    """
    path = check_path(log_dir)
    if is_remote(path):
        return path
    existing = Path(path).absolute()
    while not existing.exists():
        existing = existing.parent
    if not os.access(existing, os.W_OK | os.X_OK):
        raise ValueError(
            f"Cannot write to log directory {path!r}: no permission to write in "
            f"'{existing}'. Choose a different directory."
        )
    return path


def check_path(log_dir: Any) -> str:
    """Returns `log_dir` as a string, or raises `ValueError` if it cannot be a directory."""
    if not isinstance(log_dir, str | os.PathLike) or not os.fspath(log_dir):
        raise ValueError(
            "Invalid value for argument `log_dir`. Expected the path of a directory. "
            f"Received: log_dir={log_dir!r} (of type {type(log_dir).__name__})."
        )
    path = os.fspath(log_dir)
    if not is_remote(path):
        for part in (Path(path), *Path(path).parents):
            if part.exists() and not part.is_dir():
                raise ValueError(
                    f"Invalid value for argument `log_dir`. Expected a directory, but '{part}' is "
                    f"a file. Received: log_dir={path!r}. Choose a different directory."
                )
    return path


def numbered(log_dir: str) -> str:
    """The first of `<log_dir>_2`, `<log_dir>_3`, … that does not exist or is empty."""
    base = log_dir.rstrip("/\\") or log_dir
    for number in itertools.count(2):
        candidate = f"{base}_{number}"
        if not os.path.isdir(candidate) or not os.listdir(candidate):
            return candidate
    raise AssertionError("unreachable")


class EventWriter:
    """Appends events to one new event file in `log_dir`.

    Args:
        log_dir: String. The run's directory; created when first needed. A path with a scheme, such
            as `gs://…`, is written through TensorFlow's file systems.
        suffix: String. End of the file's name: `reader.SUFFIX` for the only writer of a run's
            profiles, whose steps distinguish runs. Defaults to `reader.OTHER_SUFFIX`.
    """

    def __init__(self, log_dir: str, suffix: str = reader.OTHER_SUFFIX):
        self.log_dir = log_dir
        self._suffix = suffix
        self._path = None

    def write(self, step: int, values: list[Value]) -> None:
        """Appends one event. Raises `OSError` (or TensorFlow's, for a remote path) if it cannot."""
        now, summary = time.time(), summary_pb2.Summary(value=values)
        events = [event_pb2.Event(wall_time=now, step=step, summary=summary)]
        if self._path is None:
            events.insert(0, event_pb2.Event(wall_time=now, file_version="brain.Event:2"))
            self._path = self._new_path()
        try:
            with _open(self._path) as file:
                records = RecordWriter(file)
                for event in events:
                    records.write(event.SerializeToString())
        except Exception:
            # The file may end inside a record, and nothing behind that can be read: the next one
            # goes to a new file.
            self._path = None
            raise

    def exists(self) -> bool:
        """Whether there is a file that the next event would be appended to."""
        if self._path is None:
            return False
        return is_remote(self._path) or os.path.exists(self._path)

    def _new_path(self) -> str:
        if not is_remote(self.log_dir):
            os.makedirs(self.log_dir, exist_ok=True)
        host = re.sub(r"[^\w-]", "_", socket.gethostname())
        # TensorBoard reads files in the order of their names: 10 would come before 9.
        number = f"{os.getpid()}.{next(_serial):06d}"
        name = f"events.out.tfevents.{int(time.time()):010d}.{host}.{number}"
        return f"{self.log_dir.rstrip('/')}/{name}{self._suffix}"


def _open(path: str) -> Any:
    if is_remote(path):
        import tensorflow as tf

        return tf.io.gfile.GFile(path, "ab")
    return open(path, "ab")


def is_remote(path: str) -> bool:
    """Whether a path has a scheme, such as `gs://…`."""
    return "://" in path


@functools.cache
def _scalar_metadata() -> summary_pb2.SummaryMetadata:
    """The same for all: a message copies those it is made of."""
    metadata = scalar_metadata.create_summary_metadata(display_name=None, description=None)
    metadata.data_class = summary_pb2.DATA_CLASS_SCALAR
    return metadata


def _scalar_tensor(value: float) -> tensor_pb2.TensorProto:
    """What `make_tensor_proto` makes of a float32, which takes several times as long."""
    return tensor_pb2.TensorProto(
        dtype=types_pb2.DT_FLOAT,
        tensor_shape={},
        float_val=[np.float32(value)],
    )


def _tensor_value(tag: str, norms: np.ndarray, content: bytes) -> Value:
    metadata = summary_pb2.SummaryMetadata(
        # Without a data class TensorBoard does not list the series.
        data_class=summary_pb2.DATA_CLASS_TENSOR,
        plugin_data=summary_pb2.SummaryMetadata.PluginData(
            plugin_name=layout.PLUGIN, content=content
        ),
    )
    return _value(tag, np.asarray(norms, np.float32), metadata)


def _value(tag: str, value: Any, metadata: summary_pb2.SummaryMetadata) -> Value:
    return Value(tag=tag, tensor=tensor_util.make_tensor_proto(value), metadata=metadata)
