"""How fast and how large is one training step: keras.layers, kbptt and PyTorch, side by side.

Every number is a median over rounds; in a round all variants run one after the other, so that a
machine that slows down slows all of them. Quote the ratios, never a time alone.

    python scripts/benchmark.py                      # speed: ratios against Keras and PyTorch
    python scripts/benchmark.py --size 32 200 8 256 50  # a size of your own
    python scripts/benchmark.py --suite norms        # what recording every timestep's norm costs
    python scripts/benchmark.py --suite memory       # peak memory of a step
    python scripts/benchmark.py --suite sliding      # cost of sliding windows against length/stride
    python scripts/benchmark.py --suite normalization  # layer-normalised against plain cells
    python scripts/benchmark.py --suite regularizer  # the vanishing-gradient regularizer
    python scripts/benchmark.py --suite compile      # the first call: tracing and compiling
    python scripts/benchmark.py --suite floor        # the matrix products alone
    python scripts/benchmark.py --against ../old     # this checkout against one built there

PyTorch is measured where it is installed (the extra `bench`).
"""

import argparse
import functools
import importlib.util
import json
import math
import os
import platform
import statistics
from dataclasses import asdict
from pathlib import Path

from benchmark_steps import CELLS, CONFIGS, Config
from benchmark_workers import measure, measure_alone

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

ROOT = Path(__file__).resolve().parents[1]


# Suites that compare steps ------------------------------------------------------------------------


def ratio(theirs: list[list[float]], ours: list[float], by_round: bool) -> float:
    """Their seconds over ours: of the best median of theirs, or the median of every round's."""
    if by_round:
        return statistics.median(t / o for t, o in zip(*theirs, ours, strict=True))
    return min(map(statistics.median, theirs)) / statistics.median(ours)


def summarize(label: str, values: list[float]) -> None:
    mean = math.exp(statistics.fmean(map(math.log, values)))
    print(f"{label}: geometric mean {mean:.3f}, worst {min(values):.3f}, largest {max(values):.3f}")


def compare(variants, ratios, cells, configs, rounds, checkouts=None, processes=1) -> list[dict]:
    """Times all variants and prints the quotient of every (label, theirs, ours) in `ratios`."""
    rows = []
    for config in configs:
        for cell in cells:
            times = {v: [] for v in variants}
            for _ in range(processes):
                for variant, more in measure(variants, cell, config, rounds, checkouts).items():
                    times[variant] += more
            seconds = {v: statistics.median(t) for v, t in times.items()}
            row = {"cell": cell, "config": asdict(config), "seconds": seconds, "ratios": {}}
            line = f"{cell:10}{config!s:28}"
            for label, theirs, ours in ratios:
                known = [times[v] for v in theirs if v in times]
                if known:
                    row["ratios"][label] = ratio(known, times[ours], by_round=bool(checkouts))
                    line += f"  {label} {row['ratios'][label]:6.3f}"
            milliseconds = ", ".join(f"{v} {1000 * s:.1f}" for v, s in seconds.items())
            print(f"{line}   ms: {milliseconds}", flush=True)
            rows.append(row)
    for label, *_ in ratios:
        values = [row["ratios"][label] for row in rows if label in row["ratios"]]
        if values:
            summarize(label, values)
    return rows


def speed(cells, configs, rounds):
    variants = ["keras", "kbptt", "kbptt windowed"]
    if importlib.util.find_spec("torch"):
        variants += ["torch", "torch detach"]
    ratios = [
        ("keras/kbptt", ["keras"], "kbptt"),
        ("keras/windowed", ["keras"], "kbptt windowed"),
        ("torch/windowed", ["torch", "torch detach"], "kbptt windowed"),
    ]
    return compare(variants, ratios, cells, configs, rounds)


def option(label, theirs, ours):
    """The suite that compares two variants."""
    return functools.partial(compare, [theirs, ours], [(label, [theirs], ours)])


def normalization(cells, *arguments):
    suite = option("layernorm/plain", "kbptt windowed layernorm", "kbptt windowed")
    return suite([c for c in cells if c != "SimpleRNN"], *arguments)


def against(checkout: Path, processes: int, cells, configs, rounds):
    """This checkout against a different one, a process for each; above 1 this one is faster."""
    variants = ["other", "kbptt", "other windowed", "kbptt windowed"]
    ratios = [("full", ["other"], "kbptt"), ("windowed", ["other windowed"], "kbptt windowed")]
    checkouts = {"other": checkout.resolve(), "kbptt": ROOT}
    rows = compare(variants, ratios, cells, configs, rounds, checkouts, processes)
    summarize("full and windowed", [value for row in rows for value in row["ratios"].values()])
    return rows


