"""Runs the trials of a ledger on Dask workers; finished trials survive any crash.

The planning process never imports TensorFlow; trials run in worker processes, one at a time in
each. Only the planning process writes to the log directory, so the workers of a cluster need no
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

from kbptt.ablation import clusters, grid as grids, stages
from kbptt.ablation.errors import ProcessDied, TrialError
from kbptt.ablation.files import SCRATCH, inside, write_files
from kbptt.ablation.ledger import Ledger, LedgerError, Trial
from kbptt.ablation.outcome import readable
from kbptt.ablation.supervision import Limits
from kbptt.ablation.text import described, visible
from kbptt.ablation.worker import check, execute

RETRIES = 2
# A worker can die through no fault of its trial (a machine removed), so the trial gets a few more
# attempts, but a limited number: it may be the trial that kills the worker.
WORKER_DEATHS = 5
DIED = "The worker process died (killed, or out of memory)."
LOST = (
    "The connection to the Dask scheduler was lost. All results so far are safe: run the same "
    "command again to continue."
)
NO_WORKER_SECONDS = 20  # after which a local cluster without workers is considered dead
LOOK_SECONDS = 0.5  # between two queries of the scheduler, each as expensive as a small trial


@dataclasses.dataclass(frozen=True)
class Event:
    """A change of a trial's state, passed to `on_event`."""

    trial: Trial  # with its result if it is done
    state: str  # "built", "planned" (after the run began), "running", "done", "failed" or "retry"
    error: str | None = None
    parameters: int | None = None  # of the model that was built, before any trial runs


def open_ledger(
    grid: grids.Grid,
    logdir: str | os.PathLike[str],
    extend: bool = False,
    overwrite: bool = False,
    retry_failed: bool = False,
) -> Ledger:
    """Opens the ledger of `logdir` for this grid, to start it or to continue.

    Args:
        grid: What to run.
        logdir: The log directory.
        extend: Whether to accept a grid that contains every trial of the ledger and more.
        overwrite: Whether the results of a different grid may be deleted. Those of the same grid
            are kept.
        retry_failed: Whether trials that failed are retried.

    Raises:
        LedgerError: when the directory belongs to a different grid (with the difference and the
            flag that helps), is in use, or cannot be written; when both flags are given.
    """
    if extend and overwrite:
        raise LedgerError("Use either extend or overwrite: one keeps results, the other does not.")
    ledger = Ledger(logdir)
    try:
        known = map(readable, ledger.each()) if grid.tuning else ()
        planned = {trial.key: trial for trial in stages.plan(grid, known)}
        before, now = ledger.meta("configuration"), grid.configuration()
        _refuse_foreign(ledger, planned)
        counts = ledger.counts()
        if before in (None, now):
            pass
        elif overwrite or not counts["done"] + counts["failed"]:  # nothing to lose
            _delete_runs(ledger)
            ledger.clear()
            planned = {trial.key: trial for trial in stages.plan(grid)}
        else:
            _check_change(ledger, before, now, planned.keys(), extend)
        ledger.plan(now, [(trial.config, trial.directory) for trial in planned.values()])
        trials = map(readable, ledger.each("done", "unreadable"))
        ledger.reject({t.key: t.error or "" for t in trials if t.state == "unreadable"})
        ledger.recover(retry_failed, stages.closed(grid, ledger) if retry_failed else ())
        stages.advance(grid, ledger)
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
    trial_timeout: float | None = None,
    memory_limit: int | str | None = None,
    health: bool = False,
    more: Callable[[], list[Trial]] = list,
    on_stop: Callable[[], Any] = lambda: None,
) -> None:
    """Runs every pending trial, after building each model once to find mistakes early.

    Args:
        ledger: From `open_ledger`.
        scheduler: Address of a running Dask scheduler ("tcp://host:8786"), or `None` for a cluster
            on this machine.
        workers: Workers of the cluster on this machine; default: cores // threads.
        threads: Threads of one trial.
        retries: How often a trial that crashes is retried.
        on_event: Called with an `Event` for every change of a trial's state.
        on_wait: Called about twice a second while trials run.
        trial_timeout: Seconds that a trial may run.
        memory_limit: Bytes that a trial may use, or "auto" for an equal share of its machine.
        health: Boolean, whether kbptt's own trials log the health of their networks.
        more: Called when none is left, for the trials that can be planned from then on.
        on_stop: Called before the workers are ended early: by Ctrl-C or an error.

    Raises:
        ValueError: when a method, with its options, cannot be built for a task, before anything
            is trained.
    """
    from distributed import CancelledError

    queue, checked = _Queue(ledger, retries, on_event, more, health), False

    def wanted() -> int:
        return clusters.workers_for(max(1, len(queue.pending)), workers, threads)

    while queue.refill():
        with _quiet_library(), clusters.connect(scheduler, wanted()) as client:
            if isinstance(memory_limit, str):  # "auto"
                memory_limit = clusters.memory_share(client)
            queue.limits = Limits(trial_timeout, memory_limit)
            try:
                if not checked:
                    _check_models(queue, client, on_wait)
                    checked = True
                _drain(queue, client, on_wait, scheduler is None, wanted)
            except (OSError, CancelledError) as error:
                raise LedgerError(LOST) from error
            except BaseException:
                on_stop()
                with contextlib.suppress(Exception):
                    clusters.end_trials(client)
                    client.cancel(list(queue.running), force=True)
                raise
        queue.give_back()  # those of a cluster that lost all its workers


