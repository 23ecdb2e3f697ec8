"""Runs the trials of a ledger on Dask workers; what was done stays done whatever happens.

The process that plans and stores never imports TensorFlow; trials run in worker processes, one at
a time in each. Only this process writes to the log directory, so the workers of a cluster need no
shared file system.
"""

import contextlib
import dataclasses
import logging
import math
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from kbptt.ablation import clusters, grid as grids
from kbptt.ablation.errors import TrialError
from kbptt.ablation.files import SCRATCH, inside, write_files
from kbptt.ablation.ledger import Ledger, LedgerError, Trial
from kbptt.ablation.outcome import readable
from kbptt.ablation.rows import trial_key
from kbptt.ablation.text import described, visible
from kbptt.ablation.trial import check, execute

RETRIES = 2
# A worker can die through no fault of its trial (out of memory, a node taken away), so a trial
# gets a few more chances then, but not without end: it may be the trial that kills the worker.
WORKER_DEATHS = 5
DIED = "The worker process died (killed, or out of memory)."
LOST = (
    "The connection to the Dask scheduler was lost. Every result so far is safe: run the same "
    "command again to go on."
)
NO_WORKER_SECONDS = 20  # after which a cluster on this machine is taken for dead
# TensorFlow keeps about 10 to 20 MiB of every model that a process has trained, whatever is done to
# free it. Starting anew costs a few seconds: a process that is still small after so many goes on.
TRIALS_PER_PROCESS = 50
LARGE_PROCESS = 2**30  # bytes
LOOK_SECONDS = 0.5  # between two questions to the scheduler: each costs as much as a small trial


@dataclasses.dataclass(frozen=True)
class Event:
    """Something happened to a trial; passed to `on_event` for progress."""

    trial: Trial  # with its result if it is done
    state: str  # "running", "done", "failed" or "retry"
    error: str | None = None


def open_ledger(
    grid: grids.Grid,
    logdir: str | os.PathLike,
    extend: bool = False,
    overwrite: bool = False,
    retry_failed: bool = False,
) -> Ledger:
    """Opens the ledger of `logdir` for this grid, new or to go on with.

    Args:
        grid: What to run.
        logdir: The log directory.
        extend: Whether a grid that holds every trial of the ledger and more may be added.
        overwrite: Whether the results of another grid may be deleted. Those of the same grid are
            kept, and gone on with.
        retry_failed: Whether trials that failed are tried again.

    Raises:
        LedgerError: when the directory belongs to another grid (with the difference and the flag
            that helps), is in use by another run, or cannot be written; when both flags are given.
    """
    if extend and overwrite:
        raise LedgerError("Give either extend or overwrite: the one keeps results, the other not.")
    ledger = Ledger(logdir)
    try:
        planned = {trial.key: trial for trial in grid.trials()}
        before, now = ledger.meta("configuration"), grid.configuration()
        _refuse_foreign(ledger, planned)
        counts = ledger.counts()
        if before in (None, now):
            pass
        elif overwrite or not counts["done"] + counts["failed"]:  # or nothing to lose
            _delete_runs(ledger)
            ledger.clear()
        else:
            _check_change(ledger, before, now, planned.keys(), extend)
        ledger.plan(now, [(trial.config, trial.directory) for trial in planned.values()])
        trials = map(readable, ledger.each("done", "unreadable"))
        ledger.reject({t.key: t.error for t in trials if t.state == "unreadable"})
        ledger.recover(retry_failed)
        for leftover in ledger.directory.glob(SCRATCH + "*"):
            shutil.rmtree(leftover, ignore_errors=True)
    except BaseException:
        ledger.close()
        raise
    return ledger


