"""Clusters: addresses, Ctrl-C at the start, workers that die at the end."""

import multiprocessing
import signal
import threading

import pytest
from distributed import LocalCluster, Nanny, Status

from kbptt.ablation import clusters


@pytest.mark.parametrize("address", ["foo", "tcp://", "http://localhost:8787", "tcp://h:x"])
def test_invalid_addresses_are_refused(address):
    with pytest.raises(ValueError, match="Cannot reach a Dask scheduler"):
        with clusters.connect(address, workers=1):
            pass


def test_a_scheduler_without_workers(monkeypatch):
    monkeypatch.setattr(clusters, "WORKERS_SECONDS", 0.2)
    local = {"dashboard_address": "127.0.0.1:0", "host": "127.0.0.1", "silence_logs": 50}
    with LocalCluster(n_workers=0, **local) as cluster:
        with pytest.raises(ValueError, match=r"has no workers.*`dask worker tcp"):
            with clusters.connect(cluster.scheduler_address, workers=1):
                pass


def test_a_worker_that_is_being_started_again_while_the_cluster_closes(monkeypatch):
    """Dask joins a process without a process id then."""
    kill, calls = Nanny.kill, []

    async def starting(self, *args, **kwargs):
        calls.append(self)
        assert len(calls) > 1, "can only join a started process"
        await kill(self, *args, **kwargs)

    monkeypatch.setattr(Nanny, "kill", starting)
    before = multiprocessing.active_children()
    with clusters.connect(None, workers=2) as client:
        assert clusters.size(client) == 2
        assert client.cluster.scheduler.worker_ttl is None  # a computer may sleep for an hour
    assert len(calls) == 2
    assert all(nanny.status == Status.closed for nanny in calls)
    assert client.status == "closed"
    for process in multiprocessing.active_children():
        if process not in before:
            process.join(60)
            assert not process.is_alive()


@pytest.fixture
def python_takes_ctrl_c():
    """It does not where it was started in the background of a shell without job control."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("python_takes_ctrl_c")
def test_ctrl_c_waits_until_the_cluster_can_be_closed():
    steps = []
    with pytest.raises(KeyboardInterrupt):
        with clusters.deferring_interrupts():
            # To this thread: one of the threads of a cluster would take it at some later moment.
            signal.pthread_kill(threading.get_ident(), signal.SIGINT)
            steps.append("started")
        steps.append("went on")
    assert steps == ["started"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
