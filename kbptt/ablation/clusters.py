"""Where trials run: a Dask cluster of processes on this machine, or an existing scheduler."""

import contextlib
import logging
import multiprocessing
import signal
import threading
from collections.abc import Iterator
from multiprocessing import resource_tracker
from typing import Any

from kbptt import _checks
from kbptt._cores import cores
from kbptt.ablation import supervision

WORKERS_SECONDS = 120  # to wait for the first worker of an existing scheduler
ATTEMPTS = 5  # to start or close the cluster: a worker may be killed while it does


@contextlib.contextmanager
def connect(scheduler: str | None, workers: int) -> Iterator[Any]:
    """A client of the scheduler, or of a new cluster of processes on this machine."""
    from distributed import Client
    from distributed.comm import get_address_host_port

    if scheduler:
        try:
            get_address_host_port(scheduler)  # closing a client without an address takes a minute
            client = Client(scheduler, timeout=20, set_as_default=False)
        except (OSError, ValueError, TimeoutError) as error:
            raise ValueError(
                f"Cannot reach a Dask scheduler at {scheduler!r}. Expected an address such as "
                "tcp://host:8786 of a running `dask scheduler`."
            ) from error
        with client:
            try:
                client.wait_for_workers(1, timeout=WORKERS_SECONDS)
            except TimeoutError as error:
                raise ValueError(
                    f"The Dask scheduler at {scheduler!r} has no workers. Start some with "
                    f"`dask worker {scheduler} --nthreads 1`."
                ) from error
            yield client
        return
    with _local(workers) as cluster, Client(cluster, set_as_default=False) as client:
        yield client


@contextlib.contextmanager
def _local(workers: int) -> Iterator[Any]:
    """A cluster of processes on this machine, one trial at a time in each."""
    import dask
    from distributed import LocalCluster

    settings = {
        "distributed.scheduler.allowed-failures": 0,  # the runner counts retries
        # Silence is measured by the wall clock: a computer that slept would lose every trial. The
        # end of a process shows at once all the same.
        "distributed.scheduler.worker-ttl": None,
        "distributed.worker.daemon": True,
        # Sampling a trial's stack a hundred times a second costs a tenth of its time.
        "distributed.worker.profile.enabled": False,
        "distributed.worker.preload": ["kbptt.ablation.trial"],  # its `dask_setup`
    }
    others = multiprocessing.active_children()
    with dask.config.set(settings), contextlib.ExitStack() as stack:
        for attempt in range(1, ATTEMPTS + 1):
            try:
                with deferring_interrupts():
                    cluster = LocalCluster(
                        n_workers=workers,
                        threads_per_worker=1,
                        processes=True,
                        memory_limit=None,
                        dashboard_address="127.0.0.1:0",  # any free port: runs share a machine
                        host="127.0.0.1",
                        silence_logs=logging.CRITICAL,
                    )
                    stack.callback(_close, cluster, others)
                break
            except RuntimeError:
                if attempt == ATTEMPTS:
                    raise
        yield cluster


def _close(cluster: Any, others: list[Any]) -> None:
    """Closes a cluster, also where a worker that died is just being started again.

    Dask's assertions fail then and leave the cluster `closing`, in which state it would wait for
    itself forever. The worker's nanny is closed after that, so a second attempt succeeds, but the
    worker is not: the processes that started after `others` are killed.
    """
    from distributed import Status

    for attempt in range(1, ATTEMPTS + 1):
        try:
            cluster.close()
            break
        except AssertionError:
            if attempt == ATTEMPTS:
                raise
            cluster.status = Status.failed
            for process in multiprocessing.active_children():
                if process not in others and process.name.startswith("Dask Worker"):
                    process.kill()


@contextlib.contextmanager
def deferring_interrupts() -> Iterator[None]:
    """Defers Ctrl-C: a cluster that is interrupted while it starts cannot be closed.

    Its processes inherit the signal mask and never see Ctrl-C, which a terminal sends to all of
    them: this process shuts them down.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    caught = []
    before = signal.signal(signal.SIGINT, lambda *_: caught.append(True))
    masks = hasattr(signal, "pthread_sigmask")  # not on Windows
    if masks:
        resource_tracker.ensure_running()  # starting it later would clear the mask
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        if masks:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        signal.signal(signal.SIGINT, before)
        if caught:
            signal.raise_signal(signal.SIGINT)


def workers_for(trials: int, workers: int | None, threads: int) -> int:
    """How many processes to start: as requested, else cores // threads; at most one per trial."""
    threads = _checks.positive_integer("threads", threads)
    if workers is None:
        workers = max(1, cores() // threads)
    return min(_checks.positive_integer("workers", workers), trials)


def size(client: Any) -> int:
    """The number of worker processes now: each runs one trial, however many threads it has."""
    return len(client.scheduler_info(n_workers=-1)["workers"])


def end_trials(client: Any) -> None:
    """Kills what the workers of a cluster on this machine run, which would delay its end."""
    for nanny in client.cluster.workers.values() if client.cluster is not None else ():
        if pid := getattr(nanny, "pid", None):
            supervision.kill_trials(pid)


def memory_share(client: Any) -> int | None:
    """The bytes that a trial may use so that all workers of its machine can run one.

    On this machine an equal share of what this process may use; on a scheduler's workers the least
    of their limits (`dask worker --memory-limit`), which are such shares by default.
    """
    from distributed.system import MEMORY_LIMIT  # respects control groups and limits

    workers = client.scheduler_info(n_workers=-1)["workers"].values()
    if client.cluster is not None:
        return MEMORY_LIMIT // max(1, len(workers))
    return min((w["memory_limit"] for w in workers if w["memory_limit"]), default=None)