def run(
    ledger: Ledger,
    scheduler: str | None = None,
    workers: int | None = None,
    threads: int = 1,
    retries: int = RETRIES,
    on_event: Callable[[Event], Any] = lambda event: None,
    on_wait: Callable[[], Any] = lambda: None,
) -> None:
    """Runs every pending trial, after each model has been built once to find mistakes early.

    Args:
        ledger: From `open_ledger`.
        scheduler: Address of a running Dask scheduler ("tcp://host:8786"), or `None` for a cluster
            on this machine.
        workers: Workers of the cluster on this machine; default: cores // threads.
        threads: Threads that one trial computes with.
        retries: How often a trial that crashes is tried again.
        on_event: Called with an `Event` for every change of a trial's state.
        on_wait: Called about twice a second while trials run.

    Raises:
        ValueError: when a method, with its options, cannot be built for a task. Nothing has been
            trained then.
    """
    from distributed import CancelledError

    queue, checked = _Queue(ledger, retries, on_event), False
    while queue.pending or queue.running:
        wanted = clusters.workers_for(len(queue.pending), workers, threads)
        with _quiet_library(), clusters.connect(scheduler, wanted) as client:
            try:
                if not checked:
                    _check_models(queue, client, on_wait)
                    checked = True
                _drain(queue, client, on_wait, ours=scheduler is None)
            except (OSError, CancelledError) as error:
                raise LedgerError(LOST) from error
            except BaseException:
                with contextlib.suppress(Exception):
                    client.cancel(list(queue.running), force=True)
                raise
        queue.give_back()  # those of a cluster that lost all its workers


@contextlib.contextmanager
def _quiet_library() -> Iterator[None]:
    """Silences the cluster library's loggers: kbptt says in one sentence what they say in pages."""
    prefixes = ("distributed", "tornado", "asyncio")
    names = [n for n in logging.root.manager.loggerDict if n.partition(".")[0] in prefixes]
    levels = {name: logging.getLogger(name).level for name in names}
    for name in names:
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)


def _check_models(queue: "_Queue", client: Any, on_wait: Callable[[], Any]) -> None:
    """Has the workers build every model that is still to be trained, and has no result yet."""
    from distributed import KilledWorker, wait

    def arm(trial: Trial) -> str:
        return trial_key({**trial.config, "seed": None})

    known = {arm(trial) for trial in queue.ledger.each("done")}
    arms = {arm(trial): trial for trial in queue.pending}  # of an arm the first: they are reversed
    running = {
        client.submit(check, trial.config, key=f"check-{key[:16]}", pure=False): trial
        for key, trial in reversed(arms.items())
        if key not in known
    }
    while running and clusters.size(client):
        with contextlib.suppress(TimeoutError), client.as_current():
            wait(list(running), timeout=0.5, return_when="FIRST_COMPLETED")
        on_wait()
        for future in [f for f in running if f.status != "pending"]:
            trial, error = running.pop(future), future.exception()
            # A killed worker says nothing about the model: the trials will tell.
            if error is not None and not isinstance(error, KilledWorker):
                _refuse_full_disk(error)
                raise ValueError(f"{trial.directory} cannot be built: {error}") from error


def _drain(queue: "_Queue", client: Any, on_wait: Callable[[], Any], ours: bool) -> None:
    """Runs trials until none is left.

    With a cluster of `ours`, also until its processes have grown too large, or are lost.
    """
    from distributed import wait

    seen, started, look_at, used_up = time.monotonic(), 0, -math.inf, False
    while queue.pending or queue.running:
        if time.monotonic() >= look_at:
            count, largest = clusters.look(client)
            enough = ours and count and started >= count * TRIALS_PER_PROCESS
            used_up = used_up or (enough and largest >= LARGE_PROCESS)
            look_at = time.monotonic() + LOOK_SECONDS
        if used_up and not queue.running:
            return
        while queue.pending and len(queue.running) < count and not used_up:
            queue.submit(client)
            started += 1
        if queue.running:
            with contextlib.suppress(TimeoutError), client.as_current():
                wait(list(queue.running), timeout=0.5, return_when="FIRST_COMPLETED")
        else:
            time.sleep(0.1)
        on_wait()
        queue.settle()
        # Dask restarts a worker that died, unless it dies once more while it starts.
        if count:
            seen = time.monotonic()
        elif ours and time.monotonic() - seen > NO_WORKER_SECONDS:
            return


