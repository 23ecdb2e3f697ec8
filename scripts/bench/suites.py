"""The suites: which variants are measured, at which sizes, and which quotients are printed."""

import math
import statistics
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from . import seeing, stream_memory
from .builds import OTHER_BLOCKS, build
from .sizes import CELLS, FIT, INFERENCE, LONG, SHARED, STREAMS, WIDE, Size
from .steps import applies, missing, parse
from .stream_steps import WINDOWS
from .workers import measure, measure_alone

Row = dict[str, Any]


@dataclass(frozen=True)
class Ratio:
    """The fastest of some variants over the fastest of others."""

    label: str
    above: tuple[str, ...]
    below: tuple[str, ...]

    @property
    def variants(self) -> tuple[str, ...]:
        return self.above + self.below


@dataclass(frozen=True)
class Suite:
    """Quotients of steps.

    Attributes:
        about: What it answers.
        ratios: In the order in which they are printed.
        sizes: At which it is measured by default.
        cells: Of which, by default.
        steps: 0 compares medians of the rounds. Otherwise a round has so many single steps of each
            variant, in turn, and means are compared: for what costs time at some steps only.
    """

    about: str
    ratios: tuple[Ratio, ...]
    sizes: Sequence[Size] = field(default_factory=lambda: LONG)
    cells: Sequence[str] = field(default_factory=lambda: CELLS)
    steps: int = 0

    def run(self, cells, sizes, rounds) -> list[Row]:
        return compare(self.ratios, cells, sizes, rounds, steps=self.steps)


def summarize(label: str, values: list[float]) -> None:
    mean = math.exp(statistics.fmean(map(math.log, values)))
    print(
        f"{label}: geometric mean {mean:.3f}, smallest {min(values):.3f}, largest {max(values):.3f}"
    )


def variants_of(ratios: Sequence[Ratio], size: Size) -> list[str]:
    """What has to be measured, and can be, in the order of the ratios."""
    every = dict.fromkeys(variant for ratio in ratios for variant in ratio.variants)
    return [v for v in every if applies(v, size) and not missing(parse(v)[0])]


def quotient(above: list[list[float]], below: list[list[float]], by_round: bool, average) -> float:
    """The lowest average over the lowest average, or the median of the quotients of every round."""
    if by_round:
        return statistics.median(a / b for a, b in zip(*above, *below, strict=True))
    return min(map(average, above)) / min(map(average, below))


def compare(ratios, cells, sizes, rounds, checkouts=None, processes=1, steps=0) -> list[Row]:
    """Times all variants and prints the ratios."""
    average = statistics.fmean if steps else statistics.median
    libraries = {parse(variant)[0] for ratio in ratios for variant in ratio.variants}
    for reason in filter(None, map(missing, sorted(libraries))):
        print(f"left out: {reason}", flush=True)
    rows = []
    for size in sizes:
        for cell in cells:
            times = {v: [] for v in variants_of(ratios, size)}
            for _ in range(processes):
                more = measure(list(times), cell, size, rounds, checkouts, steps)
                for variant, seconds in more.items():
                    times[variant] += seconds
            seconds = {v: average(t) for v, t in times.items()}
            row = {"cell": cell, "size": str(size), "seconds": seconds, "ratios": {}}
            line = f"{cell:14}{row['size']:40}"
            for ratio in ratios:
                above, below = (
                    [times[v] for v in side if v in times] for side in (ratio.above, ratio.below)
                )
                if above and below:
                    value = quotient(above, below, bool(checkouts), average)
                    row["ratios"][ratio.label] = value
                    line += f"  {ratio.label} {value:6.3f}"
            milliseconds = ", ".join(f"{v} {1000 * s:.1f}" for v, s in seconds.items())
            print(f"{line}   ms: {milliseconds}", flush=True)
            rows.append(row)
    for ratio in ratios:
        values = [row["ratios"][ratio.label] for row in rows if ratio.label in row["ratios"]]
        if values:
            summarize(ratio.label, values)
    return rows


