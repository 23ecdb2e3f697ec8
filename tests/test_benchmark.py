"""What scripts/benchmark.py measures, and its record."""

import ctypes
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parent.parent / "scripts"
sys.path.append(str(SCRIPTS))

from bench import peak, record, steps, suites  # noqa: E402
from bench.sizes import INFERENCE, WIDE, Size, operations  # noqa: E402
from bench.suites import SUITES, variants_of  # noqa: E402


def test_work_of_a_step():
    """By hand: 2 operations, 3 gates of 7 units, 5 sequences of 2 timesteps, 4 features."""
    rows, width = 5 * 2, 3 * 7
    recurrence, head = 3 * rows * width * 7, 3 * rows * 7
    projection, dx = 2 * rows * width * 4, rows * width * 4
    one = Size(5, 2, 4, 7, 1)
    assert operations("GRU", one) == 2 * (projection + recurrence + head)
    last = Size(5, 2, 4, 7, 1, last=True)
    assert operations("GRU", one) - operations("GRU", last) == 2 * 3 * (rows - 5) * 7
    words = Size(5, 2, 4, 7, 1, words=11)  # the embedding below needs ∂L/∂x
    assert operations("GRU", words) == 2 * (projection + dx + recurrence + 11 * head)
    both = Size(5, 2, 4, 7, 1, layers=2, bidirectional=True)
    above = 3 * rows * width * 14 + recurrence
    assert operations("GRU", both) == 2 * (2 * (projection + recurrence + above) + 2 * head)


def test_sizes_are_read_as_they_are_printed():
    for size in WIDE:
        assert Size.parse(str(size).strip("()").split(", ")) == size
    with pytest.raises(ValueError, match="unknown trait of a size: lasting"):
        Size.parse(["1", "2", "3", "4", "5", "lasting"])


@pytest.mark.skipif(not peak.compiler(), reason="no C compiler")
def test_the_peak_is_measured_with_all_chains():
    """Every chain converges to 0.9·1 + 0.1 = 1."""
    library: ctypes.CDLL = peak.load()
    lanes, rest = divmod(library.operations(), 2 * 12)
    assert lanes in (4, 8, 16) and rest == 0
    assert library.run(1000) == pytest.approx(12)


def test_what_a_size_has_no_use_for_is_left_out(monkeypatch):
    monkeypatch.setattr(steps, "missing", lambda library: "")
    monkeypatch.setattr("bench.suites.missing", lambda library: library == "jax" and "not there")
    few = Size(1, 8, 1, 16, 8)
    assert variants_of(SUITES["sizes"].ratios, few) == [
        *("keras", "keras jit", "kbptt", "torch", "torch time-major")
    ]
    whole, single = (
        variants_of(SUITES["inference"].ratios, size) for size in (INFERENCE[0], INFERENCE[-1])
    )
    assert whole == [
        *("keras predict", "keras predict jit", "kbptt predict"),
        *("keras evaluate", "keras evaluate jit", "kbptt evaluate"),
    ]
    assert single == ["keras once", "kbptt once"]


def test_changes_against_the_record():
    rows = [
        {"cell": "GRU", "size": "(1)", "ratios": {"a/b": 3.0, "new": 1.0}},
        {"cell": "GRU", "size": "(2)", "ratios": {"a/b": 1.0}},
        {"cell": "GRU", "size": "(3)", "ratios": {"a/b": 9.0}},
    ]
    before = {"suites": {"s": {"ratios": {"a/b": {"GRU (1)": 2.0, "GRU (2)": 2.0}}}}}
    lines = [line.split() for line in record.changes(before, "s", rows)]
    assert lines == [
        ["a/b", "GRU", "(1)", "2.000", "→", "3.000", "+50.0%"],
        ["a/b", "GRU", "(2)", "2.000", "→", "1.000", "-50.0%"],
        ["a/b", "geometric", "mean", "of", "2", "-13.4%"],  # √(1.5 · 0.5)
    ]
    assert record.changes(before, "t", rows) == []


def test_the_record_of_the_highest_version_is_read(tmp_path):
    for version in ("0.9.0", "0.10.0"):
        (tmp_path / f"{version}.json").write_text(json.dumps({"kbptt": version}))
    assert record.latest(tmp_path)["kbptt"] == "0.10.0"
    assert record.latest(tmp_path / "none") is None


