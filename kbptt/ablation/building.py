"""Builds what a trial trains: task, compiled model and callbacks, all from its configuration."""

import contextlib
import inspect
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from kbptt import methods, tasks
from kbptt.ablation import early, limits, options
from kbptt.ablation.errors import TrialError

SEQUENCES = 256  # that "$inputs" stands for


def build(config: Mapping[str, Any]) -> tuple[Any, Any, list[Any]]:
    """Returns task, compiled model and the method's callbacks."""
    import keras

    import kbptt

    seed, method = config["seed"], config["method"]["definition"]
    keras.utils.clear_session()
    keras.utils.set_random_seed(tasks.derive_seed(seed, "keras"))
    task = tasks.get(config["task"]["name"], **config["task"]["options"])
    if config["task"].get("file") != task.digest():
        raise ValueError(
            f"{task.file} is not the file with which the ablation was planned: it has changed, or "
            "this machine has a different one."
        )
    metrics = task.metrics()
    known_metrics = [*(m.name for m in metrics), "loss"]
    if task.metric not in known_metrics:
        options.refuse_unknown(f"metric of task {task.name!r}", task.metric, known_metrics)
    limits.check_memory(task, config["model"], config["training"])
    known = {
        "$timesteps": task.length,
        "$inputs": lambda: task.data(seed).train[0][:SEQUENCES],  # made where a method asks for it
    }
    arguments = {n: v for n, v in config["model"].items() if n != "layer"}
    layer = {n: methods.make(v, known) for n, v in config["model"]["layer"].items()}
    layer = options.check_arguments(getattr(kbptt, arguments["cell"]), layer, early.of_the_trial())
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
    if config["training"].get("stream"):
        from kbptt.ablation import feeding

        feeding.check(model)
    callbacks = [methods.make(reference, known) for reference in method["callbacks"]]
    if (threshold := config["training"].get("clip")) is not None:
        callbacks.append(kbptt.callbacks.ClipByGlobalNorm(threshold))
    return task, model, callbacks


def _make_optimizer(name: str, arguments: dict[str, Any]) -> Any:
    """An optimizer of Keras by its name in any case, or a registered one ("package>Name")."""
    import keras

    classes = {
        name.lower(): found
        for name, found in vars(keras.optimizers).items()
        if inspect.isclass(found) and issubclass(found, keras.optimizers.Optimizer)
    }
    for wrapper in early.NO_OPTIMIZERS:
        classes.pop(wrapper, None)
    found = classes.get(name.lower()) or keras.saving.get_registered_object(name)
    if found is None:
        options.refuse_unknown("optimizer", name, classes)
    base = keras.optimizers.Optimizer
    arguments = options.check_arguments(found, arguments, ["name"], base)
    with _refusing(f"a step of {name} with {_listed(arguments)}"):
        optimizer = found(**arguments)
        # Keras checks most arguments only in the first step.
        weight = keras.Variable(np.ones((2, 2), "float32"), name="weight")
        found(**arguments).apply([keras.ops.ones_like(weight)], [weight])
    return optimizer


def _listed(arguments: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value!r}" for name, value in arguments.items())


@contextlib.contextmanager
def _refusing(what: str) -> Iterator[None]:
    """Raises `ValueError` for whatever exception unusable options cause."""
    try:
        yield
    except (ValueError, MemoryError, OSError):
        raise
    except Exception as error:
        raise ValueError(f"Cannot make {what}. {TrialError.describing(error)}") from error
