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

PyTorch is measured where it is installed (the extra `bench`).
"""

import argparse
import importlib.util
import json
import math
import multiprocessing
import os
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


@dataclass(frozen=True)
class Config:
    """One size of the problem."""

    batch: int
    timesteps: int
    features: int
    units: int
    window: int

    def __str__(self) -> str:
        return f"({self.batch}, {self.timesteps}, {self.features}, {self.units}, {self.window})"


CONFIGS = [
    Config(2, 4096, 16, 64, 64),
    Config(8, 1024, 32, 64, 32),
    Config(32, 512, 32, 128, 64),
    Config(64, 784, 1, 128, 49),
]
CELLS = ["SimpleRNN", "GRU", "LSTM"]


# One step of each variant -------------------------------------------------------------------------


def keras_step(variant: str, cell: str, c: Config) -> Callable[[], None]:
    """A function that does one step of `fit`: forward, backward, Adam."""
    import keras
    import numpy as np
    import tensorflow as tf

    import kbptt

    library, _, options = variant.partition(" ")
    module = keras.layers if library == "keras" else kbptt
    arguments = {"return_sequences": True}
    for option in options.split():
        if option == "windowed":
            arguments["truncation"] = c.window
        elif option.startswith("stride="):
            stride = int(option.removeprefix("stride="))
            arguments["truncation"] = kbptt.truncation.Windowed(c.window, stride)
        elif option == "layernorm":
            arguments["normalization"] = "layer"
        elif option == "omega":
            arguments["gradient_regularizer"] = "vanishing_gradient"
    keras.utils.set_random_seed(0)
    layer = getattr(module, cell)(c.units, **arguments)
    if "unrecorded" in options:
        layer.record_gradient_norms = False
    model = keras.Sequential([keras.Input((c.timesteps, c.features)), layer, keras.layers.Dense(1)])
    model.compile("adam", "mse", jit_compile=False)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(c.batch, c.timesteps, c.features)).astype("float32")
    y = rng.normal(size=(c.batch, c.timesteps, 1)).astype("float32")
    data = tf.data.Dataset.from_tensors((x, y)).repeat()
    model.fit(data, steps_per_epoch=1, shuffle=False, verbose=0)
    batches = iter(data)
    return lambda: model.train_function(batches)


def torch_step(variant: str, cell: str, c: Config) -> Callable[[], None]:
    """The same step in PyTorch: at once, or chunk by chunk with `detach`."""
    import torch

    torch.set_num_threads(os.cpu_count())
    torch.manual_seed(0)
    kind = {"SimpleRNN": torch.nn.RNN, "GRU": torch.nn.GRU, "LSTM": torch.nn.LSTM}[cell]
    rnn = kind(c.features, c.units, batch_first=True)
    head = torch.nn.Linear(c.units, 1)
    optimizer = torch.optim.Adam([*rnn.parameters(), *head.parameters()])
    x = torch.randn(c.batch, c.timesteps, c.features)
    y = torch.randn(c.batch, c.timesteps, 1)
    length = c.timesteps if variant == "torch" else c.window

    def step():
        optimizer.zero_grad()
        state = None
        for start in range(0, c.timesteps, length):
            part = slice(start, start + length)
            output, state = rnn(x[:, part], state)
            error = ((head(output) - y[:, part]) ** 2).sum() / y.numel()
            error.backward()
            state = tuple(s.detach() for s in state) if cell == "LSTM" else state.detach()
        optimizer.step()

    step()
    return step


def floor_step(variant: str, cell: str, c: Config) -> Callable[[], None]:
    """The matrix products of a windowed step alone: what no implementation can go below."""
    import tensorflow as tf

    gates = {"SimpleRNN": 1, "GRU": 3, "LSTM": 4}[cell]
    width, everything = gates * c.units, c.batch * c.timesteps
    state = tf.random.normal([c.batch, c.units])
    rows = tf.random.normal([everything // c.window, width])
    kernel = tf.random.normal([c.units, width])
    history, dz = tf.random.normal([everything, c.units]), tf.random.normal([everything, width])
    x = tf.random.normal([everything, c.features])
    input_kernel = tf.random.normal([c.features, width])

    @tf.function(jit_compile=True)
    def loops(state, rows):
        forward = tf.while_loop(
            lambda t, _: t < c.timesteps,
            lambda t, z: (t + 1, tf.matmul(z[:, : c.units], kernel)),
            (0, tf.matmul(state, kernel)),
        )[1]
        backward = tf.while_loop(
            lambda t, _: t < c.window,
            lambda t, d: (t + 1, tf.tile(tf.matmul(d, kernel, transpose_b=True), [1, gates])),
            (0, rows),
        )[1]
        return forward, backward

    @tf.function
    def products():
        return (
            tf.matmul(x, input_kernel),  # projection
            *loops(state, rows),
            tf.matmul(history, dz, transpose_a=True),  # recurrent kernel
            tf.matmul(x, dz, transpose_a=True),  # input kernel
        )

    products()
    return products


def make_step(variant: str, cell: str, c: Config) -> Callable[[], None]:
    maker = {"torch": torch_step, "floor": floor_step}.get(variant.split()[0], keras_step)
    return maker(variant, cell, c)


# Workers ------------------------------------------------------------------------------------------


def peak_bytes() -> int:
    """Peak resident memory of this process."""
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def work(connection, variants: list[str], cell: str, config: Config) -> None:
    """Runs in a process of its own: makes the steps, then times one whenever asked."""
    first, steps = {}, {}
    for variant in variants:
        start = time.perf_counter()
        steps[variant] = make_step(variant, cell, config)
        first[variant] = time.perf_counter() - start
    connection.send({"first": first, "peak": peak_bytes()})
    while (variant := connection.recv()) is not None:
        start = time.perf_counter()
        steps[variant]()
        connection.send(time.perf_counter() - start)


def measure(variants: list[str], cell: str, config: Config, rounds: int) -> dict:
    """Median seconds of a step for every variant, all variants in turn in every round."""
    context = multiprocessing.get_context("spawn")
    # TensorFlow and PyTorch bring thread pools of their own: one process for each library.
    groups: dict[str, list[str]] = {}
    for variant in variants:
        library = "torch" if variant.startswith("torch") else "tensorflow"
        groups.setdefault(library, []).append(variant)
    connections, processes, times = {}, [], {v: [] for v in variants}
    for members in groups.values():
        here, there = context.Pipe()
        process = context.Process(target=work, args=(there, members, cell, config), daemon=True)
        process.start()
        here.recv()
        processes.append((process, here))
        connections.update(dict.fromkeys(members, here))
    for round_ in range(rounds + 1):
        for variant in variants:
            connections[variant].send(variant)
            seconds = connections[variant].recv()
            if round_:  # the first round warms up
                times[variant].append(seconds)
    for process, connection in processes:
        connection.send(None)
        process.join()
    return {v: statistics.median(t) for v, t in times.items()}


def measure_alone(variant: str, cell: str, config: Config) -> dict:
    """First-call seconds and peak memory of one variant in a fresh process, after two steps."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=work, args=(there, [variant], cell, config), daemon=True)
    process.start()
    result = here.recv()
    here.send(variant)
    here.recv()
    here.send(None)
    process.join()
    return {"first": result["first"][variant], "peak": result["peak"]}


