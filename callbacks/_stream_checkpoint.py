"""The file from which training on a stream goes on."""

import json
import os
import tempfile
import zipfile
import zlib
from typing import Any, NamedTuple

import keras
import numpy as np

from kbptt.callbacks import _substitution
from kbptt.data import Streams
from kbptt.layers import find
from kbptt.streams.rows import Rows

_VERSION = 1
# What NumPy raises for a file that is damaged or another one.
UNREADABLE = (OSError, KeyError, TypeError, ValueError, EOFError, zipfile.BadZipFile, zlib.error)


class Checkpoint(NamedTuple):
    """What a file holds.

    Attributes:
        path: The file.
        epoch: Keras's number of the epoch that training is in.
        position: Windows that the model was trained on.
        data: The `fingerprint` of the `Streams`.
        variables: Names and values of what changes in training.
        states: What `Rows.everything` returned.
    """

    path: str
    epoch: int
    position: int
    data: dict[str, Any]
    variables: list[tuple[str, np.ndarray]]
    states: list[np.ndarray]

    def check_data(self, data: Streams) -> None:
        """Raises `ValueError` unless `data` are those that the file was written for."""
        now = data.fingerprint()
        different = [name for name, value in now.items() if self.data.get(name) != value]
        if different:
            name = different[0]
            raise ValueError(
                f"The file {self.path} belongs to different Streams: `{name}` is {now[name]!r}, "
                f"and was {self.data.get(name)!r}. Remove the file to start over."
            )

    def restore(self, model: keras.Model, rows: Rows) -> None:
        """Sets the variables of a model in `fit`, and its states.

        Raises:
            ValueError: If the model, its optimizer or the callbacks are others.
        """
        variables = _variables(model)
        # Names differ from process to process.
        now = [(name, tuple(v.shape)) for name, v in variables]
        saved = [(name, value.shape) for name, value in self.variables]
        first = next(
            (p for p in _pairs(now, saved) if not p[0] or not p[1] or p[0][1] != p[1][1]), None
        )
        if first is not None:
            raise ValueError(
                f"The file {self.path} belongs to a different model, optimizer, or list of "
                f"callbacks. Expected {_describe(first[0])}. Received {_describe(first[1])}. "
                "Remove the file to start over."
            )
        for (_, variable), (_, value) in zip(variables, self.variables, strict=True):
            variable.assign(value)
        rows.set_everything(self.states)


def check_writable(path: str) -> None:
    """Raises `OSError` now rather than after an epoch if the file cannot be written."""
    folder = os.path.dirname(os.path.abspath(path))
    os.makedirs(folder, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder):
        pass


def write(path: str, model: keras.Model, rows: Rows, data: Streams, epoch: int) -> None:
    """Replaces the file at once: whenever the process is killed, one of both is whole."""
    variables = _variables(model)
    header = {
        "version": _VERSION,
        "epoch": epoch,
        "position": data.position,
        "data": data.fingerprint(),
        "variables": [name for name, _ in variables],
    }
    arrays = {f"variable_{i}": _array(v) for i, (_, v) in enumerate(variables)}
    arrays |= {f"state_{i}": np.asarray(state) for i, state in enumerate(rows.everything())}
    temporary = f"{path}.{os.getpid()}.tmp"
    try:
        with open(temporary, "wb") as file:
            np.savez(file, header=np.array(json.dumps(header)), **arrays)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        if os.path.exists(temporary):
            os.remove(temporary)


def read(path: str) -> Checkpoint:
    """Reads a file that `write` has written.

    Raises:
        ValueError: If it is another kind of file.
    """
    try:
        with open(path, "rb") as opened, np.load(opened, allow_pickle=False) as file:
            header = json.loads(str(file["header"]))
            if header["version"] != _VERSION:
                raise ValueError(f"its version is {header['version']}, not {_VERSION}")
            names = header["variables"]
            variables = [(name, file[f"variable_{i}"]) for i, name in enumerate(names)]
            states = [file[f"state_{i}"] for i in range(len(file.files) - 1 - len(names))]
            return Checkpoint(
                path, header["epoch"], header["position"], header["data"], variables, states
            )
    except UNREADABLE as error:
        raise ValueError(
            f"StreamState cannot read {path}. Expected a file written by it, or none: {error}."
        ) from error


def _variables(model: keras.Model) -> list[tuple[str, Any]]:
    """What changes in training, by name: weights, seeds, metrics, optimizer, clips, layers."""
    memory = _substitution.of(model).clipped
    layers = [v for layer in find.truncated_layers(model) for v in layer.changing_variables()]
    groups = [
        *model.variables,
        *model.metrics_variables,
        *model.optimizer.variables,
        *([] if memory is None else memory.memory.all_variables()),
        *layers,
    ]
    unique = {id(v): v for v in groups}
    return [(getattr(v, "path", v.name), v) for v in unique.values()]


def _array(variable: Any) -> np.ndarray:
    value = keras.ops.convert_to_numpy(variable)
    # NumPy's files have no bfloat16, every value of which is one of float32.
    return value.astype(np.float32) if value.dtype.kind == "V" else value


def _pairs(left: list[Any], right: list[Any]) -> list[tuple[Any, Any]]:
    size = max(len(left), len(right))
    padded = (side + [None] * (size - len(side)) for side in (left, right))
    return list(zip(*padded, strict=True))


def _describe(variable: Any) -> str:
    return "nothing more" if variable is None else f"{variable[0]} of shape {variable[1]}"
