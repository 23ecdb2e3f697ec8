"""Base class of the callbacks that log a training run to TensorBoard."""

import dataclasses
import math
import warnings
import weakref
from typing import Any

import keras
import numpy as np

from kbptt._attributes import Fixed, Option
from kbptt.callbacks import _run_directory
from kbptt.tensorboard import reader, writer


class RunLogger(keras.callbacks.Callback):
    """Logs what a subclass measures: at which step, to which directory, and in `history`.

    The step of a run is `optimizer.iterations` plus an offset, so that it keeps increasing after
    a new `compile`, which restarts the iterations. The directory is found at the first record of a
    `fit` (see `kbptt.callbacks._run_directory`). An error in writing ends the logging until the
    next `fit`, with one warning; training continues. A different model starts a new run.

    Keras does not call `on_train_end` when `fit` raises, so `on_train_begin` starts from any state.

    Args:
        log_dir: String, path-like or None: the directory that the user gave. None writes nothing.
    """

    # End of the event file's name: `reader.SUFFIX` for the one writer of a run's profiles.
    suffix = reader.OTHER_SUFFIX

    log_dir = Fixed(
        lambda self: self._log_dir,
        "One callback writes one run: make a second callback for a second directory.",
    )
    history = Fixed(lambda self: self._history, "It is what was measured.")

    def __init__(self, log_dir: Any):
        super().__init__()
        self._given_log_dir = None if log_dir is None else writer.check_path(log_dir)
        self._of_model = lambda: None
        self._forget()

    def get_config(self) -> dict[str, Any]:
        """The arguments: `log_dir` as given, and every `Option`. Arrays as lists."""
        values = {
            name: getattr(self, name)
            for kind in type(self).__mro__
            for name, attribute in vars(kind).items()
            if isinstance(attribute, Option)
        }

        def plain(value: Any) -> Any:
            if dataclasses.is_dataclass(value):
                return dataclasses.asdict(value)
            return np.asarray(value).tolist() if hasattr(value, "__array__") else value

        return {"log_dir": self._given_log_dir, **keras.tree.map_structure(plain, values)}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "RunLogger":
        def arrays(value: Any) -> Any:
            if not isinstance(value, list | tuple):
                return value
            return [p if p is None or isinstance(p, str) else np.asarray(p) for p in value]

        return cls(**{name: arrays(value) for name, value in config.items()})

    # Keras's hooks.

    def on_train_begin(self, logs=None):
        if self.model is not self._of_model():
            self._forget()
            self._of_model = weakref.ref(self.model)
        self._started = self._opened = False
        self._writable = True
        if self._run is not None:
            self._run.enter(self.model)  # continues what this callback has written

    def on_train_end(self, logs=None):
        if self._run is not None:
            self._run.leave(self)

    # For subclasses.

    def _start_once(self) -> None:
        """For the hook before the first step: calls `_start` once in each `fit`.

        Not `on_train_begin`: a later callback may restore a checkpoint there, or build the model.
        """
        if not self._started:
            self._started = True
            self._start()

    def _start(self) -> None:
        """Prepares a `fit`: makes the run go on after the last record."""
        self._resume(self._step)

    def _forget(self) -> None:
        """Called for a new model: forgets what was measured of the one before."""
        self._history: dict[str, list] = {"step": []}
        self._step = -1  # of the last record
        self._offset = 0
        self._log_dir = self._given_log_dir
        self._run: _run_directory.Run | None = None
        self._events: writer.EventWriter | None = None
        self._found_step = -1  # the largest of a profile in the directory when it was opened
        self._opened = False
        self._writable = True

    def _resume(self, last: int) -> None:
        """Makes the run go on after the step `last`."""
        self._offset = max(self._offset, last - _run_directory.iterations(self.model))

    def _now(self) -> int:
        """The step of the run. Waits for the device."""
        return _run_directory.iterations(self.model) + self._offset

    def _record(self, step: int, values: dict[str, float]) -> None:
        """Appends to `history`; NaN in every series that has no value at this step."""
        missing = len(self._history["step"])
        for name, value in {"step": step, **values}.items():
            self._history.setdefault(name, [math.nan] * missing).append(value)
        for series in self._history.values():
            series += [math.nan] * (missing + 1 - len(series))
        self._step = step

    def _open(self) -> bool:
        """Finds the directory. Returns whether it is a different one than before."""
        self._opened = True
        if self._given_log_dir is None:
            return False
        try:
            run = _run_directory.join(self.model, self._given_log_dir, self)
            if run is self._run:
                return False
            self._run, self._log_dir = run, run.log_dir
            self._events = writer.EventWriter(run.log_dir, self.suffix)
            self._found_step = reader.last_step(run.log_dir)
        except errors() as error:
            self._stop(error)
        return True

    def _write(self, step: int, values: list[writer.Value]) -> None:
        """Appends summary values of one step to the event file."""
        if values and not self._opened:
            self._open()
        if values and self._writable and self._events is not None:
            try:
                self._events.write(step, values)
            except errors() as error:
                self._stop(error)

    def _stop(self, error: Exception) -> None:
        self._writable = False
        warnings.warn(
            f"{type(self).__name__} stops logging; training continues. Cannot write to "
            f"{self._log_dir!r}: {error}",
            stacklevel=2,
        )


def errors() -> tuple[type[Exception], ...]:
    """What writing to a directory may raise."""
    import tensorflow as tf  # remote paths go through its file systems

    return OSError, tf.errors.OpError