def sliding(cells, configs, rounds):
    rows = []
    for config in configs:
        strides = [s for s in (1, 2, 4, 8, 16, 32) if s < config.window]
        variants = ["kbptt windowed", *(f"kbptt stride={s}" for s in strides)]
        ratios = [(f"x{config.window / s:g}", [f"kbptt stride={s}"], variants[0]) for s in strides]
        rows += compare(variants, ratios, cells, [config], rounds)
    return rows


def draw_sliding(rows: list[dict], path: Path) -> None:
    """The cost of a step against length/stride, both relative to chunks."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6, 4), layout="constrained")
    for row in rows:
        points = sorted((float(label[1:]), ratio) for label, ratio in row["ratios"].items())
        label = f"{row['cell']} {Config(**row['config'])}"
        axes.plot(*zip((1, 1), *points, strict=True), "o-", label=label)
    limits = [1, max(float(label[1:]) for row in rows for label in row["ratios"])]
    axes.plot(limits, limits, ":", color="gray", label="proportional")
    axes.set(xscale="log", yscale="log", xlabel="length / stride", ylabel="time of a step / chunks")
    axes.legend()
    figure.savefig(path, dpi=100)


# Suites of fresh processes ------------------------------------------------------------------------


def memory(cells, configs, rounds):
    """Peak memory of a step beyond that of the same process on a sequence of a few timesteps."""
    rows = []
    for timesteps in (8192, 32768):
        config = Config(8, timesteps, 32, 64, 64)
        used = {}
        for variant in ("keras", "kbptt", "kbptt windowed"):
            small = measure_alone(variant, "LSTM", Config(8, 64, 32, 64, 64)).peak
            used[variant] = measure_alone(variant, "LSTM", config).peak - small
        ratios = {v: used[v] / used["keras"] for v in used if v != "keras"}
        print(
            f"LSTM {config!s}  "
            + "  ".join(
                [f"{v} {used[v] / 2**20:.0f} MiB" for v in used]
                + [f"{v}/keras {r:.2f}" for v, r in ratios.items()]
            ),
            flush=True,
        )
        rows.append({"config": asdict(config), "bytes": used, "ratios": ratios})
    return rows


def compile_time(cells, configs, rounds):
    """Seconds from an unbuilt model to the end of its first step, in fresh processes, in turn."""
    rows = []
    for cell in cells:
        config = CONFIGS[1]
        first = {"keras": [], "kbptt windowed": []}
        for _ in range(max(rounds // 2, 1)):
            for variant, values in first.items():
                values.append(measure_alone(variant, cell, config).first[variant])
        medians = {v: statistics.median(t) for v, t in first.items()}
        ratio = medians["kbptt windowed"] / medians["keras"]
        print(f"{cell:10} first step: kbptt/keras {ratio:.2f}   s: {medians}", flush=True)
        rows.append({"cell": cell, "seconds": medians, "ratio": ratio})
    return rows


SUITES = {
    "speed": speed,
    "norms": option("recorded/unrecorded", "kbptt windowed", "kbptt windowed unrecorded"),
    "memory": memory,
    "sliding": sliding,
    "normalization": normalization,
    "regularizer": option("omega/plain", "kbptt windowed omega", "kbptt windowed"),
    "compile": compile_time,
    "floor": option("windowed/floor", "kbptt windowed", "floor"),
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--suite", choices=SUITES, default="speed")
    what.add_argument(
        "--against",
        type=Path,
        metavar="CHECKOUT",
        help="compare the kbptt of this folder with that of a different one, such as a git "
        "worktree in which the loops are built; above 1 this one is faster",
    )
    parser.add_argument("--cells", nargs="+", choices=CELLS, default=CELLS)
    parser.add_argument(
        "--configs",
        nargs="+",
        type=int,
        choices=range(len(CONFIGS)),
        default=None,
        help="indices of: " + ", ".join(f"{i} {c}" for i, c in enumerate(CONFIGS)),
    )
    parser.add_argument(
        "--size",
        nargs=5,
        type=int,
        action="append",
        metavar=("BATCH", "TIMESTEPS", "FEATURES", "UNITS", "WINDOW"),
        help="a size of your own in place of --configs; may be given several times",
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
    arguments = parser.parse_args()
    if arguments.figure and arguments.suite != "sliding":
        parser.error("--figure draws the suite `sliding` alone")
    if arguments.processes != 1 and not arguments.against:
        parser.error("--processes repeats the measurement of --against alone")
    if arguments.against and not (arguments.against / "kbptt/__init__.py").is_file():
        parser.error(f"--against expects a checkout of kbptt. Received: {arguments.against}")
    configs = CONFIGS if arguments.configs is None else [CONFIGS[i] for i in arguments.configs]
    if arguments.size:
        configs = [Config(*size) for size in arguments.size]
    suite = SUITES[arguments.suite]
    if arguments.against:
        suite = functools.partial(against, arguments.against, arguments.processes)
    rows = suite(arguments.cells, configs, arguments.rounds)
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
