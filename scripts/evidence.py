"""Repeats published results with kbptt: nine parts, each with its figure and a verdict.

    python scripts/evidence.py                           # everything that needs no text
    python scripts/evidence.py --text time_machine.txt   # everything
    python scripts/evidence.py --part chrono flossing --seeds 3
    python scripts/evidence.py --list                    # the parts, minutes, how far they are
    python scripts/evidence.py --go-on --record          # finish what this checkout has recorded

Every result goes to LOGDIR/ledger.jsonl at once: after an interruption, `kill -9` included, the
same command goes on. Afterwards LOGDIR/evidence.md shows what there is, with LOGDIR/images.
"""

import argparse
import json
import os
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from bench import record as benchmarks
from papers import PARTS, load, page
from papers.ledger import Ledger, Trial, digest
from papers.part import Parameters
from papers.running import Planned, run_all

ROOT = Path(__file__).resolve().parents[1]
RECORD = ROOT / "benchmarks" / "evidence.json"
PAGE = ROOT / "docs" / "evidence.md"


def main() -> None:
    parser = make_parser()
    a = parser.parse_args()
    if a.text and not a.text.is_file():
        parser.error(f"--text expects a file. Received: {a.text}")
    ledger = Ledger(a.logdir / "ledger.jsonl")
    if a.go_on:
        take_over(ledger)
    if a.list:
        show(a, ledger)
        return
    for name in a.part:
        if load(name).TEXT and not a.text:
            print(f"{name}: skipped: needs --text ({load(name).TEXT})", flush=True)
    done = ledger.read()
    waiting = [one for one in plan(a) if one.trial not in done]
    print(f"{len(waiting)} trials to run; interrupt at will", flush=True)
    failed = run_all(waiting, ledger, a.workers, lambda line: print(line, flush=True))
    found = collect(ledger, a.quick)
    write(found, a.logdir / "evidence.md", a.logdir / "images", a.part)
    report(found, a.part)
    if a.record:
        RECORD.write_text(json.dumps(found, ensure_ascii=False, separators=(",", ":")) + "\n")
        write(found, PAGE, PAGE.parent / "images", list(PARTS))
    sys.exit(f"{failed} trials failed; the same command tries them again" if failed else 0)


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--part", nargs="+", choices=PARTS, default=list(PARTS), metavar="PART")
    parser.add_argument("--seeds", type=int, help="default: those of each part")
    parser.add_argument("--text", type=Path, help="The Time Machine as a UTF-8 file")
    parser.add_argument("--workers", type=int, default=2, help="processes (default: 2)")
    parser.add_argument("--logdir", type=Path, default=Path("runs/evidence"))
    parser.add_argument("--list", action="store_true", help="show the parts; run nothing")
    parser.add_argument("--quick", action="store_true", help="tiny runs, to see that it works")
    parser.add_argument(
        "--go-on", action="store_true", help="count the results in benchmarks/ as done"
    )
    parser.add_argument("--record", action="store_true", help="keep the results in this checkout")
    return parser


def parameters_of(name: str, setting: str, quick: bool) -> Parameters:
    part = load(name)
    return part.SETTINGS[setting] | (part.QUICK if quick else {})


def plan(a: argparse.Namespace) -> list[Planned]:
    """All trials that can run: the first seed of everything first, short parts before long ones."""
    planned: dict[Trial, Planned] = {}  # made tiny, some settings are the same
    for name in sorted(a.part, key=lambda name: load(name).MINUTES):
        part = load(name)
        if part.TEXT and not a.text:
            continue
        text = str(a.text.resolve()) if part.TEXT else ""
        for seed in range(part.SEEDS if a.seeds is None else a.seeds):
            for setting in part.SETTINGS:
                parameters = parameters_of(name, setting, a.quick)
                if seed < parameters.get("seeds", part.SEEDS):  # fewer where nothing is random
                    trial = Trial(name, seed, digest(parameters))
                    planned.setdefault(trial, Planned(trial, setting, parameters, text))
    return sorted(planned.values(), key=lambda one: one.trial.seed)


def collect(ledger: Ledger, quick: bool = False) -> page.Record:
    """What the ledger has of the present parameters, as the record."""
    done, parts = ledger.read(), {}
    for name in PARTS:
        digests = {s: digest(parameters_of(name, s, quick)) for s in load(name).SETTINGS}
        scores = {}
        for setting, wanted in digests.items():
            seeds = sorted(t.seed for t in done if (t.part, t.digest) == (name, wanted))
            if seeds:
                scores[setting] = {str(seed): done[Trial(name, seed, wanted)] for seed in seeds}
        if scores:
            parts[name] = {"digests": {s: digests[s] for s in scores}, "scores": scores}
    made = {"versions": benchmarks.versions(), "processor": benchmarks.machine()["processor"]}
    return {"parts": parts, "made": made}


def take_over(ledger: Ledger) -> None:
    """Adds the results of the record that the ledger does not have."""
    done, record = ledger.read(), json.loads(RECORD.read_text(encoding="utf-8"))
    for name, part in record["parts"].items():
        for setting, of_seeds in part["scores"].items():
            for seed, result in of_seeds.items():
                trial = Trial(name, int(seed), part["digests"][setting])
                if trial not in done:
                    ledger.append(trial, setting, result)


def write(found: page.Record, path: Path, images: Path, names: list[str]) -> None:
    images.mkdir(parents=True, exist_ok=True)
    page.draw(found, images, names)
    path.write_text(page.page(found), encoding="utf-8")


def report(found: page.Record, names: list[str]) -> None:
    """Prints the verdicts."""
    for name, (verdict, checks) in page.summary(found).items():
        if name in names:
            print(f"\n{load(name).TITLE}: {verdict}")
            for check in checks:
                mark = {True: "yes", False: "NO", None: "open"}[check.holds]
                print(f"  {mark:4} {check.statement}: {check.ours} (published: {check.published})")


def show(a: argparse.Namespace, ledger: Ledger) -> None:
    """Prints the parts, what they take, and how far they are."""
    done, planned, total = ledger.read(), plan(a), 0.0
    for name in a.part:
        part = load(name)
        trials = [one.trial for one in planned if one.trial.part == name]
        total += part.MINUTES
        needs = f"; needs --text: {part.TEXT}" if part.TEXT and not a.text else ""
        print(
            f"{name:20}{part.MINUTES:4.0f} min of processor time, {part.SEEDS} seeds, "
            f"{sum(trial in done for trial in trials)} of {len(trials)} trials done{needs}"
        )
    print(f"{'in all':20}{total:4.0f} min; on two cores half of it")


if __name__ == "__main__":
    main()
