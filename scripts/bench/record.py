"""The record of a release: ratios, with the machine and the versions that gave them.

One JSON file for each version of kbptt, in `benchmarks/`.
"""

import importlib.metadata
import json
import math
import platform
import re
import statistics
from pathlib import Path
from typing import Any

from .cores import cores
from .suites import Row

PACKAGES = ("tensorflow", "keras", "numpy", "torch", "jax")
Record = dict[str, Any]


def machine() -> Record:
    """Processor, such as "AMD EPYC 9R14", cores, and the widest instructions that kbptt uses."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:  # not Linux
        text = ""
    name = re.search(r"^model name\s*: (.*)", text, re.MULTILINE)
    flags = set(text.split())
    return {
        "processor": name[1].strip() if name else platform.processor(),
        "cores": cores(),
        "instructions": next((flag for flag in ("avx512f", "avx2") if flag in flags), "baseline"),
    }


def versions() -> Record:
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def ratios(rows: list[Row]) -> dict[str, dict[str, float]]:
    """The ratios of a suite by label, and by cell and size, with four digits."""
    found: dict[str, dict[str, float]] = {}
    for row in rows:
        for label, value in row["ratios"].items():
            found.setdefault(label, {})[f"{row['cell']} {row['size']}"] = float(f"{value:.4g}")
    return found


def latest(folder: Path) -> Record | None:
    """The record of the highest version."""

    def version(path: Path) -> list[int]:
        return [int(number) for number in re.findall(r"\d+", path.stem)]

    path = max(folder.glob("*.json"), key=version, default=None)
    return json.loads(path.read_text()) if path else None


def changes(before: Record, suite: str, rows: list[Row]) -> list[str]:
    """Lines that show every ratio of a suite before and now."""
    recorded, lines = before["suites"].get(suite, {}).get("ratios", {}), []
    for label, now in ratios(rows).items():
        known = {k: (recorded[label][k], v) for k, v in now.items() if k in recorded.get(label, ())}
        for key, (old, new) in known.items():
            lines.append(f"  {label:28}{key:52}{old:8.3f} → {new:7.3f}  {new / old - 1:+6.1%}")
        if known:
            mean = math.exp(statistics.fmean(math.log(new / old) for old, new in known.values()))
            lines.append(f"  {label:28}{f'geometric mean of {len(known)}':52}{mean - 1:+26.1%}")
    return lines


def title(before: Record) -> str:
    """What the changes are against, and whether the numbers compare."""
    note = (
        "" if before["machine"] == machine() else f", on a different machine: {before['machine']}"
    )
    return f"against the record of {before['kbptt']}{note}"


def current(folder: Path) -> tuple[Path, Record]:
    """The record of this version, or the beginning of one, and where it is or goes.

    Raises:
        SystemExit: If it was measured on a different machine or with other versions.
    """
    import kbptt

    path = folder / f"{kbptt.__version__}.json"
    now: Record = {"kbptt": kbptt.__version__, "machine": machine(), "versions": versions()}
    if not path.exists():
        return path, now | {"suites": {}}
    there = json.loads(path.read_text())
    if any(there.get(key) != value for key, value in now.items()):
        raise SystemExit(
            f"{path} was measured on a different machine or with other versions, and a record is "
            "of one. Delete it to begin again, or give --record another folder."
        )
    return path, there


def keep(folder: Path, suite: str, rounds: int, rows: list[Row]) -> Path:
    """Writes rows of a suite to the record of this version, in which all else stays."""
    path, now = current(folder)
    before = now["suites"].get(suite, {"rounds": rounds, "ratios": {}})
    known, new = before["ratios"], ratios(rows)
    merged = {label: known.get(label, {}) | new.get(label, {}) for label in {**known, **new}}
    now["suites"][suite] = {"rounds": min(rounds, before["rounds"]), "ratios": merged}
    folder.mkdir(exist_ok=True, parents=True)
    path.write_text(json.dumps(now, indent=1) + "\n")
    return path
