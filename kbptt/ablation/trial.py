"""A trial: a pure function from its configuration to its result.

What a trial computes depends on its configuration alone: every component draws from a seed of its
own, derived from the trial's seed and the component's name, operations are deterministic and the
number of threads is fixed. Run twice on one machine it gives the same bits, except what it
measures of the machine, which stands under `"cost"` and `"environment"`.
"""

import contextlib
import errno
import inspect
import logging
import math
import os
import pathlib
import signal
import sys
import tempfile
import threading
import time
import traceback
import warnings
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from kbptt import methods, tasks
from kbptt._checks import did_you_mean
from kbptt._quiet import quiet_start
from kbptt.ablation import environment, limits, options, outcome
from kbptt.ablation.grid import show
from kbptt.ablation.rows import trial_key
from kbptt.ablation.text import described, visible

# The seeds of Keras and NumPy belong to the process: trials take turns in it.
_one_at_a_time = threading.Lock()
_INSTALLED = {"site-packages", "dist-packages"}


class TrialError(Exception):
    """What went wrong in a trial, in words: the exception itself may need TensorFlow to be read.

    Args:
        message: String: type, text and place of the exception.
        disk_full: Whether the worker had no room to write.
        final: Whether trying the trial again would be in vain.
    """

    def __init__(self, message: str, disk_full: bool = False, final: bool = False):
        super().__init__(message, disk_full, final)
        self.message, self.disk_full, self.final = message, disk_full, final

    def __str__(self) -> str:
        return self.message

    @classmethod
    def describing(cls, error: BaseException) -> "TrialError":
        """Describes an exception and names the line of the user's code or kbptt's it came from."""
        text = described(error)
        frames = traceback.extract_tb(error.__traceback__)
        frames = [f for f in frames if not _INSTALLED.intersection(f.filename.split(os.sep))]
        if frames:
            text += f" ({os.path.basename(frames[-1].filename)}, line {frames[-1].lineno})"
        # TensorFlow has an exception type of its own for a full disk, with the system's words.
        codes = (errno.ENOSPC, errno.EDQUOT)
        return cls(text, any(os.strerror(code) in text for code in codes))


def execute(config: dict[str, Any]) -> dict[str, Any]:
    """Runs the trial function that a configuration names. This is what a worker is sent.

    Whatever the function raises is a failure of its trial alone. A `KeyboardInterrupt` is too: of
    Ctrl-C the workers hear nothing.

    Raises:
        TrialError: when the trial crashed, or returned what is no result.
    """
    with _one_at_a_time:
        try:
            result = _function(config)(config)
        except BaseException as error:
            failure = TrialError.describing(error)
        else:
            try:
                return outcome.check(result)
            except BaseException as error:  # looking at a user's object can raise anything
                problem = described(error) if not isinstance(error, ValueError) else str(error)
                failure = TrialError(f"The result cannot be stored: {problem}", final=True)
        raise failure  # out here it is sent without the exception that it describes


def check(config: dict[str, Any]) -> None:
    """Builds what a trial would train, so that a mistake shows before anything is trained.

    Raises:
        ValueError: for an option, a method or a task that cannot be built.
        TrialError: for anything else that went wrong.
    """
    with _one_at_a_time:
        try:
            if _function(config) is run:
                set_up_process(config["training"]["threads"])
                build(config)
            return
        except ValueError as error:
            failure = ValueError(visible(str(error)))
        except BaseException as error:
            failure = TrialError.describing(error)
        raise failure


def dask_setup(worker: Any) -> None:
    """Called by Dask when a worker process starts.

    Ctrl-C in a terminal goes to every process; the one that plans ends the workers in good order.
    """
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    if not sys.warnoptions:
        # The process that plans has shown those of the tasks; others have no name of a trial.
        warnings.simplefilter("ignore")


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


