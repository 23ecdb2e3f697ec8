"""Runs the trials of a ledger on Dask workers; what was done stays done whatever happens.

The process that plans and stores never imports TensorFlow; trials run in worker processes, one at
a time in each. Only this process writes to the log directory, so the workers of a cluster need no
shared file system.
"""

import contextlib
import dataclasses
import logging
import os
import pathlib
import shutil
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

from kbptt import _checks
from kbptt.ablation import grid as grids
from kbptt.ablation.ledger import Ledger, LedgerError, Trial, disk_full, is_disk_full, trial_key

RETRIES = 2
# A worker can die through no fault of its trial (out of memory, a node taken away), so a trial
# gets a few more chances then, but not without end: it may be the trial that kills the worker.
WORKER_DEATHS = 5
_SCRATCH = ".writing-"


@dataclasses.dataclass(frozen=True)
class Event:
    """Something happened to a trial; passed to `on_event` for progress."""

    trial: Trial
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
        overwrite: Whether the results of another grid may be deleted.
        retry_failed: Whether trials that failed are tried again.

    Raises:
        LedgerError: when the directory belongs to another grid (with the difference and the flag
            that helps), is in use by another run, or cannot be written.
    """
    ledger = Ledger(logdir)
    try:
        cells = [(cell.config, cell.directory) for cell in grid.cells()]
        before, now = ledger.meta("configuration"), grid.configuration()
        if before is None:
            _refuse_foreign(ledger, cells)
        elif overwrite:
            _delete_runs(ledger)
            ledger.clear()
        elif before != now:
            _check_change(ledger, before, now, {trial_key(config) for config, _ in cells}, extend)
        ledger.plan(now, cells)
        ledger.recover(retry_failed)
        for leftover in ledger.directory.glob(_SCRATCH + "*"):
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
    """Runs every pending trial.

    Args:
        ledger: From `open_ledger`.
        scheduler: Address of a running Dask scheduler ("tcp://host:8786"), or `None` for a cluster
            on this machine.
        workers: Workers of the cluster on this machine; default: cores // threads.
        threads: Threads that one trial computes with.
        retries: How often a trial that crashes is tried again.
        on_event: Called with an `Event` for every change of a trial's state.
        on_wait: Called about twice a second while trials run.
    """
    from distributed import wait

    from kbptt.ablation.trial import execute

    queue = ledger.trials("pending")
    if not queue:
        return
    queue.reverse()
    errors: dict[str, int] = {}
    deaths: dict[str, int] = {}
    running: dict[Any, Trial] = {}
    with connect(scheduler, min(workers or len(queue), len(queue)), threads) as client:
        try:
            while queue or running:
                while queue and len(running) < _slots(client):
                    trial = queue.pop()
                    attempt = ledger.start(trial.key)
                    # The key names the attempt: a lost worker's late answer to an earlier one is
                    # not taken for this one's.
                    future = client.submit(
                        execute, trial.config, key=f"trial-{trial.key[:16]}-{attempt}", pure=False
                    )
                    running[future] = trial
                    on_event(Event(trial, "running"))
                with contextlib.suppress(TimeoutError), client.as_current():
                    wait(list(running), timeout=0.5, return_when="FIRST_COMPLETED")
                on_wait()
                for future in [f for f in running if f.status != "pending"]:
                    trial = running.pop(future)
                    _settle(ledger, trial, future, queue, errors, deaths, retries, on_event)
        except BaseException:
            with contextlib.suppress(Exception):
                client.cancel(list(running), force=True)
            raise


def _settle(ledger, trial, future, queue, errors, deaths, retries, on_event) -> None:
    """Stores the result of a trial that ended, or decides whether it is tried again."""
    from distributed import KilledWorker

    if future.status == "finished":
        try:
            result = future.result()
            files = result.pop("files", {})
            write_files(ledger.directory, trial.directory, files)
            ledger.finish(trial.key, result)
        except LedgerError:
            raise
        except Exception as error:  # the result of a user's own trial may be anything
            _fail(ledger, trial, f"The result cannot be stored: {_describe(error)}", on_event)
        else:
            on_event(Event(trial, "done"))
        return
    if future.status in ("cancelled", "lost"):
        raise LedgerError(
            "The connection to the Dask scheduler was lost. Every result so far is safe: run the "
            "same command again to go on."
        )
    error = future.exception()
    died = isinstance(error, KilledWorker)
    count, limit = (deaths, WORKER_DEATHS) if died else (errors, retries)
    count[trial.key] = count.get(trial.key, 0) + 1
    message = "The worker process died (killed, or out of memory)." if died else _describe(error)
    if count[trial.key] <= limit:
        queue.append(trial)
        on_event(Event(trial, "retry", message))
    else:
        _fail(ledger, trial, message, on_event)


def _fail(ledger: Ledger, trial: Trial, message: str, on_event: Callable[[Event], Any]) -> None:
    ledger.fail(trial.key, message)
    on_event(Event(trial, "failed", message))


@contextlib.contextmanager
def connect(scheduler: str | None, workers: int, threads: int) -> Iterator[Any]:
    """A client of the scheduler, or of a new cluster of processes on this machine."""
    import dask
    from distributed import Client, LocalCluster

    threads = _checks.positive_integer("threads", threads)
    if scheduler:
        try:
            client = Client(scheduler, timeout=20, set_as_default=False)
        except (OSError, ValueError, TimeoutError) as error:
            raise ValueError(
                f"Cannot reach a Dask scheduler at {scheduler!r}. Expected an address such as "
                "tcp://host:8786 of a running `dask scheduler`."
            ) from error
        with client:
            client.wait_for_workers(1, timeout=120)
            yield client
        return
    workers = min(_checks.positive_integer("workers", workers), max(1, cores() // threads))
    environment = {"TF_CPP_MIN_LOG_LEVEL": "2"}
    environment |= {f"{name}_NUM_THREADS": str(threads) for name in ("OMP", "MKL", "OPENBLAS")}
    settings = {
        "distributed.scheduler.allowed-failures": 0,  # retries are counted here, see WORKER_DEATHS
        "distributed.nanny.pre-spawn-environ": environment,
        "distributed.worker.daemon": True,
        "distributed.worker.preload": ["kbptt.ablation.trial"],  # its `dask_setup`
    }
    with (
        dask.config.set(settings),
        LocalCluster(
            n_workers=workers,
            threads_per_worker=1,
            processes=True,
            memory_limit=None,
            dashboard_address="127.0.0.1:0",  # any free port: two runs may share a machine
            host="127.0.0.1",
            silence_logs=logging.CRITICAL,
        ) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        yield client


def cores() -> int:
    """CPU cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _slots(client: Any) -> int:
    """How many trials may run now: one for each worker process, however many threads it has."""
    return max(1, len(client.scheduler_info(n_workers=-1)["workers"]))


