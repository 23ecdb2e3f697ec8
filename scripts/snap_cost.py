"""What SnAp-1 costs: the time of a step on a window, and memory against full BPTT.

    python scripts/snap_cost.py

Times: variants take turns, for several rounds; medians of the ratios to plain truncation, in which
the state goes on from window to window and the gradient does not. Memory: the highest of a process
of its own that trains on so many timesteps, in one call with full BPTT and in windows of 16 with
SnAp-1, beyond the memory of the same process after one short window.
"""

import argparse
import multiprocessing
import time
from typing import Any

import numpy as np

SIZES = [("LSTM", 16, 64, 64, 256), ("GRU", 16, 64, 64, 256), ("LSTM", 4, 16, 64, 128)]
MEMORY = ("LSTM", 4, 64, 128)
TIMESTEPS = 1_000, 10_000, 50_000


def step(cell: str, units: int, batch: int, features: int, truncation: Any, stateful: bool) -> Any:
    """A training step without an optimizer, as a function of the inputs."""
    import tensorflow as tf

    import kbptt

    layer = getattr(kbptt, cell)(
        units, return_sequences=True, truncation=truncation, stateful=stateful
    )
    layer.build((batch, None, features))

    @tf.function(reduce_retracing=True)
    def run(x):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(layer(x, training=True) ** 2)
        return tape.gradient(loss, [v.value for v in layer.trainable_variables])

    return run, layer


def times(rounds: int) -> None:
    import tensorflow as tf

    for cell, batch, timesteps, features, units in SIZES:
        x = tf.random.normal([batch, timesteps, features])
        variants = {
            "plain": step(cell, units, batch, features, None, True),
            "SnAp-1 within calls": step(cell, units, batch, features, "snap1", False),
            "SnAp-1 carried on": step(cell, units, batch, features, "snap1", True),
        }
        seconds = {name: [] for name in variants}
        for number in range(rounds + 2):
            for name, (run, _) in variants.items():
                start = time.perf_counter()
                run(x)
                if number > 1:
                    seconds[name].append(time.perf_counter() - start)
        size = 4 * batch * variants["SnAp-1 carried on"][1].influence_size() / 2**20
        print(f"{cell} ({batch}, {timesteps}, {features}), {units} units: {size:.0f} MiB carried")
        for name, found in seconds.items():
            ratio = np.median(np.array(found) / np.array(seconds["plain"]))
            print(f"  {name:<24}{ratio:>6.2f} x", flush=True)


def anonymous() -> int:
    """Bytes of this process's own memory."""
    from bench.stream_memory import status

    return status()["anonymous"]


def work(connection: Any, truncation: Any, timesteps: int) -> None:
    """Trains in a process of its own and sends the highest memory beyond that of a short window."""
    import tensorflow as tf

    cell, batch, features, units = MEMORY
    run, _ = step(cell, units, batch, features, truncation, truncation is not None)
    run(tf.zeros([batch, 16, features]))
    before = highest = anonymous()
    found = None  # what a step makes lives while its memory is read
    window = timesteps if truncation is None else 16
    for _ in range(0, timesteps, window):
        found = run(tf.zeros([batch, window, features]))
        highest = max(highest, anonymous())
    del found
    connection.send(highest - before)


def memory() -> None:
    context = multiprocessing.get_context("spawn")
    print("{}, batch {}, {} features, {} units: MiB beyond a window of 16".format(*MEMORY))
    for timesteps in TIMESTEPS:
        found = []
        for truncation in (None, "snap1"):
            here, there = context.Pipe()
            process = context.Process(target=work, args=(there, truncation, timesteps))
            process.start()
            found.append(here.recv() / 2**20)
            process.join()
        print(
            f"  {timesteps:>6} timesteps: full BPTT {found[0]:.0f}, SnAp-1 {found[1]:.0f}",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    a = parser.parse_args()
    times(a.rounds)
    memory()


if __name__ == "__main__":
    main()