def run(config: Mapping[str, Any]) -> dict[str, Any]:
    """Trains and tests one method on one task with one seed.

    Args:
        config: A configuration from `Grid.cells`.

    Returns:
        A dict that JSON can hold, apart from `"files"` (bytes by name: TensorBoard's event files):

        * `status`: "ok", or "diverged" if weights or validation loss became NaN or infinite;
          `score`: the primary metric on the test data, at the epoch that the checkpoint rule
          ("best" validation score, or "last") names, `None` if diverged;
        * `metric`, `mode`, `baseline`, `perfect`, `success_threshold` of the task;
        * `curve`: lists by epoch; `test`: all metrics on the test data;
        * `gradient`: norms ‖∂L/∂h_t‖ by layer at the start and the end, and a record over steps;
        * `cost`: seconds and bytes; `environment`: versions, commit, device, threads, determinism.
    """
    set_up_process(config["training"]["threads"])
    import keras

    from kbptt.ablation import monitor
    from kbptt.analysis import reach

    started = time.perf_counter()
    task, model, callbacks = build(config)
    data = task.data(config["seed"])
    training = config["training"]
    with tempfile.TemporaryDirectory(prefix="kbptt-trial-") as scratch:
        steps = -(-len(data.train[0]) // training["batch_size"]) * training["epochs"]
        lag_data = reach.measured(task, data, training["epochs"])
        flow = _gradient_flow(scratch, steps, **lag_data)
        watch = monitor.Monitor(task, training, len(data.train[0]), flow)
        logs = [
            flow,
            keras.callbacks.TensorBoard(scratch, write_graph=False),
        ]
        model.fit(
            tasks.batches(data.train, training["batch_size"], config["seed"], training["epochs"]),
            steps_per_epoch=watch.steps_per_epoch,
            epochs=training["epochs"],
            validation_data=data.validation,
            validation_batch_size=training["batch_size"],
            callbacks=[*callbacks, *logs, watch],
            shuffle=False,  # `batches` did it
            verbose=0,
        )
        result = watch.result()
        if result["status"] == "ok":
            if training["checkpoint"] == "best":
                model.set_weights(watch.best_weights)
            test = model.evaluate(
                *data.test, batch_size=training["batch_size"], verbose=0, return_dict=True
            )
            result |= {"test": _floats(test), "score": float(test[task.metric])}
            if not math.isfinite(result["score"]):
                result |= {"status": "diverged", "score": None}
        result["clipping"] = _clipping(callbacks)
        result["cost"]["seconds"] = time.perf_counter() - started
        write_hparams(scratch, config, result)
        files = {
            str(path.relative_to(scratch)): path.read_bytes()
            for path in sorted(pathlib.Path(scratch).rglob("*"))
            if path.is_file() and not path.name.startswith(".")
        }
    return {
        "metric": task.metric,
        "mode": task.mode,
        "baseline": float(task.baseline),
        "perfect": None if task.perfect is None else float(task.perfect),
        "success_threshold": None if task.success is None else float(task.success),
        "parameters": int(model.count_params()),
        **result,
        "environment": environment.describe(training["threads"]),
        "files": files,
    }


def build(config: Mapping[str, Any]) -> tuple[Any, Any, list[Any]]:
    """Returns task, compiled model and the method's callbacks."""
    import keras

    seed, method = config["seed"], config["method"]["definition"]
    keras.utils.clear_session()
    keras.utils.set_random_seed(tasks.derive_seed(seed, "keras"))
    task = tasks.get(config["task"]["name"], **config["task"]["options"])
    if config["task"].get("file") != task.digest():
        raise ValueError(
            f"{task.file} is not the file that the ablation was planned with: it was changed, or "
            "is another one on this machine."
        )
    metrics = task.metrics()
    _one_of(f"metric of task {task.name!r}", task.metric, [*(m.name for m in metrics), "loss"])
    limits.check_memory(task, config["model"], config["training"]["batch_size"])
    known = {"$timesteps": task.length}
    arguments = {n: v for n, v in config["model"].items() if n != "layer"}
    layer = {n: methods.make(v, known) for n, v in config["model"]["layer"].items()}
    import kbptt

    cell = getattr(kbptt, arguments["cell"])
    layer = options.check_arguments(cell, layer, _of_the_trial())
    with _refusing(f"a model with {_listed(config['model']['layer'])}"):
        model = tasks.build_model(task, seed=seed, **arguments, **layer)
    for reference in method["model"]:
        model = methods.make(reference, known)(model)
    optimizer = {n: methods.make(v, known) for n, v in config["optimizer"].items()}
    model.compile(
        optimizer=_make_optimizer(optimizer.pop("name"), optimizer),
        loss=task.loss(),
        metrics=metrics,
    )
    return task, model, [methods.make(reference, known) for reference in method["callbacks"]]


def _make_optimizer(name: str, arguments: dict[str, Any]) -> Any:
    """An optimizer of Keras by its name in any case, or a registered one ("package>Name")."""
    import keras

    classes = {
        name.lower(): found
        for name, found in vars(keras.optimizers).items()
        if inspect.isclass(found) and issubclass(found, keras.optimizers.Optimizer)
    }
    for wrapper in ("optimizer", "lossscaleoptimizer", "multioptimizer"):
        classes.pop(wrapper, None)
    found = classes.get(name.lower()) or keras.saving.get_registered_object(name)
    if found is None:
        _one_of("optimizer", name, classes)
    base = keras.optimizers.Optimizer
    arguments = options.check_arguments(found, arguments, ["name"], base)
    with _refusing(f"a step of {name} with {_listed(arguments)}"):
        optimizer = found(**arguments)
        # Keras itself looks at most arguments in the first step only.
        weight = keras.Variable(np.ones((2, 2), "float32"), name="weight")
        found(**arguments).apply([keras.ops.ones_like(weight)], [weight])
    return optimizer


def _of_the_trial() -> set[str]:
    """Arguments of a recurrent layer that the model's options, the task and the seed decide."""
    decided = {"return_sequences", "return_state"}
    for function in (tasks.build_model, tasks.model.recurrent_layer):
        parameters = inspect.signature(function).parameters.values()
        decided |= {p.name for p in parameters if p.kind is not p.VAR_KEYWORD}
    return decided


def _listed(arguments: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value!r}" for name, value in arguments.items())


@contextlib.contextmanager
def _refusing(what: str) -> Iterator[None]:
    """What is raised for options that cannot be used, of whatever type, as a refusal of them."""
    try:
        yield
    except (ValueError, MemoryError, OSError):
        raise
    except Exception as error:
        raise ValueError(f"Cannot make {what}. {TrialError.describing(error)}") from error


def _one_of(what: str, name: str, valid: Iterable[str]) -> None:
    """Refuses a name that is none of the valid ones, listing them."""
    valid = list(valid)
    if name not in valid:
        hint = did_you_mean(name, valid)
        raise ValueError(f"Unknown {what}: {name!r}{hint}. Expected one of {', '.join(valid)}.")


def set_up_process(threads: int) -> None:
    """Makes TensorFlow in this process deterministic, with this many threads."""
    with quiet_start():  # a dozen workers' start-up messages would bury the progress
        import tensorflow as tf

    # Every trial is traced anew, and steps that a clip skips are counted in its result: warnings
    # without the name of the trial would only bury the progress.
    for logger in (tf.get_logger(), logging.getLogger("kbptt")):
        logger.setLevel("ERROR")
    threading_options = tf.config.threading
    try:
        threading_options.set_intra_op_parallelism_threads(threads)
        threading_options.set_inter_op_parallelism_threads(threads)
        for device in tf.config.list_physical_devices("GPU"):
            tf.config.experimental.set_memory_growth(device, True)
    except RuntimeError as error:
        # Its threads were made already: fine if by an earlier trial that wanted the same.
        found = threading_options.get_intra_op_parallelism_threads()
        if found != threads:
            raise RuntimeError(
                f"TensorFlow already runs with {found or 'all'} threads in this worker process; "
                f"the trial asks for {threads}. Give the trials worker processes of their own."
            ) from error
    tf.config.experimental.enable_op_determinism()


def write_hparams(directory: str, config: Mapping[str, Any], result: Mapping[str, Any]) -> None:
    """Fills TensorBoard's HParams tab: the options of the trial and its score."""
    from tensorboard.plugins.hparams import summary_v2

    from kbptt.tensorboard import writer

    options = {
        "method": config["method"]["name"],
        "task": config["task"]["name"],
        "seed": config["seed"],
        "status": result["status"],
    }
    for section in ("model", "optimizer", "training"):
        for name, value in config[section].items():
            if name != "layer":
                options[f"{section}.{name}"] = _hparam(value, (section, name))
    for section, values in (
        ("task", config["task"]["options"]),
        ("layer", config["model"]["layer"]),
    ):
        options |= {f"{section}.{name}": _hparam(value) for name, value in values.items()}
    summary = summary_v2.hparams_pb(options, trial_id=trial_key(config)[:16])
    values = [summary.value[0]]
    for name, value in (result.get("test") or {}).items():
        values.append(writer.scalar_value(f"test/{name}", value))
    values.append(writer.scalar_value("cost/seconds_per_step", result["cost"]["seconds_per_step"]))
    writer.EventWriter(directory).write(0, values)


def _gradient_flow(directory: str, steps: int, **lag_data: Any) -> Any:
    from kbptt import callbacks

    # About 100 profiles, however long the training.
    frequency = max(1, steps // 100)
    return callbacks.GradientFlow(directory, frequency, heatmap_freq=None, **lag_data)


def _clipping(callbacks: list[Any]) -> dict[str, dict[str, float]]:
    """What each gradient transform of the method reports, by name."""
    found = {}
    for callback in callbacks:
        if hasattr(callback, "statistics") and not getattr(callback, "observes_only", False):
            name = getattr(callback, "name", None) or type(callback).__name__
            found[name] = _floats(callback.statistics())
    return found


def _floats(values: Mapping[str, Any]) -> dict[str, float]:
    return {name: float(value) for name, value in values.items()}


def _hparam(value: Any, path: tuple[str, str] | None = None) -> str | float | bool:
    if isinstance(value, Mapping) and "object" in value:
        return str(value["object"]).partition(":")[2]
    return value if isinstance(value, str | float | int | bool) else show(value, path)
