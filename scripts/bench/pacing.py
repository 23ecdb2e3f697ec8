"""A `fit` that waits before every step or epoch until it is asked for."""

import threading
from collections.abc import Callable
from typing import Any


def paced(fit: Callable[[Any], None], hook: str) -> Callable[[], object]:
    """A function that has a `fit` go on from one call of a callback's method to the next.

    The time of a call includes what `fit` does in between, hooks and all. The first part, which
    traces, has run.

    Args:
        fit: Calls `fit` with a callback that it is given, the first of the list; for ever. It runs
            in a thread.
        hook: Name of the method: `on_train_batch_begin` or `on_epoch_begin`.
    """
    import keras

    go, arrived, failed = threading.Semaphore(0), threading.Semaphore(0), []

    def wait(number: int, logs: Any = None) -> None:
        arrived.release()
        go.acquire()

    def run() -> None:
        try:
            fit(keras.callbacks.LambdaCallback(**{hook: wait}))
        except BaseException as error:
            failed.append(error)
            arrived.release()

    def arrive() -> None:
        arrived.acquire()
        if failed:
            raise failed[0]

    def step() -> None:
        go.release()
        arrive()

    threading.Thread(target=run, daemon=True).start()
    arrive()
    step()
    return step
