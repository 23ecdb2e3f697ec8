"""Trials of `dummy_trials`, and a cluster inside the test's own process.

There trials start at once, and errors have no way out.
"""

import contextlib
import pathlib

import pytest


@pytest.fixture
def dummies(monkeypatch):
    """Makes the dummy trials importable here and in the workers."""
    monkeypatch.syspath_prepend(str(pathlib.Path(__file__).parent))


@pytest.fixture(scope="module")
def in_process_client():
    """A client of a worker thread, for one file; its threads take time from no other test."""
    import dask
    from distributed import Client

    settings = {
        "distributed.scheduler.worker-ttl": None,  # as in kbptt.ablation.clusters
        "distributed.worker.profile.enabled": False,
    }
    options = {
        "n_workers": 1,
        "threads_per_worker": 1,
        "memory_limit": None,
        "dashboard_address": "127.0.0.1:0",
    }
    with (
        dask.config.set(settings),
        Client(processes=False, set_as_default=False, silence_logs=50, **options) as client,
    ):
        yield client


@pytest.fixture
def in_process(in_process_client, dummies, monkeypatch):
    """Makes `compare` run its trials in this process; the dummy trials can be imported."""
    from kbptt.ablation import clusters, runner, trial

    def supervised(function):
        return lambda config, *_: function(config)

    @contextlib.contextmanager
    def connect(scheduler, workers):
        yield in_process_client

    monkeypatch.setattr(clusters, "connect", connect)
    for name in ("check", "execute"):
        monkeypatch.setattr(runner, name, supervised(getattr(trial, name)))
