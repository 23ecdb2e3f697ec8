"""How long the tasks take to read a user's files, compared with the simplest ways to read them.

A text of 20 MB against `read().decode()`; CSV files of 9 MB (six decimals, all digits, and with a
column of dates) against `pandas.read_csv`, if pandas is installed (`pip install 'kbptt[csv]'`), and
against the csv module with `float`. Every round measures all of them in turn; medians.

    python scripts/benchmark_reading.py
"""

import argparse
import csv
import statistics
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np

from kbptt import tasks
from kbptt.tasks import csv_table

try:
    import pandas
except ImportError:
    pandas = None


def write_text(path: Path, megabytes: float) -> None:
    words = "it was a dark — and stormy — night, señor; the rain fell in torrents.\n"
    path.write_text(words * int(megabytes * 1e6 / len(words.encode())), encoding="utf-8")


def write_csv(path: Path, megabytes: float, form: str, dates: bool = False) -> None:
    generator = np.random.default_rng(0)
    size, row = 0, 0
    with path.open("w") as file:
        file.write(("day," if dates else "") + ",".join(f"c{i}" for i in range(10)) + "\n")
        while size < megabytes * 1e6:
            values = ",".join(map(form.format, generator.normal(size=10).tolist()))
            size += file.write((f"2020-01-01 {row}," if dates else "") + values + "\n")
            row += 1


def with_pandas(path: Path):
    return pandas.read_csv(path)


def with_csv_module(path: Path):
    with path.open(newline="", encoding="utf-8") as file:
        names, *rows = csv.reader(file)
    columns = zip(*rows, strict=True)
    return [
        column if name == "day" else list(map(float, column))
        for name, column in zip(names, columns, strict=True)
    ]


def without_pandas(path: Path):
    kept, csv_table.PANDAS_FROM = csv_table.PANDAS_FROM, float("inf")
    try:
        return csv_table.Table(path).read()
    finally:
        csv_table.PANDAS_FROM = kept


TEXT = {
    "read().decode()": lambda path: path.read_bytes().decode(),
    "the task": lambda path: tasks.get("text", path=path),
}
CSV = {
    **({"pandas.read_csv": with_pandas} if pandas else {}),
    "csv module and float": with_csv_module,
    "kbptt, without pandas": without_pandas,
    **({"kbptt, with pandas": lambda path: csv_table.Table(path).read()} if pandas else {}),
    "the task": lambda path: tasks.get("csv", path=path),
}


def measure(ways, path: Path, rounds: int) -> dict[str, float]:
    """Returns the median seconds of each way, after one uncounted round."""
    seconds = {name: [] for name in ways}
    for _ in range(rounds + 1):
        for name, way in ways.items():
            begun = time.perf_counter()
            way(path)
            seconds[name].append(time.perf_counter() - begun)
    return {name: statistics.median(values[1:]) for name, values in seconds.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--text", type=float, default=20, help="megabytes of text (20)")
    parser.add_argument("--csv", type=float, default=9, help="megabytes of each CSV file (9)")
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore", ".*columns left out")  # the dates
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "file"
        write_text(path, arguments.text)
        report(f"text of {arguments.text:g} MB", measure(TEXT, path, arguments.rounds))
        for what, form, dates in (
            ("six decimals", "{:.6f}", False),
            ("all digits", "{!r}", False),
            ("six decimals and a column of dates", "{:.6f}", True),
        ):
            write_csv(path, arguments.csv, form, dates)
            title = f"CSV of {arguments.csv:g} MB, {what}"
            report(title, measure(CSV, path, arguments.rounds))


def report(title: str, seconds: dict[str, float]) -> None:
    print(title)
    reference = next(iter(seconds.values()))
    for name, value in seconds.items():
        print(f"  {name:24}{value:8.3f} s {value / reference:8.2f} x")


if __name__ == "__main__":
    main()
