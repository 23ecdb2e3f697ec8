"""The directory of a run, the same for all callbacks of one `fit` that are given the same one.

A model that starts at iteration 0 in a directory that already holds profiles, or in one another
process is writing to, is another run and goes to `<log_dir>_2`. The first callback that writes
decides, and the others follow.
"""

import os
import warnings
import weakref

import keras

from kbptt.tensorboard import reader, writer

try:
    import fcntl
except ImportError:  # Windows: runs that share a directory at the same time are not detected
    fcntl = None

_LOCK = ".gradient_flow.lock"

# Of each model, by the directory that was given.
_runs: "weakref.WeakKeyDictionary[keras.Model, dict[str, _Run]]" = weakref.WeakKeyDictionary()


class RunWriter:
    """Writes what one callback logs, into the directory of its model's run.

    An error ends the logging until the next `fit`, with one warning; training goes on.

    Args:
        callback: String. The callback's name, for the warning.
        log_dir: String, the directory that the user gave, or None: then nothing is written.
        suffix: As for `kbptt.tensorboard.writer.EventWriter`.

    Attributes:
        log_dir: The directory written to: the given one, a numbered one, or None.
        last_step: Largest step of a profile in it when this callback came to it, or -1.
        writable: Whether no error has occurred in this `fit`.
    """

    def __init__(self, callback: str, log_dir: str | None, suffix: str = reader.OTHER_SUFFIX):
        self.callback, self.log_dir, self.suffix = callback, log_dir, suffix
        self.last_step = -1
        self.writable = True
        self._given = log_dir
        self._run = self._events = None

    def begin(self, model: keras.Model) -> None:
        """Call in `on_train_begin`: the run that this callback has written so far goes on."""
        self._model = weakref.ref(model)
        self._opened, self.writable = False, True
        if self._run is not None:
            self._run.enter(_fit_of(model))

    def open(self) -> bool:
        """Finds the directory, once for each `fit`; call before the first step.

        Returns:
            Whether it is another one than before.
        """
        self._opened = True
        try:
            run = _join(self._model(), self._given, self)
            if run is self._run:
                return False
            self._run, self.log_dir = run, run.log_dir
            self._events = writer.EventWriter(run.log_dir, self.suffix)
            self.last_step = reader.last_step(run.log_dir)
        except _errors() as error:
            self._stop(error)
        return True

    def write(self, step: int, values: list) -> None:
        """Appends summary values of one step."""
        if self._given is None:
            return
        if not self._opened:
            self.open()
        if not self.writable or not values:
            return
        try:
            self._events.write(step, values)
        except _errors() as error:
            self._stop(error)

    def end(self) -> None:
        """Call in `on_train_end`: other processes may write to the directory again."""
        if self._run is not None:
            self._run.leave(self)

    def _stop(self, error: Exception) -> None:
        self.writable = False
        warnings.warn(
            f"{self.callback} stops logging; training goes on. Cannot write to {self.log_dir!r}: "
            f"{error}",
            stacklevel=2,
        )


class _Run:
    """One directory, claimed for this process as long as somebody writes to it."""

    def __init__(self, claim: "Claim"):
        self.log_dir = claim.directory
        self.fit = lambda: None
        self._claim = claim
        self._members = weakref.WeakSet()

    def enter(self, fit: weakref.ref) -> None:
        if self.fit() is not fit():
            self.fit = fit
            self._members.clear()  # those of a `fit` that raised

    def join(self, member: RunWriter) -> None:
        if not self._members:
            self._claim.acquire()
        self._members.add(member)

    def leave(self, member: RunWriter) -> None:
        self._members.discard(member)
        if not self._members:
            self._claim.release()


class Claim:
    """A claim of this process on a directory."""

    def __init__(self, directory: str):
        self.directory = directory
        self._unlock = None

    def acquire(self) -> bool:
        """Makes the directory and claims it until `release`.

        Returns:
            False if another live process writes there. True where locks do not exist.
        """
        if fcntl is None or writer.is_remote(self.directory):
            return True
        os.makedirs(self.directory, exist_ok=True)
        self.release()
        descriptor = os.open(os.path.join(self.directory, _LOCK), os.O_RDWR | os.O_CREAT, 0o644)
        try:
            # Such a lock belongs to the process and dies with it, even killed.
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(descriptor)
            # Anything but "held by another" (a network file system without locks) allows writing.
            return not isinstance(error, BlockingIOError | PermissionError)
        self._unlock = weakref.finalize(self, os.close, descriptor)
        return True

    def release(self) -> None:
        """Gives the directory up."""
        if self._unlock is not None:
            self._unlock()
            self._unlock = None


def _join(model: keras.Model, log_dir: str, member: RunWriter) -> _Run:
    """The run of this model in this `fit`."""
    runs = _runs.setdefault(model, {})
    key = log_dir if writer.is_remote(log_dir) else os.path.abspath(log_dir)
    fit = _fit_of(model)
    run = runs.get(key)
    if run is None or (run.fit() is not fit() and _iterations(model) == 0):
        run = runs[key] = _choose(log_dir, _iterations(model))
    run.enter(fit)
    run.join(member)
    return run


def _choose(log_dir: str, iterations: int) -> _Run:
    claim = Claim(log_dir)
    free = claim.acquire()
    if free and not (iterations == 0 and reader.last_step(log_dir) >= 0):
        return _Run(claim)
    claim.release()
    while True:
        other = Claim(writer.numbered(log_dir))
        if other.acquire():
            break
    reason = "holds the profiles of another run" if free else "is in use by another process"
    warnings.warn(
        f"kbptt writes to {other.directory!r}: {log_dir!r} {reason}. Give every run a log_dir of "
        "its own.",
        stacklevel=2,
    )
    return _Run(other)


def _iterations(model: keras.Model) -> int:
    return int(keras.ops.convert_to_numpy(model.optimizer.iterations))


def _fit_of(model: keras.Model) -> weakref.ref:
    """What tells one `fit` from another: Keras makes a new `History` for each."""
    return weakref.ref(getattr(model, "history", model))


def _errors() -> tuple[type[Exception], ...]:
    import tensorflow as tf  # remote paths go through its file systems

    return OSError, tf.errors.OpError
