"""Trials in worker processes, one thread each; each result goes to the ledger at once."""

import concurrent.futures
import math
import multiprocessing
import os
import threading
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from papers import load
from papers.ledger import Ledger, Trial
from papers.part import Parameters, Score


class Planned(NamedTuple):
    """A trial that is to be run; `text` is the path of the text it needs, or empty."""

    trial: Trial
    setting: str
    parameters: Parameters
    text: str


def run_all(waiting: list[Planned], ledger: Ledger, workers: int, say: Callable[[str], Any]) -> int:
    """Runs the trials in their order. A failed one is reported and does not stop the others.

    Returns the number of those that failed.
    """
    failed = 0
    context = multiprocessing.get_context("spawn")  # TensorFlow does not survive a fork
    with concurrent.futures.ProcessPoolExecutor(
        workers, context, _start_worker, (os.getpid(),)
    ) as pool:
        running = {pool.submit(_run, *one): one for one in waiting}
        for number, future in enumerate(concurrent.futures.as_completed(running), 1):
            trial, setting, *_ = running[future]
            name = f"{trial.part}: {setting}, seed {trial.seed}"
            if error := future.exception():
                failed += 1
                say(f"{name} FAILED: {type(error).__name__}: {error}")
                continue
            result = future.result()
            ledger.append(trial, setting, result)
            score = result["score"]
            shown = "diverged" if score is None else f"{score:.4g}"
            say(f"[{number}/{len(waiting)}] {name}: {shown}   {result['seconds']:.0f} s")
    return failed


def _run(trial: Trial, setting: str, parameters: Parameters, text: str) -> Score:
    """The result of one trial and its processor time, in a worker."""
    import keras

    started = time.process_time()
    keras.backend.clear_session()
    arguments = parameters | ({"text": text} if text else {})
    result = _plain(load(trial.part).run(arguments, trial.seed))
    return result | {"seconds": round(time.process_time() - started, 1)}


def _start_worker(parent: int) -> None:
    from kbptt.ablation.trial import set_up_process

    def end_with_parent():  # else a worker whose parent was killed would wait for ever
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()
    set_up_process(threads=1)


def _plain(value: Any) -> Any:
    """JSON types; None for a number that is not finite."""
    if isinstance(value, dict):
        return {name: _plain(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    if isinstance(value, float):
        return float(f"{value:.5g}") if math.isfinite(value) else None
    return value
