"""The ledger survives SIGKILL, a full disk, a second runner and strange files."""

import errno
import json
import math
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time

import pytest

from kbptt.ablation.ledger import Ledger, LedgerError
from kbptt.ablation.rows import canonical, trial_key

CELLS = [({"seed": i, "method": "m"}, f"m/t/{i}") for i in range(5)]


def test_key_is_the_canonical_json():
    # echo -n '{"a":[1,2.5,null],"b":"é"}' with é escaped | sha256sum
    config = {"b": "é", "a": [1, 2.5, None]}
    assert canonical(config) == '{"a":[1,2.5,null],"b":"\\u00e9"}'
    assert trial_key(config) == trial_key(dict(reversed(config.items())))
    assert len(trial_key(config)) == 64
    assert trial_key({"a": 1}) != trial_key({"a": 1.0})
    with pytest.raises(ValueError):
        canonical({"a": math.nan})


def test_states_and_round_trip(tmp_path):
    result = {"score": 0.1 + 0.2, "curve": [1e-308, math.inf, math.nan], "name": "Ω <b>"}
    with Ledger(tmp_path) as ledger:
        ledger.plan({"x": 1}, CELLS)
        keys = [t.key for t in ledger.trials("pending")]
        assert ledger.start(keys[0]) == 1
        assert ledger.start(keys[0]) == 2
        ledger.finish(keys[0], result)
        ledger.start(keys[1])
        ledger.fail(keys[1], "ZeroDivisionError: division by zero")
        ledger.start(keys[2])
    with Ledger(tmp_path) as ledger:
        assert ledger.meta("configuration") == {"x": 1}
        assert ledger.counts() == {"pending": 2, "running": 1, "done": 1, "failed": 1}
        ledger.recover()
        assert ledger.counts() == {"pending": 3, "running": 0, "done": 1, "failed": 1}
        stored = ledger.trials("done")[0]
        assert repr(stored.result) == repr(dict(sorted(result.items())))
        assert stored.config == CELLS[0][0]
        assert "ZeroDivisionError" in ledger.trials("failed")[0].error
        ledger.recover(retry_failed=True)
        assert ledger.counts()["failed"] == 0
        ledger.plan({"x": 1}, CELLS)  # planning again adds nothing
        assert len(ledger.trials()) == 5


def test_one_result_per_trial(tmp_path):
    with Ledger(tmp_path) as ledger:
        ledger.plan({}, CELLS[:1])
        key = ledger.trials()[0].key
        ledger.finish(key, {"score": 1})
        ledger.finish(key, {"score": 2})  # a late duplicate, as after a lost worker
        ledger.fail(key, "late")
        assert [t.result for t in ledger.trials("done")] == [{"score": 1}]


def test_equal_directories_are_told_apart(tmp_path):
    with Ledger(tmp_path) as ledger:
        ledger.plan({}, [({"seed": 0}, "a/b/0"), ({"seed": 1}, "a/b/0")])
        assert len({t.directory for t in ledger.trials()}) == 2


def test_a_second_runner_is_refused(tmp_path):
    with Ledger(tmp_path) as ledger:
        ledger.plan({}, CELLS)
        code = f"from kbptt.ablation.ledger import Ledger; Ledger({str(tmp_path)!r})"
        second = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert second.returncode != 0
        assert f"Another run is using {str(tmp_path)!r} (process {os.getpid()} on" in second.stderr
        with Ledger(tmp_path, read_only=True) as reader:  # reporting meanwhile is fine
            assert len(reader.trials()) == 5
    Ledger(tmp_path).close()


def test_lock_of_a_dead_process_is_no_obstacle(tmp_path):
    code = (
        "import os, signal; from kbptt.ablation.ledger import Ledger;"
        f"ledger = Ledger({str(tmp_path)!r}); os.kill(os.getpid(), signal.SIGKILL)"
    )
    killed = subprocess.run([sys.executable, "-c", code])
    assert killed.returncode == -signal.SIGKILL
    assert (tmp_path / "ledger.lock").read_text().startswith("process ")
    Ledger(tmp_path).close()


def test_full_disk(tmp_path):
    with Ledger(tmp_path) as ledger:
        ledger.plan({}, CELLS)
        keys = [t.key for t in ledger.trials()]
        ledger.finish(keys[0], {"score": 1.0})
        pages = ledger._connection.execute("PRAGMA page_count").fetchone()[0]
        ledger._connection.execute(f"PRAGMA max_page_count = {pages}")
        with pytest.raises(LedgerError, match=r"disk .* is full. Every result so far is safe"):
            ledger.finish(keys[1], {"curve": list(range(100_000))})
    with Ledger(tmp_path) as ledger:
        assert ledger._connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert ledger.counts()["done"] == 1
        ledger.finish(keys[1], {"curve": list(range(100_000))})


def test_unusable_places(tmp_path, monkeypatch):
    with pytest.raises(LedgerError, match="no ablation in"):
        Ledger(tmp_path / "absent", read_only=True)
    (tmp_path / "file").write_text("")
    with pytest.raises(LedgerError, match="Cannot make the log directory"):
        Ledger(tmp_path / "file" / "sub")
    (tmp_path / "ledger.sqlite").write_bytes(b"not a database, but long enough to look at" * 30)
    with pytest.raises(LedgerError, match="not a ledger of kbptt, or is damaged"):
        Ledger(tmp_path)
    other = tmp_path / "other"
    with Ledger(other) as ledger:
        ledger.set_meta("format", "99")
    with pytest.raises(LedgerError, match="format 99"):
        Ledger(other)

    def no_room(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("pathlib.Path.mkdir", no_room)
    with pytest.raises(LedgerError, match="is full"):
        Ledger(tmp_path / "new")


WRITER = """
import sys, random
from kbptt.ablation.ledger import Ledger
planned = [({"seed": i}, f"m/t/{i}") for i in range(400)]
with Ledger(sys.argv[1]) as ledger:
    ledger.plan({"n": 400}, planned)
    ledger.recover()
    print("ready", flush=True)
    for trial in ledger.trials("pending"):
        ledger.start(trial.key)
        rng = random.Random(trial.config["seed"])
        ledger.finish(trial.key, {"curve": [rng.random() for _ in range(200)]})
"""


def test_sigkill_at_random_moments(tmp_path):
    """30 seeded kills of a process that writes results; then a run to the end."""
    rng = random.Random(0)
    done = []
    for _ in range(30):
        process = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE
        )
        process.stdout.readline()
        time.sleep(rng.uniform(0, 0.02))
        process.kill()
        process.wait()
        process.stdout.close()
        with Ledger(tmp_path, read_only=True) as ledger:
            done.append(ledger.counts()["done"])
    assert done == sorted(done)  # nothing that was stored is ever lost
    subprocess.run([sys.executable, "-c", WRITER, str(tmp_path)], check=True, capture_output=True)
    rows = sqlite3.connect(tmp_path / "ledger.sqlite").execute("SELECT config, result FROM trials")
    rows = rows.fetchall()
    assert len(rows) == 400
    for config, result in rows:
        expected = random.Random(json.loads(config)["seed"])
        assert json.loads(result)["curve"] == [expected.random() for _ in range(200)]
