"""How fast and how large kbptt is: beside keras.layers, PyTorch and JAX, and its own options.

Every number is a median over rounds; in a round all variants run one after the other, so that a
machine that slows down slows all of them. Quote the ratios, never a time alone.

    python scripts/benchmark.py                      # the README's sizes
    python scripts/benchmark.py --suite sizes        # wide layers, short sequences, stacks, …
    python scripts/benchmark.py --suite sizes --sizes 2 3 --cells LSTM
    python scripts/benchmark.py --size 32 200 8 256 50 layers=2 last  # a size of your own
    python scripts/benchmark.py --against ../old     # this checkout against one built there
    python scripts/benchmark.py --against ../old --suite sizes
    taskset -c 0 python scripts/benchmark.py --against ../old  # on one thread
    python scripts/benchmark.py --suite all --quick  # everything, three rounds of each
    python scripts/benchmark.py --suite all --record # and kept as the record of this version

After a suite it prints the change of every ratio against the latest record in `benchmarks/`.
PyTorch and JAX are measured where they are installed (the extra `bench`).
"""

import argparse
import functools
import json
import os
import time
from pathlib import Path

from bench import record, suites
from bench.sizes import Size
from bench.suites import SUITES

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

ROOT = Path(__file__).resolve().parents[1]
RECORDS = ROOT / "benchmarks"


def draw_sliding(rows: list[dict], path: Path) -> None:
    """The cost of a step against length/stride, both relative to chunks."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6, 4), layout="constrained")
    for row in rows:
        points = sorted((float(label[1:]), ratio) for label, ratio in row["ratios"].items())
        label = f"{row['cell']} {row['size']}"
        axes.plot(*zip((1, 1), *points, strict=True), "o-", label=label)
    limits = [1, max(float(label[1:]) for row in rows for label in row["ratios"])]
    axes.plot(limits, limits, ":", color="gray", label="proportional")
    axes.set(xscale="log", yscale="log", xlabel="length / stride", ylabel="time of a step / chunks")
    axes.legend()
    figure.savefig(path, dpi=100)


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="suites:\n" + "\n".join(f"  {n:14} {s.about}" for n, s in SUITES.items()),
    )
    parser.add_argument(
        "--suite", nargs="+", choices=[*SUITES, "all"], default=["speed"], metavar="SUITE"
    )
    parser.add_argument(
        "--against",
        type=Path,
        metavar="CHECKOUT",
        help="compare the kbptt of this folder with that of a different one, such as a git "
        "worktree in which the loops are built, at the sizes of the suite; above 1 this one is "
        "faster",
    )
    parser.add_argument("--cells", nargs="+", help="such as LSTM; default: all of the suite")
    parser.add_argument("--sizes", nargs="+", type=int, help="indices of the suite's sizes, from 0")
    parser.add_argument(
        "--size",
        nargs="+",
        action="append",
        metavar="NUMBER",
        help="a size of your own: batch, timesteps, features, units, window, then any of layers=N, "
        "words=N, last, bidirectional, stateful; may be given several times",
    )
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument(
        "--quick", action="store_const", const=3, dest="rounds", help="three rounds"
    )
    parser.add_argument(
        "--processes",
        type=int,
        default=1,
        help="with --against: how often each size is measured in fresh processes, whose memory "
        "lies elsewhere; all their rounds count",
    )
    parser.add_argument("--output", type=Path, default=None, help="JSON file; none by default")
    parser.add_argument(
        "--record",
        type=Path,
        nargs="?",
        const=RECORDS,
        metavar="FOLDER",
        help="keep the ratios as the record of this version, in benchmarks/ or in FOLDER",
    )
    parser.add_argument("--figure", type=Path, default=None, help="image of the suite `sliding`")
    return parser


def sizes_of(suite: suites.Suite, arguments: argparse.Namespace) -> list[Size]:
    if arguments.size:
        return [Size.parse(size) for size in arguments.size]
    if arguments.sizes:
        return [suite.sizes[i] for i in arguments.sizes]
    return list(suite.sizes)


def check(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> None:
    """Ends with a message about arguments that contradict each other."""
    names = arguments.suite
    if "all" in names:
        names[:] = SUITES
    if arguments.figure and names != ["sliding"]:
        parser.error("--figure draws the suite `sliding` alone")
    if (arguments.size or arguments.sizes or arguments.against) and len(names) > 1:
        parser.error("--size, --sizes and --against need a single suite")
    if arguments.processes != 1 and not arguments.against:
        parser.error("--processes repeats the measurement of --against alone")
    if arguments.against and arguments.record:
        parser.error("--record keeps suites, not a comparison of checkouts")
    if arguments.record:
        record.current(arguments.record)  # before anything is measured
    if arguments.against and not (arguments.against / "kbptt/__init__.py").is_file():
        parser.error(f"--against expects a checkout of kbptt. Received: {arguments.against}")
    known = dict.fromkeys(cell for name in names for cell in SUITES[name].cells)
    if unknown := set(arguments.cells or ()) - known.keys():
        parser.error(f"the cells are {', '.join(known)}. Received: {', '.join(unknown)}")
    try:
        sizes_of(SUITES[names[0]], arguments)
    except (IndexError, TypeError, ValueError) as error:
        parser.error(f"no such size: {error}")


def main() -> None:
    parser = make_parser()
    arguments = parser.parse_args()
    check(parser, arguments)
    before, report = record.latest(arguments.record or RECORDS), []
    for name in arguments.suite:
        suite, started = SUITES[name], time.monotonic()
        run = suite.run
        if arguments.against:
            run = functools.partial(suites.against, arguments.against, ROOT, arguments.processes)
        else:
            print(f"{name}: {suite.about}", flush=True)
        cells = [cell for cell in suite.cells if cell in (arguments.cells or suite.cells)]
        rows = run(cells, sizes_of(suite, arguments), arguments.rounds)
        report.append({"suite": "against" if arguments.against else name, "rows": rows})
        if not arguments.against:
            print(f"{name}: {(time.monotonic() - started) / 60:.1f} minutes")
            if before and (changes := record.changes(before, name, rows)):
                print(record.title(before), *changes, sep="\n", flush=True)
        if arguments.record:
            print(f"written to {record.keep(arguments.record, name, arguments.rounds, rows)}")
        if arguments.figure:
            draw_sliding(rows, arguments.figure)
            print(f"drawn to {arguments.figure}")
        if arguments.output:
            whole = {"rounds": arguments.rounds, "machine": record.machine(), "suites": report}
            arguments.output.write_text(json.dumps(whole, indent=2))
            print(f"written to {arguments.output}")


if __name__ == "__main__":
    main()
