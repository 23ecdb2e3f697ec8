"""The evidence: every part runs, a killed run goes on, verdicts follow from the scores."""

import contextlib
import json
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
SCRIPTS = ROOT / "scripts"
sys.path.append(str(SCRIPTS))

from papers import PARTS, chrono, copy_memory, load, page, part, temporal_order  # noqa: E402
from papers.ledger import Ledger, Trial, digest  # noqa: E402
from papers.part import Check, Results  # noqa: E402

RECORD = ROOT / "benchmarks" / "evidence.json"
TEXT = "The Time Traveller (for so it will be convenient to speak of him) was expounding. " * 30


def command(*arguments, cwd, **options):
    line = [sys.executable, SCRIPTS / "evidence.py", *map(str, arguments)]
    return subprocess.run(line, cwd=cwd, capture_output=True, text=True, timeout=500, **options)


@pytest.fixture(scope="module")
def quick(tmp_path_factory):
    """All parts, made tiny, one seed."""
    folder = tmp_path_factory.mktemp("evidence")
    (folder / "book.txt").write_text(TEXT)
    done = command("--quick", "--seeds", 1, "--text", "book.txt", cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder / "runs/evidence", done.stdout


@pytest.mark.parametrize("name", PARTS)
def test_every_part_runs_to_its_figure(quick, name):
    logdir, printed = quick
    module = load(name)
    written = (logdir / "evidence.md").read_text()
    assert f"## {module.TITLE}" in written and f"{module.TITLE}: " in printed
    assert (logdir / f"images/evidence-{name}.png").stat().st_size > 4000
    lines = [json.loads(line) for line in (logdir / "ledger.jsonl").read_text().splitlines()]
    wanted = {digest(setting | module.QUICK) for setting in module.SETTINGS.values()}
    assert {line["parameters"] for line in lines if line["part"] == name} == wanted


@pytest.mark.parametrize("name", PARTS)
def test_every_part_tells_what_it_repeats(name):
    module = load(name)
    for text in (module.TITLE, module.CLAIM, module.SOURCE, module.DIFFERS):
        assert text
    assert module.__doc__ and module.checks.__doc__ and module.PUBLISHED
    assert module.SEEDS >= 6 and module.MINUTES > 0
    assert "https://" in module.SOURCE
    assert module.checks(Results({})) == []


def test_a_killed_run_goes_on(tmp_path):
    arguments = ("--quick", "--part", "irnn_adding", "--seeds", 2, "--workers", 1)
    line = [sys.executable, SCRIPTS / "evidence.py", *map(str, arguments)]
    ledger = tmp_path / "runs/evidence/ledger.jsonl"
    running = subprocess.Popen(line, cwd=tmp_path, stdout=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 120
        while not (ledger.exists() and ledger.read_text().count("\n") >= 1):
            assert time.monotonic() < deadline and running.poll() is None
            time.sleep(0.05)
        workers = children(running.pid)
        running.kill()
        running.wait()
    finally:
        running.kill()
    deadline = time.monotonic() + 30
    while any(is_running(pid) for pid in workers):  # they end with their parent
        assert time.monotonic() < deadline
        time.sleep(0.1)
    with ledger.open("a") as file:
        file.write('{"part": "irnn_adding", "sett')  # as if it was cut off while writing
    before = ledger.read_text().splitlines()
    done = command(*arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    after = ledger.read_text().splitlines()
    assert after[: len(before)] == before
    # Two networks and two seeds: nothing twice. One line is torn.
    assert len(Ledger(ledger).read()) == 4 == len(after) - 1
    listed = command("--list", *arguments, cwd=tmp_path).stdout
    assert "4 of 4 trials done" in listed and ledger.read_text().splitlines() == after


def children(pid):
    """The processes that a process has started, and theirs."""
    found = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in map(int, task.read_text().split()):
            found += [child, *children(child)]
    return found


def is_running(pid):
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    return False


def test_other_parameters_are_a_different_trial(tmp_path):
    ledger = Ledger(tmp_path / "a/ledger.jsonl")
    trial, other = (Trial("chrono", 3, digest({"steps": steps})) for steps in (1, 2))
    ledger.append(trial, "adding", {"score": 1.0, "seconds": 2.0})
    ledger.append(trial, "adding", {"score": 2.0, "seconds": 3.0})
    assert ledger.read() == {trial: {"score": 2.0, "seconds": 3.0}} and trial != other


def test_a_part_without_its_text_is_skipped(tmp_path):
    done = command("--part", "time_machine", "--quick", cwd=tmp_path)
    assert done.returncode == 0 and "time_machine: skipped: needs --text" in done.stdout
    assert "skipped: needs `--text`" in (tmp_path / "runs/evidence/evidence.md").read_text()
    missing = command("--text", "nowhere.txt", cwd=tmp_path)
    assert missing.returncode == 2 and "expects a file" in missing.stderr


def test_verdicts():
    yes, no = Check("a", "1", "1", True), Check("b", "1", "2", False)
    assert part.verdict([yes, yes], 6, 6) == "reproduced"
    assert part.verdict([yes, no], 6, 6) == "partly reproduced"
    assert part.verdict([no, no], 8, 6) == "not reproduced"
    assert part.verdict([yes], 5, 6) == "reproduced so far (unfinished: 5 of 6 seeds), exploratory"
    few = Check("c", "1", "2", None)
    assert part.verdict([few], 2, 6) == "open (unfinished: 2 of 6 seeds), exploratory"
    assert part.verdict([yes, few], 6, 6) == "reproduced so far"
    assert part.verdict([], 0, 6) == "not run yet"


def test_with_few_seeds_a_test_is_open():
    assert part.significant(True, np.ones(5)) is None
    assert part.significant(True, np.ones(6)) is True
    assert part.significant(False, np.ones(6)) is False
    assert part.significant(True, np.array([1, 1, 1, 1, 1, -1])) is False


def scores(values, name="score", **others):
    return {seed: {name: value, **others} for seed, value in enumerate(values)}


def holds(module, results):
    return [check.holds for check in module.checks(Results(results))]


@pytest.mark.parametrize(("wrong", "expected"), [(0.0, True), (0.2, False)])
def test_rule_of_temporal_order(wrong, expected):
    solved = scores([int(wrong < 0.01)] * 6, "solved", score=wrong)
    assert holds(temporal_order, {"50, clip + Ω": solved}) == [expected]
    assert holds(temporal_order, {"50, clip": solved}) == [not expected]
    one_fails = scores([1, 1, 1, 1, 1, 0], "solved", score=0.0)
    assert holds(temporal_order, {"50, clip + Ω": one_fails}) == [False]


@pytest.mark.parametrize(("better", "expected"), [(1, True), (-1, False)])
def test_rules_of_paired_comparisons(better, expected):
    """Six pairs in favor are just significant: p = 2/2⁶ = 0.031; five of six are not."""
    low, high = np.linspace(1, 2, 6), np.linspace(1, 2, 6) + better
    assert holds(load("artbp_text"), {"fixed, 50": scores(high), "ARTBP, 50": scores(low)}) == [
        expected
    ]
    high[0] = low[0] - 1
    assert not any(holds(load("artbp_text"), {"fixed, 50": scores(high), "ARTBP, 50": scores(low)}))
    warp = {"warp 5, SimpleRNN": scores(low + better), "warp 5, GRU chrono": scores(low)}
    assert holds(chrono, warp) == [expected]


def test_rules_with_numbers():
    machine, copy = load("time_machine"), load("aicher_copy")
    assert holds(machine, {"GRU": scores([1.02, 1.03])}) == [True]
    assert holds(machine, {"GRU": scores([1.02, 1.12])}) == [False]
    assert holds(machine, {"SimpleRNN": scores([1.33])}) == [True]
    assert holds(copy, {"K = 5": scores([1.6] * 6)}) == [True]
    assert holds(copy, {"K = 5": scores([1.2] * 6)}) == [False]
    assert holds(copy, {"K = 10": scores([1.2] * 6)}) == [False]


def test_a_diverged_run_does_not_count_as_solved():
    runs = scores([1] * 5 + [0], "solved", score=None, steps=100)
    (check,) = copy_memory.checks(Results({"T = 100": runs}))
    assert not check.holds and "5 of 6" in check.ours


def test_warped_sequences():
    """Each target is the last symbol that differs from the present one."""
    x, y = chrono.warped(np.random.default_rng(0), 50, 40, most=4)
    symbols = x.argmax(axis=2)
    assert np.all(x.sum(axis=2) == 1) and np.all(y[:, 0] == chrono.SYMBOLS)
    longest = 0
    for row, targets in zip(symbols, y, strict=True):
        before, run = chrono.SYMBOLS, 1
        for t in range(1, len(row)):
            if row[t] != row[t - 1]:
                before, run = row[t - 1], 0
            run += 1
            longest = max(longest, run)
            assert targets[t] == before
    assert longest == 4


def test_the_copy_task_of_aicher():
    x, y = load("aicher_copy").sequences(np.random.default_rng(0), 100)
    symbols = x.argmax(axis=2)
    shown = y != 0
    np.testing.assert_array_equal(symbols[:, :-10][shown[:, 10:]], y[:, 10:][shown[:, 10:]])
    assert np.all((symbols == 0) == shown)  # never both
    assert set(np.unique(symbols)) == {0, 1, 2, 3, 4, 5}


@pytest.mark.skipif(not RECORD.exists(), reason="nothing is recorded")
def test_the_page_is_that_of_the_record():
    record = json.loads(RECORD.read_text(encoding="utf-8"))
    assert (ROOT / "docs/evidence.md").read_text(encoding="utf-8") == page.page(record)
    shown = re.findall(r"images/(evidence-\w+\.png)", page.page(record))
    assert shown and all((ROOT / "docs/images" / name).is_file() for name in shown)
    assert {p.name for p in (ROOT / "docs/images").glob("evidence-*")} == set(shown)
    assert set(record["parts"]) <= set(PARTS)