# Suites -------------------------------------------------------------------------------------------


def geometric_mean(values: list[float]) -> float:
    return math.exp(statistics.fmean(map(math.log, values)))


def compare(variants, ratios, cells, configs, rounds) -> list[dict]:
    """Times all variants and prints, for every (their, ours, bound) of `ratios`, their quotient."""
    rows = []
    for config in configs:
        for cell in cells:
            seconds = measure(variants, cell, config, rounds)
            row = {"cell": cell, "config": asdict(config), "seconds": seconds, "ratios": {}}
            line = f"{cell:10}{config!s:28}"
            for label, theirs, ours in ratios:
                known = [seconds[v] for v in theirs if v in seconds]
                if known:
                    row["ratios"][label] = min(known) / seconds[ours]
                    line += f"  {label} {row['ratios'][label]:6.3f}"
            milliseconds = ", ".join(f"{v} {1000 * s:.1f}" for v, s in seconds.items())
            print(f"{line}   ms: {milliseconds}", flush=True)
            rows.append(row)
    for label, *_ in ratios:
        values = [row["ratios"][label] for row in rows if label in row["ratios"]]
        if values:
            print(
                f"{label}: geometric mean {geometric_mean(values):.3f}, worst {min(values):.3f}, "
                f"largest {max(values):.3f}"
            )
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


