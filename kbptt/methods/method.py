"""A method: what it adds to the baseline, as plain data that can be hashed, stored and sent."""

import dataclasses
import importlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from kbptt.tasks.model import CELLS

_OBJECT, _CONFIG = "object", "config"


def ref(path: str, **config: Any) -> dict[str, Any]:
    """A reference to an object that is created when it is needed.

    Args:
        path: String "module:name" of a class or function.
        **config: Its keyword arguments, of types that JSON can hold.
    """
    return {_OBJECT: path, _CONFIG: config}


@dataclasses.dataclass(frozen=True)
class Method:
    """What a method adds to the baseline.

    Args:
        name: String. Any characters but "+" and ",".
        description: String, one line.
        layer: Mapping of arguments of every recurrent layer. A value is anything JSON can hold, or
            a `ref`. "$timesteps" is replaced by the length of the task's sequences, "$inputs" by
            some of its training sequences.
        cell_layer: Mapping from the name of a cell to additional arguments for only that cell.
        callbacks: Sequence of `ref`s, or of classes and functions (stored by their import path)
            that are called without arguments. They run in this order.
        optimizer: Mapping of arguments of the optimizer.
        model: Sequence of `ref`s to functions `model -> model`, applied before compiling.
        cells: Sequence of the cells that the method is for, or `None` (default) for every cell.
    """

    name: str
    description: str = ""
    layer: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    callbacks: Sequence[Any] = ()
    optimizer: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    model: Sequence[Any] = ()
    cell_layer: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)
    cells: Sequence[str] | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name.strip():
            raise invalid("name", "a non-empty string", self.name)
        if not isinstance(self.description, str):
            raise invalid("description", "a string", self.description)
        for argument in ("layer", "optimizer", "cell_layer"):
            value = getattr(self, argument)
            if not isinstance(value, Mapping):
                raise invalid(argument, "a mapping from arguments to values", value)
        for cell, arguments in self.cell_layer.items():
            if cell not in CELLS or not isinstance(arguments, Mapping):
                expected = f"a mapping from {', '.join(CELLS)} to mappings of arguments"
                raise invalid("cell_layer", expected, self.cell_layer)
        cells = () if self.cells is None else self.cells
        if not _is_sequence(cells) or any(cell not in CELLS for cell in cells):
            raise invalid("cells", f"None or a sequence of {', '.join(CELLS)}", cells)
        for argument in ("callbacks", "model"):
            if not _is_sequence(getattr(self, argument)):
                raise invalid(argument, "a list or tuple of references", getattr(self, argument))
            references = tuple(_reference(value) for value in getattr(self, argument))
            object.__setattr__(self, argument, references)
        for argument in ("layer", "optimizer"):
            object.__setattr__(self, argument, dict(getattr(self, argument)))

    def definition(self, cell: str) -> dict[str, Any]:
        """The method's effect on a cell, without the method's name, in JSON types."""
        return {
            "layer": {**self.layer, **self.cell_layer.get(cell, {})},
            "callbacks": list(self.callbacks),
            "optimizer": dict(self.optimizer),
            "model": list(self.model),
        }


def make(value: Any, known: Mapping[str, Any] | None = None) -> Any:
    """Returns the object that a `ref` stands for; any other value as it is.

    Args:
        value: Anything.
        known: Values for words such as "$timesteps", the length of the task's sequences, which is
            unknown when a method is declared. Of a function, what it returns.
    """
    known = known or {}
    if isinstance(value, str):
        found = known.get(value, value)
        return found() if callable(found) else found
    if not (isinstance(value, Mapping) and set(value) == {_OBJECT, _CONFIG}):
        return value
    return find(value[_OBJECT])(**{k: make(v, known) for k, v in value[_CONFIG].items()})


def find(path: str) -> Any:
    """Imports the object at "module:name"."""
    module, _, name = str(path).partition(":")
    if not module or not name or module.startswith("."):
        raise ValueError(f"Expected an import path 'module:name'. Received: {path!r}.")
    try:
        found = importlib.import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"Cannot import {path!r}: {error}.") from error
    return found


def _is_sequence(value: Any) -> bool:
    return isinstance(value, list | tuple)


def invalid(argument: str, expected: str, value: Any) -> ValueError:
    return ValueError(
        f"Invalid value for argument `{argument}`. Expected {expected}. "
        f"Received: {argument}={value!r} (of type {type(value).__name__})."
    )


def _reference(value: Any) -> dict[str, Any]:
    """A `ref`, also from a class or function that can be imported where the trial runs."""
    if isinstance(value, Mapping) and set(value) == {_OBJECT, _CONFIG}:
        return {_OBJECT: value[_OBJECT], _CONFIG: dict(value[_CONFIG])}
    if isinstance(value, str):
        return ref(value)
    name = getattr(value, "__qualname__", "<lambda>")
    if isinstance(value, Callable) and "<" not in name and hasattr(value, "__module__"):
        return ref(f"{value.__module__}:{name}")
    raise ValueError(
        "A method's callbacks are created in each trial, possibly on a different machine. Expected "
        "`methods.ref('module:name', ...)` or a class or function at the top level of a module. "
        f"Received: {value!r} (of type {type(value).__name__})."
    )
