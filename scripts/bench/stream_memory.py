"""Memory of training on one long sequence that lies in a file.

Resident memory is of two kinds. Anonymous pages are the process's own: they have to be in memory,
and this is what training needs. Pages of mapped files, the libraries' code and what was read of a
`np.memmap`, belong to the page cache: the kernel drops them when it needs the memory. Both are
reported, with the peak of the sum.
"""

import multiprocessing
import re
import tempfile
import time
from pathlib import Path
from typing import Any

ROWS, LENGTH, FEATURES, UNITS = 16, 128, 8, 32
STEPS = 10_000, 100_000, 1_000_000
PART = 100_000  # steps that are written at a time


def status() -> dict[str, int]:
    """Bytes of this process's resident memory: peak, anonymous, of files."""
    text = Path("/proc/self/status").read_text()
    found = dict(re.findall(r"^(VmHWM|RssAnon|RssFile):\s+(\d+) kB", text, re.MULTILINE))
    names = {"peak": "VmHWM", "anonymous": "RssAnon", "files": "RssFile"}
    return {name: int(found[key]) * 1024 for name, key in names.items()}


def work(connection: Any, path: Path, cell: str, epochs: int) -> None:
    """Trains on the file in a process of its own and sends the highest values."""
    import keras
    import numpy as np

    import kbptt

    highest: dict[str, int] = {}

    def look(batch: int = 0, logs: Any = None) -> None:
        highest.update({name: max(v, highest.get(name, 0)) for name, v in status().items()})

    x = np.load(path, mmap_mode="r")
    data = kbptt.data.Streams(x, length=LENGTH, batch_size=ROWS)
    layer = getattr(kbptt, cell)(UNITS, return_sequences=True)
    layers = [keras.Input((LENGTH, FEATURES)), layer, keras.layers.Dense(FEATURES)]
    model = keras.Sequential(layers)
    model.compile("adam", "mse")
    looking = keras.callbacks.LambdaCallback(on_train_batch_end=look)
    callbacks = [kbptt.callbacks.StreamState(data), looking]
    start = time.perf_counter()
    model.fit(data, epochs=epochs, verbose=0, callbacks=callbacks)
    look()
    connection.send({**highest, "seconds": time.perf_counter() - start})


def write(path: Path, steps: int) -> None:
    """A file of random steps."""
    import numpy as np

    rng, shape = np.random.default_rng(0), (steps, FEATURES)
    array = np.lib.format.open_memmap(path, "w+", "float32", shape)
    for first in range(0, steps, PART):
        part = array[first : first + PART]
        part[:] = rng.normal(size=part.shape)
    array.flush()


def highest(cell: str, steps: int, epochs: int = 1) -> dict[str, Any]:
    """The highest values of a process that trains on so many steps, and the seconds it took."""
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "steps.npy")
        write(path, steps)
        here, there = context.Pipe()
        process = context.Process(target=work, args=(there, path, cell, epochs), daemon=True)
        process.start()
        there.close()  # so that the end of the process is seen here
        try:
            return here.recv()
        except EOFError:
            raise SystemExit("A process ended early; its error is above.") from None
        finally:
            process.join()


def rows(cell: str, *_: Any) -> list[dict[str, Any]]:
    """For each number of steps the highest values, over those of the fewest steps."""
    found, least = [], {}
    for steps in STEPS:
        values = highest(cell, steps)
        seconds = values.pop("seconds")
        least = least or values
        ratios = {f"{kind}/shortest": value / least[kind] for kind, value in values.items()}
        line = ", ".join(f"{kind} {value / 2**20:.0f} MiB" for kind, value in values.items())
        line += "".join(f"  {label} {ratio:.3f}" for label, ratio in ratios.items())
        print(f"{cell:10}{steps:10,} steps  {seconds:3.0f} s  {line}", flush=True)
        size = f"({steps} steps)"
        found.append({"cell": cell, "size": size, "bytes": values, "ratios": ratios})
    return found
