"""The runner: retries, dead workers, interruptions and changed configurations."""

import errno
import os
import pathlib
import pickle
import re
import sys

import pytest

from kbptt.ablation import runner
from kbptt.ablation.grid import Grid
from kbptt.ablation.ledger import LedgerError
from kbptt.ablation.trial import TrialError


@pytest.fixture(autouse=True)
def markers(dummies, monkeypatch, tmp_path_factory):
    monkeypatch.setenv("KBPTT_TEST_MARKERS", str(tmp_path_factory.mktemp("markers")))


def grid(trial="score", **changes):
    arguments = {"tasks": ["adding"], "methods": ["baseline", "clip"], "seeds": 2}
    return Grid.make(**{**arguments, "trial": f"dummy_trials:{trial}", **changes})


def run(a_grid, logdir, workers=1, **changes):
    options = {k: changes.pop(k) for k in ("extend", "overwrite", "retry_failed") if k in changes}
    events = []
    with runner.open_ledger(a_grid, logdir, **options) as ledger:
        runner.run(ledger, workers=workers, on_event=events.append, **changes)
        return ledger.trials(), events


def scores(trials):
    return {t.directory: t.result["score"] for t in trials if t.state == "done"}


def test_runs_every_trial_once_and_resumes(tmp_path):
    import dummy_trials

    trials, events = run(grid(), tmp_path, workers=2)
    assert [t.state for t in trials] == ["done"] * 4
    for trial in trials:
        assert trial.result["score"] == dummy_trials.score(trial.config)["score"]
        assert (tmp_path / trial.directory / "train" / "events").exists()
        assert "files" not in trial.result
    assert sorted(e.state for e in events) == ["built"] * 2 + ["done"] * 4 + ["running"] * 4
    again, events = run(grid(), tmp_path)
    assert again == trials and events == []
    assert not list(tmp_path.glob(".writing-*"))


def test_a_crash_is_retried_then_recorded_while_the_others_continue(tmp_path):
    trials, events = run(grid("crashing"), tmp_path)
    assert [t.state for t in trials] == ["done", "failed", "done", "failed"]
    assert re.fullmatch(
        r"ZeroDivisionError: by design \(dummy_trials\.py, line \d+\)", trials[1].error
    )
    assert trials[1].attempts == 3
    assert [e.state for e in events].count("retry") == 4
    again, events = run(grid("crashing"), tmp_path)
    assert again == trials and events == []  # recorded; only --retry-failed tries again
    _, events = run(grid("crashing"), tmp_path, retry_failed=True, retries=0)
    assert [e.state for e in events if e.state != "built"] == ["running", "failed"] * 2


def test_trial_that_stops_fails_alone(tmp_path, capfd):
    """`KeyboardInterrupt` and the like of a trial's own code: no worker dies of them."""
    trials, _ = run(grid("stopping", seeds=3), tmp_path, retries=0)
    assert [t.state for t in trials] == ["done", "failed"] * 3
    assert [t.attempts for t in trials] == [1] * 6
    for trial, words in zip(
        trials[1::2], ("KeyboardInterrupt", "SystemExit: by design", "Stop"), strict=True
    ):
        assert re.fullmatch(rf"{words} \(dummy_trials\.py, line \d+\)", trial.error)
    assert capfd.readouterr() == ("", "")


def test_crash_that_passes(tmp_path):
    trials, _ = run(grid("crashing_once"), tmp_path)
    assert [t.state for t in trials] == ["done"] * 4
    assert {t.attempts for t in trials} == {2}


def test_killed_worker_and_killing_trial(tmp_path):
    expected = scores(run(grid(), tmp_path / "calm")[0])
    trials, events = run(grid("killed_once"), tmp_path / "once", workers=2)
    assert scores(trials) == expected
    assert "SIGKILL" in next(e.error for e in events if e.state == "retry")
    trials, _ = run(grid("killing", seeds=1), tmp_path / "always")
    assert [t.state for t in trials] == ["done", "failed"]
    assert trials[1].error.startswith("Its process was killed by SIGKILL")
    assert trials[1].attempts == 3


def test_mistake_is_found_before_anything_is_trained(tmp_path):
    with pytest.raises(ValueError, match=r"baseline/adding/0 cannot be built: .*'adma'.*adagrad"):
        run(Grid.make(["adding"], ["baseline", "clip"], 2, optimizer="adma"), tmp_path)
    with pytest.raises(ValueError, match="cannot be built: Cannot import 'dummy_trials:nope'"):
        run(grid("nope"), tmp_path)
    # Put right, it is a different configuration, but there are no results to lose.
    trials, _ = run(grid(), tmp_path)
    assert [t.state for t in trials] == ["done"] * 4
    with pytest.raises(LedgerError, match="a different configuration"):
        run(grid("nope"), tmp_path)


@pytest.mark.parametrize("trial", ["unstorable", "escaping"])
def test_result_that_cannot_be_stored(trial, tmp_path):
    for _ in range(2):  # nor does it end the study when that goes on
        trials, _ = run(grid(trial, methods=["clip"], seeds=1), tmp_path / "logs")
        assert [t.state for t in trials] == ["failed"]
        assert trials[0].error.startswith("The result cannot be stored: `")
        assert trials[0].attempts == 1  # the same again would not be better
    assert ("leads outside" in trials[0].error) == (trial == "escaping")
    assert not (tmp_path / "escaped").exists()