def write_files(logdir: pathlib.Path, directory: str, files: dict[str, bytes]) -> None:
    """Puts the files of a trial in place all at once: written beside, then renamed."""
    target = inside(logdir, directory)
    try:
        scratch = pathlib.Path(tempfile.mkdtemp(prefix=_SCRATCH, dir=logdir))
        try:
            for name, content in files.items():
                path = inside(scratch, name)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
            if target.exists():
                shutil.rmtree(target)
            if files:
                scratch.chmod(0o755)
                target.parent.mkdir(parents=True, exist_ok=True)
                scratch.rename(target)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    except OSError as error:
        if is_disk_full(error):
            raise disk_full(logdir) from error
        raise LedgerError(
            f"Cannot write {str(target)!r}: {error.strerror or error}. Every result so far is safe."
        ) from error


def inside(parent: pathlib.Path, name: str) -> pathlib.Path:
    """`parent / name`, refused if it leads outside."""
    path = (parent / name).resolve()
    if path == parent.resolve() or not path.is_relative_to(parent.resolve()):
        raise LedgerError(f"{name!r} leads outside {str(parent)!r}.")
    return path


def _describe(error: BaseException | None) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}"[:2000]


def _refuse_foreign(ledger: Ledger, cells: list[tuple[dict, str]]) -> None:
    """A directory of this name that no ledger knows is the user's: never replace it."""
    for _, directory in cells:
        if (ledger.directory / directory).exists():
            raise LedgerError(
                f"{str(ledger.directory / directory)!r} exists already and belongs to no ablation. "
                "Give another --logdir, or move it away."
            )


def _delete_runs(ledger: Ledger) -> None:
    for trial in ledger.trials():
        shutil.rmtree(inside(ledger.directory, trial.directory), ignore_errors=True)


def _check_change(ledger, before, now, keys, extend) -> None:
    known = {trial.key for trial in ledger.trials()}
    if known <= keys and extend:
        return
    lines = "\n".join(f"  {line}" for line in grids.difference(before, now))
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