def norms(cells, configs, rounds):
    ratios = [("recorded/unrecorded", ["kbptt windowed"], "kbptt windowed unrecorded")]
    variants = ["kbptt windowed", "kbptt windowed unrecorded"]
    return compare(variants, ratios, cells, configs, rounds)


def normalization(cells, configs, rounds):
    variants = ["kbptt windowed", "kbptt windowed layernorm"]
    return compare(
        variants,
        [("layernorm/plain", ["kbptt windowed layernorm"], "kbptt windowed")],
        [c for c in cells if c != "SimpleRNN"],
        configs,
        rounds,
    )


def regularizer(cells, configs, rounds):
    return compare(
        ["kbptt windowed", "kbptt windowed omega"],
        [("omega/plain", ["kbptt windowed omega"], "kbptt windowed")],
        cells,
        configs,
        rounds,
    )


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


def memory(cells, configs, rounds):
    """Peak memory of a step beyond that of the same process on a sequence of a few timesteps."""
    rows = []
    for timesteps in (8192, 32768):
        config = Config(8, timesteps, 32, 64, 64)
        used = {}
        for variant in ("keras", "kbptt", "kbptt windowed"):
            small = measure_alone(variant, "LSTM", Config(8, 64, 32, 64, 64))["peak"]
            used[variant] = measure_alone(variant, "LSTM", config)["peak"] - small
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
                values.append(measure_alone(variant, cell, config)["first"])
        medians = {v: statistics.median(t) for v, t in first.items()}
        ratio = medians["kbptt windowed"] / medians["keras"]
        print(f"{cell:10} first step: kbptt/keras {ratio:.2f}   s: {medians}", flush=True)
        rows.append({"cell": cell, "seconds": medians, "ratio": ratio})
    return rows


def floor(cells, configs, rounds):
    return compare(
        ["kbptt windowed", "floor"],
        [("windowed/floor", ["kbptt windowed"], "floor")],
        cells,
        configs,
        rounds,
    )


SUITES = {
    "speed": speed,
    "norms": norms,
    "memory": memory,
    "sliding": sliding,
    "normalization": normalization,
    "regularizer": regularizer,
    "compile": compile_time,
    "floor": floor,
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--suite", choices=SUITES, default="speed")
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
    parser.add_argument("--output", type=Path, default=None, help="JSON file; none by default")
    parser.add_argument("--figure", type=Path, default=None, help="image of the suite `sliding`")
    arguments = parser.parse_args()
    if arguments.figure and arguments.suite != "sliding":
        parser.error("--figure draws the suite `sliding` alone")
    configs = CONFIGS if arguments.configs is None else [CONFIGS[i] for i in arguments.configs]
    if arguments.size:
        configs = [Config(*size) for size in arguments.size]
    rows = SUITES[arguments.suite](arguments.cells, configs, arguments.rounds)
    if arguments.figure:
        draw_sliding(rows, arguments.figure)
        print(f"drawn to {arguments.figure}")
    if arguments.output:
        report = {
            "suite": arguments.suite,
            "rounds": arguments.rounds,
            "machine": {"processor": platform.processor(), "cores": os.cpu_count()},
            "rows": rows,
        }
        arguments.output.write_text(json.dumps(report, indent=2))
        print(f"written to {arguments.output}")


if __name__ == "__main__":
    main()
