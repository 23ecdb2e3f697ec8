"""Tasks by name."""

import importlib
import inspect
import numbers
import os
import sys
import traceback
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from kbptt._checks import did_you_mean
from kbptt.tasks.base import Outputs, Task

factories: dict[str, Callable[..., Task]] = {}
Factory = TypeVar("Factory", bound=Callable[..., Task])


def register(name: str) -> Callable[[Factory], Factory]:
    """Registers a `Task` subclass, or a function that returns a `Task`, under `name`.

    The arguments of the class or function are the options of the task; those without a default are
    required (such as the `path` of a user's file).

    Args:
        name: String, lower case with underscores. Registering a name again replaces the task.
    """
    if not isinstance(name, str) or not name.isidentifier():
        raise ValueError(
            "Invalid value for argument `name`. Expected a name of letters, digits and "
            f"underscores. Received: name={name!r}."
        )

    def decorate(factory: Factory) -> Factory:
        if inspect.isclass(factory) and not factory.__dict__.get("name"):
            factory.name = name
        factories[name] = factory
        return factory

    return decorate


def names() -> list[str]:
    """Returns the names of all registered tasks, sorted."""
    return sorted(factories)


def options(name: str) -> dict[str, Any]:
    """Returns the options of a task with their defaults (`inspect.Parameter.empty` if required)."""
    parameters = inspect.signature(_factory(name)).parameters.values()
    return {p.name: p.default for p in parameters if p.kind is not p.VAR_KEYWORD}


def summary(name: str) -> str:
    """Returns the first paragraph of the description of a task, in one line."""
    text = (inspect.getdoc(_factory(name)) or "").partition("\n\n")[0]
    return " ".join(text.replace("`", "").split())


def get(name: str | Task, **given: Any) -> Task:
    """Returns the task called `name`.

    Args:
        name: String, one of `kbptt.tasks.names()`, or a `Task`, which is returned as it is.
        **given: Options of the task.

    Raises:
        ValueError: for an unknown name or option, listing the valid ones, and for an option with
            an invalid value.
    """
    if isinstance(name, Task):
        if given:
            raise ValueError(f"Options go with the name of a task, not with a Task: {name!r}.")
        return name
    valid = options(name)
    for option in given:
        if option not in valid:
            raise ValueError(
                f"Task '{name}' has no option {option!r}{did_you_mean(option, valid)}. "
                f"Available options: {', '.join(valid)}."
            )
    for option, default in valid.items():
        if default is inspect.Parameter.empty and option not in given:
            raise ValueError(f"Task '{name}' needs the option `{option}`.")
    task = _check(name, _factory(name)(**given))
    task.name = name
    return task


def import_modules(names: Iterable[str]) -> None:
    """Imports the user's modules, which register tasks or methods.

    The working directory is searched, too.
    """
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    for name in names:
        try:
            importlib.import_module(name)
        except (Exception, SystemExit) as error:  # importing it can raise anything
            where = traceback.extract_tb(error.__traceback__)[-1]
            place = f" ({where.filename}, line {where.lineno})" if where.name == "<module>" else ""
            text = error if isinstance(error, ImportError) else f"{type(error).__name__}: {error}"
            raise ValueError(f"Cannot import the module {name!r}: {text}{place}.") from error


def _check(name: str, task: Any) -> Task:
    """Returns a user's task if it has all that training and evaluation need."""
    if not isinstance(task, Task):
        raise ValueError(
            f"Task '{name}': expected the registered function to return a `kbptt.tasks.Task`. "
            f"Received: {task!r} (of type {type(task).__name__})."
        )
    valid = {
        "mode": ("'max' or 'min'", lambda value: value in ("max", "min")),
        "metric": ("the name of a metric", lambda value: isinstance(value, str)),
        "baseline": ("a number (NaN if unknown)", _is_number),
        "perfect": ("a number or None", lambda value: value is None or _is_number(value)),
        "success": ("a number or None", lambda value: value is None or _is_number(value)),
        "outputs": ("a `kbptt.tasks.Outputs`", lambda value: isinstance(value, Outputs)),
    }
    for attribute, (expected, is_valid) in valid.items():
        value = getattr(task, attribute, None)
        if not is_valid(value):
            raise ValueError(
                f"Invalid attribute `{attribute}` of task '{name}'. Expected {expected}. "
                f"Received: {value!r} (of type {type(value).__name__})."
            )
    # Keras drops a last axis of length 1, and fails in the middle of a step.
    if type(task).loss is Task.loss and task.metric != "mse" and task.outputs.units < 2:
        raise ValueError(
            f"Invalid attribute `outputs` of task '{name}'. Expected one unit for each of two or "
            f"more classes, for the cross entropy of metric {task.metric!r}. Received: "
            f"{task.outputs!r}. With a loss for one unit, override `loss` and `metrics`."
        )
    return task


def _is_number(value: Any) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def _factory(name: str) -> Callable[..., Task]:
    if not isinstance(name, str) or name not in factories:
        raise ValueError(
            f"Unknown task: {name!r}{did_you_mean(name, factories)}. "
            f"The tasks are: {', '.join(names())}; see `kbptt tasks`."
        )
    return factories[name]