def test_a_record_keeps_the_suites_of_the_same_machine(tmp_path, monkeypatch):
    rows = [{"cell": "GRU", "size": "(1)", "ratios": {"a/b": 1.23456}}]
    path = record.keep(tmp_path / "new", "first", 7, rows)
    record.keep(tmp_path / "new", "second", 3, rows)
    written = json.loads(path.read_text())
    assert written["suites"]["first"] == {"rounds": 7, "ratios": {"a/b": {"GRU (1)": 1.235}}}
    assert written["suites"]["second"]["rounds"] == 3
    more = [{"cell": "LSTM", "size": "(1)", "ratios": {"a/b": 2.0}}]
    record.keep(tmp_path / "new", "first", 9, more)
    written = json.loads(path.read_text())
    assert written["suites"]["first"]["ratios"] == {"a/b": {"GRU (1)": 1.235, "LSTM (1)": 2.0}}
    assert written["machine"]["cores"] and written["versions"]["keras"]
    monkeypatch.setattr(record, "machine", lambda: {"cores": 1000})
    with pytest.raises(SystemExit, match="different machine"):
        record.keep(tmp_path / "new", "third", 3, rows)
    assert json.loads(path.read_text()) == written
    there = {"kbptt": "0.1.0", "machine": {"cores": 2}}
    assert record.title(there).endswith("of 0.1.0, on a different machine: {'cores': 2}")
    assert record.title({**there, "machine": {"cores": 1000}}).endswith("of 0.1.0")


def test_a_suite_is_measured_and_recorded(tmp_path):
    command = [sys.executable, SCRIPTS / "benchmark.py", "--suite", "norms", "--rounds", "1"]
    command += ["--cells", "SimpleRNN", "--size", "2", "8", "3", "4", "4"]
    command += ["--record", tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr
    assert "SimpleRNN     (2, 8, 3, 4, 4)" in done.stdout
    (path,) = tmp_path.glob("*.json")
    ((key, value),) = json.loads(path.read_text())["suites"]["norms"]["ratios"][
        "recorded/unrecorded"
    ].items()
    assert key == "SimpleRNN (2, 8, 3, 4, 4)" and value > 0


def test_every_ratio_compares_variants_that_can_be_made():
    for suite in SUITES.values():
        for ratio in suite.ratios:
            assert {steps.parse(v)[0] for v in ratio.variants} <= steps.LIBRARIES.keys()


def test_a_worker_imports_the_checkout_that_it_is_given(tmp_path):
    """So nothing that a worker runs before has imported kbptt."""
    shutil.copytree(SCRIPTS.parent / "kbptt", tmp_path / "kbptt")
    program = (
        "import sys, pathlib\n"
        f"sys.path[:0] = [{str(SCRIPTS)!r}]\n"
        "from bench import record, workers\n"
        "assert 'kbptt' not in sys.modules\n"
        f"workers.use_checkout(pathlib.Path({str(tmp_path)!r}))\n"
        f"assert sys.modules['kbptt'].__file__.startswith({str(tmp_path)!r})\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=300)


def test_a_worker_refuses_another_checkout_than_the_one_it_is_given(tmp_path):
    program = (
        "import sys, pathlib, kbptt\n"
        f"sys.path[:0] = [{str(SCRIPTS)!r}]\n"
        "from bench import workers\n"
        f"workers.use_checkout(pathlib.Path({str(tmp_path)!r}))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 1 and f"kbptt of {tmp_path} was asked for" in done.stderr


@pytest.mark.slow
def test_blocks_of_other_sizes_are_built_and_measured(monkeypatch):
    monkeypatch.setattr(suites, "OTHER_BLOCKS", {"GROUP": (48,)})
    rows = SUITES["blocks"].run(["SimpleRNN"], [Size(2, 8, 3, 4, 4)], 1)
    if not rows:
        pytest.skip("no C++ compiler")
    assert [list(row["ratios"]) for row in rows] == [["same"], ["GROUP=48"]]


def test_other_variants_of_the_layer_and_of_the_plan():
    from bench import keras_steps

    from kbptt.engine import plan

    size = Size(2, 8, 3, 4, 4)
    assert keras_steps.layer_arguments({"artbp": ""}, size)["truncation"].stochastic
    seen = []
    keras_steps.with_span(lambda: seen.append(plan.SPAN), 5)()
    assert seen == [5] and plan.SPAN != 5