def against(checkout: Path, root: Path, processes: int, cells, sizes, rounds) -> list[Row]:
    """The checkout `root` against a different one, a process for each; above 1 `root` is faster."""
    ratios = [
        Ratio("full", ("other",), ("kbptt",)),
        Ratio("windowed", ("other windowed",), ("kbptt windowed",)),
    ]
    checkouts = {"other": checkout.resolve(), "kbptt": root}
    rows = compare(ratios, cells, sizes, rounds, checkouts, processes)
    summarize("full and windowed", [value for row in rows for value in row["ratios"].values()])
    return rows


# Suites of their own kind -------------------------------------------------------------------------


class Sliding(Suite):
    """The cost of overlapping windows, relative to chunks, against length/stride."""

    def run(self, cells, sizes, rounds):
        rows = []
        for size in sizes:
            strides = [s for s in (1, 2, 4, 8, 16, 32) if s < size.window]
            ratios = [
                Ratio(f"x{size.window / s:g}", (f"kbptt stride={s}",), ("kbptt windowed",))
                for s in strides
            ]
            rows += compare(ratios, cells, [size], rounds)
        return rows


class Memory(Suite):
    """Peak memory of a step beyond that of the same process on a sequence of a few timesteps."""

    def run(self, cells, sizes, rounds):
        rows = []
        for timesteps in (8192, 32768):
            size, used = Size(8, timesteps, 32, 64, 64), {}
            for variant in ("keras", "kbptt", "kbptt windowed"):
                small = measure_alone(variant, "LSTM", Size(8, 64, 32, 64, 64)).peak
                used[variant] = measure_alone(variant, "LSTM", size).peak - small
            ratios = {f"{v}/keras": used[v] / used["keras"] for v in used if v != "keras"}
            print(
                f"LSTM {size!s}  "
                + "  ".join(
                    [f"{v} {used[v] / 2**20:.0f} MiB" for v in used]
                    + [f"{label} {r:.2f}" for label, r in ratios.items()]
                ),
                flush=True,
            )
            rows.append({"cell": "LSTM", "size": str(size), "bytes": used, "ratios": ratios})
        return rows


@dataclass(frozen=True)
class Whole(Suite):
    """What is measured as a whole, by a function of the cell, the sizes and the rounds."""

    rows: Callable = stream_memory.rows

    def run(self, cells, sizes, rounds):
        return [row for cell in cells for row in self.rows(cell, sizes, rounds)]


class Blocks(Suite):
    """Loops compiled with other sizes of blocks over those with the sizes of ``blocks.hpp``."""

    def run(self, cells, sizes, rounds):
        rows = []
        labels = [f"{block}={n}" for block, values in OTHER_BLOCKS.items() for n in values]
        with tempfile.TemporaryDirectory() as folder:
            default = build(Path(folder, "default"))
            if default is None:
                print("left out: the C++ loops cannot be built here", flush=True)
                return rows
            for label in ["", *labels]:  # the first shows how much equal builds differ
                other = build(Path(folder, label or "same"), label and f"KBPTT_{label}")
                if other is None:
                    raise SystemExit(f"The loops were not built with {label}.")
                ratio = Ratio(label or "same", ("other windowed",), ("kbptt windowed",))
                there = {"other": other, "kbptt": default}
                rows += compare([ratio], cells, sizes, rounds, there)
        return rows


