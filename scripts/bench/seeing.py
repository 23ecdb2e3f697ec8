"""What seeing costs: whole fits with `GradientFlow`, with and without the health of the network.

By the clock and, in brackets, in processor time, which depends less on the machine's other load.

Whole fits, since a callback that looks at the network once an epoch, and no longer than a share of
the time, shows its cost only there. One model and one callback for each variant; what compiles is
run before anything is timed.
"""

import statistics
import tempfile
import time
from collections.abc import Sequence
from typing import Any

from .sizes import Size

EPOCH = 50  # steps
SECONDS = 6.0  # that a fit without callbacks takes, about

VARIANTS = {
    "plain": None,
    "flow": {},
    "health": {"health": True},
    "states": {"health": "states"},
    "variables": {"health": "variables"},
    "lags": {"health": "lags"},
    "health every 100 steps": {"health": True, "log_freq": 100},
}


def rows(cell: str, sizes: Sequence[Size], rounds: int) -> list[dict[str, Any]]:
    """Prints and returns the quotients of each variant and `plain`, medians of the rounds."""
    found = []
    for size in sizes:
        with tempfile.TemporaryDirectory() as folder:
            times = _times(cell, size, rounds, folder)
        ratios, processor = _quotients(times, 0), _quotients(times, 1)
        text = "  ".join(
            f"{name} {ratio:.3f} ({processor[name]:.3f})" for name, ratio in ratios.items()
        )
        print(f"{cell:10}{size!s:40}  {text}", flush=True)
        seconds = {name: statistics.median(a for a, _ in those) for name, those in times.items()}
        row = {"cell": cell, "size": str(size), "seconds": seconds, "processor": processor}
        found.append({**row, "ratios": ratios})
    return found


def _quotients(times: dict[str, list[tuple[float, float]]], of: int) -> dict[str, float]:
    return {
        name: statistics.median(a[of] / b[of] for a, b in zip(those, times["plain"], strict=True))
        for name, those in times.items()
        if name != "plain"
    }


def _times(cell: str, size: Size, rounds: int, folder: str) -> dict[str, list[tuple[float, float]]]:
    """Seconds of each fit by the clock, and of all its threads."""
    import kbptt

    from .keras_steps import build, dataset

    models, callbacks = {}, {}
    for name, arguments in VARIANTS.items():
        models[name] = build({}, cell, size, "kbptt")
        callbacks[name] = []
        if arguments is not None:
            flow = kbptt.callbacks.GradientFlow(f"{folder}/{name}", heatmap_freq=None, **arguments)
            callbacks[name] = [flow]
    data = dataset({}, size).repeat()

    def fit(name: str, epochs: int) -> tuple[float, float]:
        begun, spent = time.perf_counter(), time.process_time()
        models[name].fit(
            data, epochs=epochs, steps_per_epoch=EPOCH, verbose=0, callbacks=callbacks[name]
        )
        return time.perf_counter() - begun, time.process_time() - spent

    for name in VARIANTS:
        fit(name, 1)
    epochs = max(4, round(SECONDS / fit("plain", 1)[0]))
    times = {name: [] for name in VARIANTS}
    for number in range(rounds):
        names = list(VARIANTS)
        for name in names[number % len(names) :] + names[: number % len(names)]:
            times[name].append(fit(name, epochs))
    return times
