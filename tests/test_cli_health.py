"""`--health` of `kbptt train` and `kbptt compare`: what `kbptt check` can judge then."""

import json

import pytest
from command_line import kbptt, refused

from kbptt.ablation import trial, worker
from kbptt.ablation.supervision import Limits

pytestmark = pytest.mark.usefixtures("working_directory")
DIGITS = ["train", "digits", "--units", "4", "-o", "sizes=[64,32,32]", "--batch-size", "16"]
OF_HEALTH = ["saturated-gates", "dead-units"]


def judged(run):
    (found,) = json.loads(kbptt("check", run, "--json").stdout)["judged"].values()
    return [name for name in OF_HEALTH if name in found]


def test_a_run_is_judged_by_its_health_once_it_is_logged():
    assert kbptt(*DIGITS, "--epochs", 1, "--logdir", "run").exit_code == 0
    assert judged("run") == []
    assert "--health" in kbptt("check", "run").stdout  # what is missing, and how to get it
    more = kbptt(*DIGITS, "--epochs", 2, "--logdir", "run", "--resume", "--health")
    assert more.exit_code == 0, more.output
    assert judged("run") == OF_HEALTH


def test_a_worker_passes_it_on(monkeypatch):
    calls = []
    monkeypatch.setattr(worker, "_serve", lambda *arguments: calls.append(arguments))
    worker.execute({"seed": 1}, Limits(), True)
    assert calls == [(trial.execute, ({"seed": 1}, True), Limits())]


def test_trials_of_ones_own_log_what_they_like():
    given = "compare", "--tasks", "adding", "--methods", "baseline", "--trial", "json:loads"
    assert "`health` (--health) is for kbptt's own trials" in refused(*given, "--health")