class Compile(Suite):
    """Seconds from an unbuilt model to the end of its first step, in fresh processes, in turn."""

    def run(self, cells, sizes, rounds):
        rows, size = [], sizes[0]
        for cell in cells:
            first = {"keras": [], "kbptt windowed": []}
            for _ in range(max(rounds // 2, 1)):
                for variant, values in first.items():
                    values.append(measure_alone(variant, cell, size).first[variant])
            medians = {v: statistics.median(t) for v, t in first.items()}
            ratio = medians["kbptt windowed"] / medians["keras"]
            print(f"{cell:10} first step: kbptt/keras {ratio:.2f}   s: {medians}", flush=True)
            row = {"cell": cell, "size": str(size), "seconds": medians}
            rows.append({**row, "ratios": {"first kbptt/keras": ratio}})
        return rows


# --------------------------------------------------------------------------------------------------


def over(plain: str, *options: str) -> tuple[Ratio, ...]:
    """The cost of each option over the variant without it."""
    return tuple(Ratio(f"{option}/plain", (f"{plain} {option}",), (plain,)) for option in options)


def costs(*callbacks: str) -> tuple[Ratio, ...]:
    """The cost of a step of `fit` with a callback over one without."""
    return tuple(Ratio(name, (f"kbptt fit={name}",), ("kbptt fit=",)) for name in callbacks)


TORCH = ("torch", "torch detach", "torch time-major")
BEST = ("kbptt", "kbptt windowed")
STREAM = ("kbptt stream",)
PEERS = (
    Ratio("torch/kbptt", TORCH, BEST),
    Ratio("jax/kbptt", ("jax", "jax detach"), BEST),
)


def option(about: str, label: str, above: str, below: str, **arguments) -> Suite:
    """The suite that compares two variants."""
    return Suite(about, (Ratio(label, (above,), (below,)),), **arguments)


SUITES = {
    "speed": Suite(
        "the README's sizes: long sequences",
        (
            Ratio("keras/kbptt", ("keras",), ("kbptt",)),
            Ratio("keras/windowed", ("keras",), ("kbptt windowed",)),
            Ratio("torch/windowed", TORCH, ("kbptt windowed",)),
        ),
    ),
    "sizes": Suite(
        "wide layers, short sequences, both directions, stacks, words; step over its work at the "
        "peak of the machine",
        (
            Ratio("keras/kbptt", ("keras", "keras jit"), ("kbptt",)),
            Ratio("keras/windowed", ("keras", "keras jit"), ("kbptt windowed",)),
            *PEERS,
            Ratio("kbptt/peak", ("kbptt",), ("peak",)),
        ),
        WIDE,
    ),
    "norms": option(
        "what recording every timestep's norm costs",
        "recorded/unrecorded",
        "kbptt windowed",
        "kbptt windowed unrecorded",
    ),
    "memory": Memory("peak memory of a step", ()),
    "sliding": Sliding("cost of sliding windows against length/stride", ()),
    "normalization": Suite(
        "normalised over plain cells", over(BEST[1], "layernorm", "rms"), cells=["GRU", "LSTM"]
    ),
    "recurrence": Suite(
        "what acts inside the loops over the plain layer",
        over(BEST[1], "zoneout=0.1", "h_detach=0.25", "clip_norm", "gradient_clip=1.0"),
        cells=["GRU", "LSTM"],
    ),
    "regularizer": Suite("the vanishing-gradient regularizer", over(BEST[1], "omega")),
    "compile": Compile("the first call: tracing and compiling", (), LONG[1:2]),
    "threads": option(
        "one thread over as many as there are", "one/all", "kbptt threads=1", "kbptt", sizes=SHARED
    ),
    "teams": Suite(
        "threads with rows of their own, or one thread, over threads that share rows",
        (
            Ratio("rows/shared", ("kbptt members=1",), ("kbptt members=2",)),
            Ratio("one/shared", ("kbptt threads=1",), ("kbptt members=2",)),
        ),
        SHARED,
    ),
    "randomized": option(
        "randomized truncation (ARTBP) over full", "artbp/full", "kbptt artbp", "kbptt"
    ),
    "gates": Suite(
        "gates computed again in the backward pass over gates kept for it",
        (
            Ratio("full", ("kbptt kept_gates=0",), (f"kbptt kept_gates={2**40}",)),
            Ratio(
                "windowed",
                ("kbptt windowed kept_gates=0",),
                (f"kbptt windowed kept_gates={2**40}",),
            ),
        ),
        [*LONG, Size(64, 100, 512, 512, 25), Size(8, 8192, 32, 64, 32)],
        ["GRU", "LSTM"],
    ),
    "span": Suite(
        "gates computed again some timesteps at a time, over 16 at a time",
        tuple(
            Ratio(f"span={n}", (f"kbptt kept_gates=0 span={n}",), ("kbptt kept_gates=0",))
            for n in (4, 8, 32, 64)
        ),
        [*LONG[:3], Size(64, 100, 512, 512, 25)],
        ["LSTM"],
    ),
    "blocks": Blocks(
        "the loops compiled with other sizes of blocks over those of this version",
        (),
        [LONG[3], WIDE[1], WIDE[3]],
        ["SimpleRNN", "LSTM"],
    ),
    "floor": option("the matrix products alone", "windowed/floor", "kbptt windowed", "floor"),
    "streams": Suite(
        f"epochs of {WINDOWS} windows of one long sequence: Streams and StreamState against "
        "stateful layers by hand; drawing the windows alone",
        (
            Ratio("keras/kbptt", ("keras stateful", "keras stateful jit"), STREAM),
            Ratio("torch/kbptt", ("torch stateful", "torch stateful time-major"), STREAM),
            Ratio("stream/by hand", STREAM, ("kbptt stateful",)),
            Ratio("windows/stream", ("kbptt windows",), STREAM),
        ),
        STREAMS,
    ),
    "stream-memory": Whole(
        "peak memory of an epoch on a memory-mapped file, anonymous pages and those of files",
        (),
        cells=["GRU"],
    ),
    "health": Whole(
        "a whole fit with GradientFlow, and with the health of the network, over one without",
        (),
        FIT,
        ["LSTM"],
        rows=seeing.rows,
    ),
    "inference": Suite(
        "predict and evaluate; one sample, one timestep at a time",
        tuple(
            Ratio(f"{mode} keras/kbptt", (f"keras {mode}", *jit), (f"kbptt {mode}",))
            for mode, jit in (
                ("predict", ["keras predict jit"]),
                ("evaluate", ["keras evaluate jit"]),
                ("once", []),
            )
        ),
        INFERENCE,
    ),
    "callbacks": Suite(
        "a step of fit with a callback over one without",
        costs(
            *("GradientFlow", "GradientFlow10", "GradientFlow10undrawn"),
            *("ClipByValue", "ClipByNorm", "ClipByGlobalNorm"),
            *("AdaptiveGradientClip", "AutoClip", "ZClip"),
        ),
        FIT,
        ["LSTM"],
        steps=30,
    ),
    "dropout": Suite(
        "dropout over the plain layer",
        over("kbptt", "dropout=0.2", "recurrent_dropout=0.2", "dropout=0.2 recurrent_dropout=0.2"),
    ),
    "rnn": Suite(
        "RNN(cell) of keras.layers over that of kbptt",
        (Ratio("keras/kbptt", ("keras", "keras jit"), ("kbptt",)),),
        [LONG[2], Size(64, 100, 128, 256, 25)],
        ["SimpleRNNCell", "GRUCell", "LSTMCell", "OwnCell", "StackedCells"],
    ),
    "activations": Suite(
        "other activations over tanh",
        over(
            "kbptt",
            *(
                f"activation={name}"
                for name in ("gelu", "softsign", "hard_sigmoid", "elu", "silu", "selu", "softplus")
            ),
        ),
        LONG[1:3],
    ),
    "float64": Suite(
        "float64 over float32",
        (
            Ratio("full", ("kbptt dtype=float64",), ("kbptt",)),
            Ratio("windowed", ("kbptt windowed dtype=float64",), ("kbptt windowed",)),
        ),
    ),
}
