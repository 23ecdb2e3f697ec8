"""How fast and how large is one training step: keras.layers, kbptt, PyTorch and JAX, side by side.

Every number is a median over rounds; in a round all variants run one after the other, so that a
machine that slows down slows all of them. Quote the ratios, never a time alone.

    python scripts/benchmark.py                      # the README's sizes
    python scripts/benchmark.py --suite sizes        # wide layers, short sequences, stacks, …
    python scripts/benchmark.py --suite sizes --sizes 2 3 --cells LSTM
    python scripts/benchmark.py --size 32 200 8 256 50 layers=2 last  # a size of your own
    python scripts/benchmark.py --against ../old     # this checkout against one built there
    python scripts/benchmark.py --against ../old --suite sizes

PyTorch and JAX are measured where they are installed (the extra `bench`).
"""

import argparse
import functools
import json
import os
import platform
from pathlib import Path

from bench import suites
from bench.sizes import CELLS, Size
from bench.suites import SUITES

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

ROOT = Path(__file__).resolve().parents[1]


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


def parsed() -> tuple[argparse.ArgumentParser, argparse.Namespace]:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="suites:\n" + "\n".join(f"  {n:14} {s.about}" for n, s in SUITES.items()),
    )
    parser.add_argument("--suite", choices=SUITES, default="speed", metavar="SUITE")
    parser.add_argument(
        "--against",
        type=Path,
        metavar="CHECKOUT",
        help="compare the kbptt of this folder with that of a different one, such as a git "
        "worktree in which the loops are built, at the sizes of the suite; above 1 this one is "
        "faster",
    )
    parser.add_argument("--cells", nargs="+", default=None, help="of " + ", ".join(CELLS))
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
        "--processes",
        type=int,
        default=1,
        help="with --against: how often each size is measured in fresh processes, whose memory "
        "lies elsewhere; all their rounds count",
    )
    parser.add_argument("--output", type=Path, default=None, help="JSON file; none by default")
    parser.add_argument("--figure", type=Path, default=None, help="image of the suite `sliding`")
    return parser, parser.parse_args()


def main() -> None:
    parser, arguments = parsed()
    suite = SUITES[arguments.suite]
    if arguments.figure and arguments.suite != "sliding":
        parser.error("--figure draws the suite `sliding` alone")
    if arguments.processes != 1 and not arguments.against:
        parser.error("--processes repeats the measurement of --against alone")
    if arguments.against and not (arguments.against / "kbptt/__init__.py").is_file():
        parser.error(f"--against expects a checkout of kbptt. Received: {arguments.against}")
    cells = arguments.cells or suite.cells
    if unknown := set(cells) - set(suite.cells):
        parser.error(f"cells of this suite: {', '.join(suite.cells)}. Received: {unknown}")
    try:
        sizes = [suite.sizes[i] for i in arguments.sizes or range(len(suite.sizes))]
        sizes = [Size.parse(size) for size in arguments.size or ()] or sizes
    except (IndexError, TypeError, ValueError) as error:
        parser.error(f"no such size: {error}")
    run = suite.run
    if arguments.against:
        run = functools.partial(suites.against, arguments.against, ROOT, arguments.processes)
    rows = run(cells, sizes, arguments.rounds)
    if arguments.figure:
        draw_sliding(rows, arguments.figure)
        print(f"drawn to {arguments.figure}")
    if arguments.output:
        report = {
            "suite": "against" if arguments.against else arguments.suite,
            "rounds": arguments.rounds,
            "machine": {"processor": platform.processor(), "cores": os.cpu_count()},
            "rows": rows,
        }
        arguments.output.write_text(json.dumps(report, indent=2))
        print(f"written to {arguments.output}")


if __name__ == "__main__":
    main()
