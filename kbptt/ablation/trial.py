"""A trial: a pure function from its configuration to its result.

What a trial computes depends only on its configuration: every component draws from its own seed,
derived from the trial's seed and the component's name; operations are deterministic and the number
of threads is fixed. Two runs on one machine give the same bits, except for what is measured of the
machine, under `"cost"` and `"environment"`.
"""

import logging
import pathlib
import signal
import tempfile
import threading
from collections.abc import Mapping
from typing import Any

from kbptt import methods
from kbptt._quiet import quiet_start
from kbptt.ablation import environment, outcome, tuning
from kbptt.ablation.building import build
from kbptt.ablation.errors import TrialError
from kbptt.ablation.text import described, visible

# The seeds of Keras and NumPy are global to the process, so trials take turns in it.
_one_at_a_time = threading.Lock()


def execute(config: dict[str, Any], health: bool = False) -> dict[str, Any]:
    """Runs the trial function that a configuration names, in this process; `health` is for `run`.

    Whatever the function raises is a failure of this trial alone, `KeyboardInterrupt` included:
    workers ignore Ctrl-C.

    Raises:
        TrialError: when the trial crashed, or returned something that is not a result.
    """
    with _one_at_a_time:
        try:
            function = _function(config)
            result = run(config, health) if function is run else function(config)
        except BaseException as error:
            failure = TrialError.describing(error)
        else:
            try:
                result = outcome.check(result)
                if config.get("stage") == tuning.STAGE:
                    tuning.validation_score(result, config)  # which has to be there
                    result.pop("files", None)  # so many would bury the others in TensorBoard
                return result
            except BaseException as error:  # inspecting a user's object can raise anything
                problem = described(error) if not isinstance(error, ValueError) else str(error)
                failure = TrialError(f"The result cannot be stored: {problem}", final=True)
        raise failure  # outside of `except`, so that the described exception is not pickled too


def check(config: dict[str, Any]) -> int | None:
    """Builds what a trial would train, to find mistakes before anything is trained.

    Returns:
        The number of parameters of the model; None for a user's own trial function.

    Raises:
        ValueError: for an option, a method or a task that cannot be built.
        TrialError: for anything else that went wrong.
    """
    with _one_at_a_time:
        try:
            if _function(config) is run:
                set_up_process(config["training"]["threads"])
                _, model, _ = build(config)
                return int(model.count_params())
            return None
        except ValueError as error:
            failure = ValueError(visible(str(error)))
        except BaseException as error:
            failure = TrialError.describing(error)
        raise failure


def dask_setup(worker: Any) -> None:
    """Called by Dask when a worker process starts.

    Ctrl-C in a terminal reaches every process; the planning process shuts the workers down.
    """
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.SIG_IGN)


def _function(config: Mapping[str, Any]) -> Any:
    for module in config.get("imports", ()):
        try:
            __import__(module)
        except ImportError as error:
            raise ValueError(
                f"The worker process cannot import {module!r}: {error}. On a cluster, start the "
                "workers where it is found: in its directory, or with PYTHONPATH."
            ) from error
    found = methods.find(config["trial"])
    if not callable(found):
        raise ValueError(f"Expected a function at {config['trial']!r}. Received: {found!r}.")
    return found


def run(config: Mapping[str, Any], health: bool = False) -> dict[str, Any]:
    """Trains and tests one method on one task with one seed.

    Args:
        config: A configuration from `Grid.trials`.
        health: Boolean, whether the event files get the health of the network. Defaults to `False`.

    Returns:
        A dict that JSON can hold, apart from `"files"` (bytes by name: TensorBoard's event files):

        * `status`: "ok", or "diverged" if weights or validation loss became NaN or infinite;
          `score`: the primary metric on the test data, at the epoch that the checkpoint rule
          ("best" validation score, or "last") names, `None` if diverged;
        * `metric`, `mode`, `baseline`, `perfect`, `success_threshold` of the task;
        * of a search, which leaves the test data alone: `validation_score`, which is the `score`
          too; neither `test` nor `gradient`, and no files;
        * `curve`: lists by epoch; `test`: all metrics on the test data;
        * `gradient`: norms ‖∂L/∂h_t‖ by layer at the start and the end, and a record over steps;
        * `cost`: seconds and bytes; `environment`: versions, commit, device, threads, determinism.
    """
    set_up_process(config["training"]["threads"])
    from kbptt.ablation.training import Training, write_hparams

    training = Training(config)
    with tempfile.TemporaryDirectory(prefix="kbptt-trial-") as scratch:
        if config.get("stage") == tuning.STAGE:
            training.fit(scratch, heatmap_freq=None, lag_data=None)
            result = training.result(tested=False)
            return {**result, "environment": environment.describe(config["training"]["threads"])}
        training.fit(scratch, heatmap_freq=None, health=health)
        result = training.result()
        write_hparams(scratch, config, result)
        files = {
            str(path.relative_to(scratch)): path.read_bytes()
            for path in sorted(pathlib.Path(scratch).rglob("*"))
            if path.is_file() and not path.name.startswith(".")
        }
    machine = environment.describe(config["training"]["threads"])
    return {**result, "environment": machine, "files": files}


def set_up_process(threads: int) -> None:
    """Makes TensorFlow in this process deterministic, with this many threads."""
    with quiet_start():  # the start-up messages of many workers would bury the progress
        import tensorflow as tf

    # Warnings would bury the progress without naming their trial: every trial is traced again,
    # and its result counts the steps that a clip skips.
    for logger in (tf.get_logger(), logging.getLogger("kbptt")):
        logger.setLevel("ERROR")
    set_threads(threads)
    tf.config.experimental.enable_op_determinism()


def set_threads(threads: int) -> None:
    """Makes TensorFlow compute with this many threads; GPU memory is taken as it is needed.

    Raises:
        RuntimeError: when TensorFlow already runs with a different number.
    """
    import tensorflow as tf

    threading_options = tf.config.threading
    try:
        threading_options.set_intra_op_parallelism_threads(threads)
        threading_options.set_inter_op_parallelism_threads(threads)
        for device in tf.config.list_physical_devices("GPU"):
            tf.config.experimental.set_memory_growth(device, True)
    except RuntimeError as error:
        # Its threads exist already: fine if an earlier trial asked for the same number.
        found = threading_options.get_intra_op_parallelism_threads()
        if found != threads:
            raise RuntimeError(
                f"TensorFlow already runs with {found or 'all'} threads in this worker process; "
                f"the trial asks for {threads}. Use separate worker processes for these trials."
            ) from error