@contextlib.contextmanager
def _quiet_library() -> Iterator[None]:
    """Silences Dask's loggers, whose pages kbptt replaces with a sentence."""
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
    """Has the workers build every model that no finished trial has built already."""
    from distributed import KilledWorker, wait

    known = set(map(stages.arm_key, queue.ledger.each("done")))
    # The first of each arm: `pending` is reversed.
    arms = {stages.arm_key(trial): trial for trial in queue.pending}
    running = {
        client.submit(check, trial.config, queue.limits, key=f"check-{key[:16]}", pure=False): trial
        for key, trial in reversed(arms.items())
        if key not in known
    }
    while running and clusters.size(client):
        with contextlib.suppress(TimeoutError), client.as_current():
            wait(list(running), timeout=0.5, return_when="FIRST_COMPLETED")
        on_wait()
        for future in [f for f in running if f.status != "pending"]:
            trial, error = running.pop(future), future.exception()
            # A killed process says nothing about the model: the trials will show.
            if error is not None and not isinstance(error, KilledWorker | ProcessDied):
                _refuse_full_disk(error)
                raise ValueError(f"{trial.directory} cannot be built: {error}") from error
            if error is None:
                queue.on_event(Event(trial, "built", parameters=future.result()))


def _drain(
    queue: "_Queue",
    client: Any,
    on_wait: Callable[[], Any],
    ours: bool,
    wanted: Callable[[], int],
) -> None:
    """Runs trials until none is left.

    With a cluster of `ours`, also stops when its workers are lost, or if they are too few for the
    next stage.
    """
    from distributed import wait

    seen, look_at = time.monotonic(), -math.inf
    count, size = 0, wanted()
    while queue.refill():
        if time.monotonic() >= look_at:
            count = clusters.size(client)
            look_at = time.monotonic() + LOOK_SECONDS
        if ours and not queue.running and wanted() > size:
            return
        while queue.pending and len(queue.running) < count:
            queue.submit(client)
        if queue.running:
            with contextlib.suppress(TimeoutError), client.as_current():
                wait(list(queue.running), timeout=0.5, return_when="FIRST_COMPLETED")
        else:
            time.sleep(0.1)
        on_wait()
        queue.settle()
        # Dask restarts a worker that died, unless it dies again while starting.
        if count:
            seen = time.monotonic()
        elif ours and time.monotonic() - seen > NO_WORKER_SECONDS:
            return


