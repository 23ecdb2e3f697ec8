"""The directory of a run, shared by all callbacks of one `fit` that are given the same one.

A model that starts at iteration 0 in a directory that already holds profiles, or in one that a
different process is writing to, is a new run and goes to `<log_dir>_2`. The first callback that
writes decides, and the others follow.
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
_runs: "weakref.WeakKeyDictionary[keras.Model, dict[str, Run]]" = weakref.WeakKeyDictionary()


def join(model: keras.Model, log_dir: str, member: object) -> "Run":
    """The run of this model in this `fit`, with `member` among those that write to it."""
    runs = _runs.setdefault(model, {})
    key = log_dir if writer.is_remote(log_dir) else os.path.abspath(log_dir)
    run = runs.get(key)
    if run is None or (run.fit() is not _fit_of(model)() and iterations(model) == 0):
        run = runs[key] = _choose(log_dir, iterations(model))
    run.enter(model)
    run.join(member)
    return run


def iterations(model: keras.Model) -> int:
    """Steps of the optimizer so far. Waits for the device."""
    return int(keras.ops.convert_to_numpy(model.optimizer.iterations))


class Run:
    """One directory, claimed for this process as long as any member writes to it."""

    def __init__(self, claim: "Claim"):
        self.log_dir = claim.directory
        self.fit = lambda: None
        self._claim = claim
        self._members = weakref.WeakSet()

    def enter(self, model: keras.Model) -> None:
        """Continues the run in the `fit` that `model` is in."""
        fit = _fit_of(model)
        if self.fit() is not fit():
            self.fit = fit
            self._members.clear()  # those of a `fit` that raised

    def join(self, member: object) -> None:
        """Claims the directory for a further member."""
        if not self._members:
            self._claim.acquire()
        self._members.add(member)

    def leave(self, member: object) -> None:
        """Releases the directory when its last member leaves."""
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
            False if a different live process writes there. True where locks do not exist.
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
            # Any error but "already locked" (a network file system without locks) allows writing.
            return not isinstance(error, BlockingIOError | PermissionError)
        self._unlock = weakref.finalize(self, os.close, descriptor)
        return True

    def release(self) -> None:
        """Gives the directory up."""
        if self._unlock is not None:
            self._unlock()
            self._unlock = None


def _choose(log_dir: str, iterations: int) -> Run:
    claim = Claim(log_dir)
    free = claim.acquire()
    if free and not (iterations == 0 and reader.last_step(log_dir) >= 0):
        return Run(claim)
    claim.release()
    while not (other := Claim(writer.numbered(log_dir))).acquire():
        pass
    reason = "contains the profiles of a different run" if free else "is in use by another process"
    warnings.warn(
        f"kbptt writes to {other.directory!r}: {log_dir!r} {reason}. Give every run its own "
        "log_dir.",
        stacklevel=2,
    )
    return Run(other)


def _fit_of(model: keras.Model) -> weakref.ref:
    """Identifies a `fit`: Keras makes a new `History` for each."""
    return weakref.ref(getattr(model, "history", model))
