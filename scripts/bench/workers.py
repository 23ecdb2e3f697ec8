"""Processes that measure steps, one variant at a time."""

import multiprocessing
import os
import statistics
import sys
import time
from pathlib import Path

from .sizes import Size
from .steps import make_step

BURST = 0.05  # seconds of consecutive steps of a variant, of which the median counts


def use(place: Path) -> None:
    """Makes this process use the loops of a library, or import kbptt from a folder alone."""
    if not place.is_file():
        return use_checkout(place)
    os.environ["KBPTT_NATIVE_LIBRARY"] = str(place)
    from kbptt.engine import native

    if not native.is_usable():
        raise SystemExit(f"The compiled loops {place} cannot be used.")


def use_checkout(folder: Path) -> None:
    sys.path.insert(0, str(folder))
    import kbptt
    from kbptt.engine import native

    if Path(kbptt.__file__).resolve() != (folder / "kbptt/__init__.py").resolve():
        raise SystemExit(f"kbptt of {folder} was asked for, {kbptt.__file__} was imported.")
    if not native.is_usable() and os.environ.get("KBPTT_NATIVE") != "0":
        raise SystemExit(
            f"{folder} has no compiled loops; run `python setup.py build_ext --inplace` there, or "
            "set KBPTT_NATIVE=0 to measure both checkouts without."
        )


def work(connection, variants: list[str], cell: str, size: Size, checkout: Path | None) -> None:
    """Runs in a process of its own: makes the steps, then times one whenever asked."""
    import resource

    if checkout:
        use(checkout)
    first, steps = {}, {}
    for variant in variants:
        start = time.perf_counter()
        steps[variant] = make_step(variant, cell, size)
        first[variant] = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    connection.send({"first": first, "peak": peak})
    while (asked := connection.recv()) is not None:
        variant, single = asked
        connection.send(statistics.median(burst(steps[variant], 0.0 if single else BURST)))


def burst(step, length: float) -> list[float]:
    """Seconds of consecutive steps: one if it is long, else as many as fit."""
    seconds = []
    while sum(seconds) <= length:
        start = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - start)
    return seconds


class Worker:
    """A fresh process with its variants; blocked except while it makes them or runs a step.

    Attributes:
        first: Seconds until the first step of each variant had run, tracing included.
        peak: Peak resident memory after that, in bytes.
    """

    def __init__(
        self, variants: list[str], cell: str, size: Size, checkout: Path | None = None
    ) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, there = context.Pipe()
        arguments = (there, variants, cell, size, checkout)
        self._process = context.Process(target=work, args=arguments, daemon=True)
        self._process.start()
        there.close()  # so that the end of the process is seen here
        made = self._receive()
        self.first, self.peak = made["first"], made["peak"]

    def step(self, variant: str, single: bool = False) -> float:
        """Runs a burst of steps, or a single one, and returns the seconds of one."""
        self._connection.send((variant, single))
        return self._receive()

    def close(self) -> None:
        self._connection.send(None)
        self._process.join()

    def _receive(self):
        try:
            return self._connection.recv()
        except EOFError:
            raise SystemExit("A worker ended early; its error is above.") from None


def measure(
    variants: list[str],
    cell: str,
    size: Size,
    rounds: int,
    checkouts: dict[str, Path] | None = None,
    steps: int = 0,
) -> dict[str, list[float]]:
    """Seconds of a step in each round, all variants in turn in every round.

    Args:
        variants: Names of the variants.
        cell: Name of the recurrent layer, or of its cell.
        size: The model and its batch.
        rounds: Number of rounds, after one that warms up.
        checkouts: By name of a library in `variants` the folder from which it is imported, or the
            compiled loops that it uses. With checkouts every second round runs backwards: A B, B A,
            A B, …
        steps: Single steps of each variant in a round, in turn. Defaults to 0: one burst.
    """
    checkouts = checkouts or {}
    # TensorFlow, PyTorch and JAX bring thread pools of their own, and two checkouts of kbptt do not
    # fit into one process: one process for each.
    groups: dict[str, list[str]] = {}
    for variant in variants:
        library = variant.split()[0]
        apart = library in ("torch", "jax", "peak") or library in checkouts
        groups.setdefault(library if apart else "tensorflow", []).append(variant)
    workers = {}
    for group, members in groups.items():
        worker = Worker(members, cell, size, checkouts.get(group))
        workers.update(dict.fromkeys(members, worker))
    times: dict[str, list[float]] = {v: [] for v in variants}
    turns = steps or 1
    for turn in range((rounds + 1) * turns):
        for variant in reversed(variants) if checkouts and turn % 2 else variants:
            seconds = workers[variant].step(variant, single=steps > 0)
            if turn >= turns:  # the first round warms up
                times[variant].append(seconds)
    for worker in set(workers.values()):
        worker.close()
    return times


def measure_alone(variant: str, cell: str, size: Size) -> Worker:
    """Makes one variant in a fresh process and ends it; what it cost is in the returned worker."""
    worker = Worker([variant], cell, size)
    worker.close()
    return worker