class _Queue:
    """The pending and running trials, and the decisions about their outcomes."""

    def __init__(
        self,
        ledger: Ledger,
        retries: int,
        on_event: Callable[[Event], Any],
        more: Callable[[], list[Trial]],
        health: bool,
    ):
        self.health = health
        self.ledger, self.retries, self.on_event, self.more = ledger, retries, on_event, more
        pending = map(readable, ledger.each("pending"))
        self.pending = [trial for trial in pending if trial.state == "pending"][::-1]
        self.running: dict[Any, Trial] = {}
        self.limits = Limits()
        self.errors: dict[str, int] = {}
        self.deaths: dict[str, int] = {}

    def refill(self) -> bool:
        """Whether trials are left: where none is, those of the next stage of the study."""
        if not self.pending and not self.running:
            self.pending = self.more()[::-1]
            for trial in reversed(self.pending):
                self.on_event(Event(trial, "planned"))
        return bool(self.pending or self.running)

    def submit(self, client: Any) -> None:
        """Sends the next trial to the cluster."""
        trial = self.pending.pop()
        attempt = self.ledger.start(trial.key)
        # The key contains the attempt, so that a lost worker's late answer to an earlier attempt is
        # not mistaken for this one.
        key = f"trial-{trial.key[:16]}-{attempt}"
        arguments = trial.config, self.limits, self.health
        future = client.submit(execute, *arguments, key=key, pure=False)
        self.running[future] = trial
        self.on_event(Event(trial, "running"))

    def give_back(self) -> None:
        """Returns the running trials to the pending ones."""
        for trial in self.running.values():
            self.pending.append(trial)
            self.on_event(Event(trial, "retry", DIED))
        self.running.clear()

    def settle(self) -> None:
        """Stores the results of trials that ended; retries or fails the others."""
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
        except Exception as error:  # a link instead of its folder, a worker of another version
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
    """Stops the run: without room for temporary files every further trial would fail too."""
    if isinstance(error, TrialError) and error.disk_full:
        raise LedgerError(
            f"A worker has no room for temporary files: {error}. Every result so far is safe: free "
            "some space, or set TMPDIR to a different disk, and run the same command again."
        ) from error


def _refuse_foreign(ledger: Ledger, planned: Mapping[str, Trial]) -> None:
    """Refuses to replace a directory that the ledger does not list: it is the user's."""
    known = ledger.directories()
    directories = set(known.values())
    for key, trial in planned.items():
        path = ledger.directory / trial.directory
        if key not in known and trial.directory not in directories and path.exists():
            raise LedgerError(
                f"{str(path)!r} already exists and does not belong to an ablation. "
                "Use a different --logdir, or move it away."
            )


def _delete_runs(ledger: Ledger) -> None:
    for trial in ledger.each():
        with contextlib.suppress(ValueError):  # a damaged row may point outside
            shutil.rmtree(inside(ledger.directory, trial.directory), ignore_errors=True)


def _check_change(ledger, before, now, keys, extend) -> None:
    before = before if isinstance(before, dict) else {}  # damaged
    known = ledger.directories().keys()
    same_tuning = before.get("tuning") == now.get("tuning")
    if known <= keys and ((extend and same_tuning) or not before):
        return
    lines = "\n".join(f"  {visible(line)}" for line in grids.difference(before, now))
    message = (
        f"{str(ledger.directory)!r} contains an ablation with a different configuration:\n{lines}\n"
    )
    if known <= keys and same_tuning:
        raise LedgerError(
            message + f"Add --extend to keep its {len(known)} trials and run the "
            f"{len(keys - known)} new ones, --overwrite to delete its results, or use a different "
            "--logdir."
        )
    why = "some of its trials are not in the new one" if same_tuning else "the tuning has changed"
    extra = f" It cannot be extended: {why}." if extend else ""
    raise LedgerError(
        message + f"Add --overwrite to delete its results, or use a different --logdir.{extra}"
    )