def test_changed_configuration(tmp_path):
    first, _ = run(grid(seeds=1), tmp_path)
    with pytest.raises(LedgerError) as refusal:
        run(grid(seeds=2, methods=["baseline", "clip", "layernorm"]), tmp_path)
    message = str(refusal.value)
    assert "seeds: [0] → [0, 1]" in message and "methods.layernorm: +" in message
    assert "--extend to keep its 2 trials and run the 4 new ones" in message
    with pytest.raises(LedgerError, match=r"settings.epochs: \+ 3(.|\n)*--overwrite"):
        run(grid(seeds=1, epochs=3), tmp_path)
    with pytest.raises(LedgerError, match="cannot be extended"):
        run(grid(seeds=1, epochs=3), tmp_path, extend=True)
    more, events = run(grid(seeds=2), tmp_path, extend=True)
    assert more[:2] == first and len(more) == 4
    assert len(events) == 2 * 2
    old = tmp_path / first[0].directory
    trials, _ = run(grid(seeds=[7], methods=["clip"]), tmp_path, overwrite=True)
    assert [t.directory for t in trials] == ["clip/adding/7"] and not old.exists()


def test_overwrite_deletes_only_a_different_configuration(tmp_path):
    """The same command twice, `--overwrite` and all, goes on where it stopped."""
    first, _ = run(grid(seeds=1), tmp_path, overwrite=True)
    event_file = tmp_path / first[0].directory / "train" / "events"
    before = event_file.stat()
    again, events = run(grid(seeds=1), tmp_path, overwrite=True)
    assert again == first and events == []
    assert event_file.stat().st_mtime_ns == before.st_mtime_ns
    with pytest.raises(LedgerError, match="either extend or overwrite"):
        run(grid(seeds=2), tmp_path, overwrite=True, extend=True)
    assert event_file.exists()


def test_directories_of_others_are_left_alone(tmp_path):
    mine = tmp_path / "clip" / "adding" / "0"
    mine.mkdir(parents=True)
    with pytest.raises(LedgerError, match="does not belong to an ablation"):
        run(grid(), tmp_path)
    run(grid(methods=["baseline"]), tmp_path)
    for how in ("extend", "overwrite"):
        with pytest.raises(LedgerError, match="does not belong to an ablation"):
            run(grid(), tmp_path, **{how: True})
    assert mine.exists()


def test_full_disk_while_writing_files(tmp_path, monkeypatch):
    def no_room(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(pathlib.Path, "write_bytes", no_room)
        with pytest.raises(LedgerError, match="Every result so far is safe"):
            run(grid(), tmp_path)
    trials, _ = run(grid(), tmp_path)
    assert [t.state for t in trials] == ["done"] * 4


def test_full_disk_of_a_worker(tmp_path, monkeypatch):
    monkeypatch.setenv("KBPTT_TEST_FULL", "1")
    with pytest.raises(LedgerError, match=r"no room for temporary files.*TMPDIR"):
        run(grid("without_room"), tmp_path)
    monkeypatch.setenv("KBPTT_TEST_FULL", "")
    trials, _ = run(grid("without_room"), tmp_path)
    assert [t.state for t in trials] == ["done"] * 4


def test_errors_need_no_tensorflow_to_be_read():
    for error, full in (
        (KeyError("x\ny"), False),
        (OSError(errno.EDQUOT, os.strerror(errno.EDQUOT)), True),
        (RuntimeError(f"Failed to flush: {os.strerror(errno.ENOSPC)}"), True),
    ):
        described = pickle.loads(pickle.dumps(TrialError.describing(error)))
        assert str(described).startswith(type(error).__name__) and "\n" not in str(described)
        assert described.disk_full == full


def test_unreachable_scheduler(tmp_path, monkeypatch):
    with runner.open_ledger(grid(), tmp_path) as ledger:
        for address in ("nonsense://", "tcp://127.0.0.1:1"):
            monkeypatch.setattr(
                "distributed.Client", lambda *a, **k: (_ for _ in ()).throw(OSError("refused"))
            )
            with pytest.raises(ValueError, match="Cannot reach a Dask scheduler at"):
                runner.run(ledger, scheduler=address)


def test_parent_imports_no_tensorflow(tmp_path):
    import subprocess

    code = (
        "import sys\nfrom kbptt.ablation import runner\nfrom kbptt.ablation.grid import Grid\n"
        "if __name__ == '__main__':\n"
        "    grid = Grid.make(['adding'], ['clip'], 1, trial='dummy_trials:score')\n"
        f"    with runner.open_ledger(grid, {str(tmp_path / 'logs')!r}) as ledger:\n"
        "        runner.run(ledger)\n"
        "        assert ledger.counts()['done'] == 1\n"
        "    grid = Grid.make(['adding'], ['clip'], 1, trial='dummy_trials:foreign_error')\n"
        f"    with runner.open_ledger(grid, {str(tmp_path / 'failed')!r}) as ledger:\n"
        "        runner.run(ledger, retries=0)\n"
        "        assert 'Fault' in ledger.trials('failed')[0].error\n"
        "    assert not {'tensorflow', 'keras', 'xmlrpc'} & set(sys.modules)\n"
    )
    script = tmp_path / "script.py"
    script.write_text(code)
    environment = {**os.environ, "PYTHONPATH": str(pathlib.Path(__file__).parent)}
    subprocess.run([sys.executable, str(script)], check=True, env=environment)
