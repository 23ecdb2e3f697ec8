"""Where the time of the tests goes, beside the record in `benchmarks/test_times.json`.

    make test                                            # ends with this table
    python scripts/test_times.py build/tests.xml --record   # keep it: part of a release

Reads the JUnit file that `pytest --junitxml` writes. The seconds of a file are those of its tests
with their fixtures, in whichever process they ran; machines differ, so a file counts as slower when
its share of the whole has doubled.
"""

import argparse
import collections
import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path

RECORD = Path(__file__).parents[1] / "benchmarks" / "test_times.json"
SHOWN = 12
NOTABLE = 10.0  # seconds: shares of less are noise


def seconds_by_file(report: Path) -> dict[str, float]:
    """Seconds of each test file, slowest first."""
    total: collections.Counter[str] = collections.Counter()
    for case in ElementTree.parse(report).iter("testcase"):
        total[case.get("classname", "")] += float(case.get("time", 0))
    return {name: round(seconds, 1) for name, seconds in total.most_common()}


def table(now: dict[str, float], before: dict[str, float]) -> str:
    """The slowest files, and every notable one whose share of the whole has doubled."""
    whole, whole_before = sum(now.values()), sum(before.values())
    lines = [
        f"{whole:8.0f} s  all {len(now)} files" + (f" ({whole_before:.0f} s)" if before else "")
    ]
    for place, (name, seconds) in enumerate(now.items()):
        known = before.get(name)
        doubled = known is not None and seconds / whole > 2 * known / whole_before
        slower = seconds >= NOTABLE and before and (known is None or doubled)
        if place < SHOWN or slower:
            was = f" ({known:.0f} s)" if known is not None else ""
            note = "" if not slower else "  new" if known is None else "  share doubled"
            lines.append(f"{seconds:8.0f} s  {name}{was}{note}")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("report", type=Path, help="of pytest --junitxml")
    parser.add_argument("--record", action="store_true", help=f"write {RECORD.name}")
    parser.add_argument("--against", type=Path, default=RECORD, help="a different record")
    a = parser.parse_args()
    now = seconds_by_file(a.report)
    before = json.loads(a.against.read_text()) if a.against.exists() else {}
    print("Time of the tests by file" + (", in brackets the record's" if before else ""))
    print(table(now, before))
    if a.record:
        RECORD.write_text(json.dumps(now, indent=1) + "\n")


if __name__ == "__main__":
    main()