class _Queue:
    """The trials that wait and run, and what becomes of them."""

    def __init__(self, ledger: Ledger, retries: int, on_event: Callable[[Event], Any]):
        self.ledger, self.retries, self.on_event = ledger, retries, on_event
        pending = map(readable, ledger.each("pending"))
        self.pending = [trial for trial in pending if trial.state == "pending"][::-1]
        self.running: dict[Any, Trial] = {}
        self.errors: dict[str, int] = {}
        self.deaths: dict[str, int] = {}

    def submit(self, client: Any) -> None:
        """Sends the next trial to the cluster."""
        trial = self.pending.pop()
        attempt = self.ledger.start(trial.key)
        # The key names the attempt: a lost worker's late answer to an earlier one is not taken for
        # this one's.
        key = f"trial-{trial.key[:16]}-{attempt}"
        self.running[client.submit(execute, trial.config, key=key, pure=False)] = trial
        self.on_event(Event(trial, "running"))

    def give_back(self) -> None:
        """Makes the running trials wait again."""
        for trial in self.running.values():
            self.pending.append(trial)
            self.on_event(Event(trial, "retry", DIED))
        self.running.clear()

    def settle(self) -> None:
        """Stores the results of trials that ended; decides whether others are tried again."""
        for future in [f for f in self.running if f.status != "pending"]:
            trial = self.running[future]
            if future.status == "finished":
                self._store(trial, future)
            elif future.status == "error":
                self._retry_or_fail(trial, future.exception())
            else:
                raise LedgerError(LOST)
            del self.running[future]

    def _store(self, trial: Trial, future: Any) -> None:
        from distributed import CancelledError

        try:
            result = future.result()
            write_files(self.ledger.directory, trial.directory, result.pop("files", {}))
            self.ledger.finish(trial.key, result)
        except (LedgerError, OSError, CancelledError):  # the disk; the connection
            raise
        except Exception as error:  # a link in the place of its folder, a worker of another version
            self._fail(trial, f"The result cannot be stored: {described(error)}")
        else:
            self.on_event(Event(dataclasses.replace(trial, state="done", result=result), "done"))

    def _retry_or_fail(self, trial: Trial, error: BaseException) -> None:
        from distributed import KilledWorker

        _refuse_full_disk(error)
        died = isinstance(error, KilledWorker)
        count, limit = (self.deaths, WORKER_DEATHS) if died else (self.errors, self.retries)
        count[trial.key] = count.get(trial.key, 0) + 1
        message = DIED if died else _describe(error)
        if count[trial.key] <= limit and not getattr(error, "final", False):
            self.pending.append(trial)
            self.on_event(Event(trial, "retry", message))
        else:
            self._fail(trial, message)

    def _fail(self, trial: Trial, message: str) -> None:
        self.ledger.fail(trial.key, message)
        self.on_event(Event(trial, "failed", message))


def _describe(error: BaseException | None) -> str:
    return str(error) if isinstance(error, TrialError) else described(error)


def _refuse_full_disk(error: BaseException) -> None:
    """A trial that finds no room for its temporary files would fail again, and so would others."""
    if isinstance(error, TrialError) and error.disk_full:
        raise LedgerError(
            f"A worker has no room for temporary files: {error}. Every result so far is safe: free "
            "some space, or set TMPDIR to another place, and run the same command again."
        ) from error


def _refuse_foreign(ledger: Ledger, planned: Mapping[str, Trial]) -> None:
    """Refuses to replace a directory that the ledger does not list: it is the user's."""
    known = ledger.directories()
    directories = set(known.values())
    for key, trial in planned.items():
        path = ledger.directory / trial.directory
        if key not in known and trial.directory not in directories and path.exists():
            raise LedgerError(
                f"{str(path)!r} exists already and belongs to no ablation. "
                "Give another --logdir, or move it away."
            )


def _delete_runs(ledger: Ledger) -> None:
    for trial in ledger.each():
        with contextlib.suppress(ValueError):  # a damaged row: what lies outside is not ours
            shutil.rmtree(inside(ledger.directory, trial.directory), ignore_errors=True)


def _check_change(ledger, before, now, keys, extend) -> None:
    before = before if isinstance(before, dict) else {}  # it was damaged
    known = ledger.directories().keys()
    if known <= keys and (extend or not before):
        return
    lines = "\n".join(f"  {visible(line)}" for line in grids.difference(before, now))
    message = f"{str(ledger.directory)!r} holds an ablation with another configuration:\n{lines}\n"
    if known <= keys:
        raise LedgerError(
            message + f"Add --extend to keep its {len(known)} trials and run the "
            f"{len(keys - known)} new ones, --overwrite to delete its results, or give another "
            "--logdir."
        )
    extra = " It cannot be extended: some of its trials are not in the new one." if extend else ""
    raise LedgerError(
        message + f"Add --overwrite to delete its results, or give another --logdir.{extra}"
    )
