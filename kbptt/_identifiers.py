"""Identifiers of Keras's kind: what they stand for, and what an unknown one is answered with."""

from collections.abc import Callable, Iterable, Mapping
from types import ModuleType
from typing import Any, TypeVar

import keras

from kbptt._checks import did_you_mean

_Kind = TypeVar("_Kind")


def from_config(identifier: Any, kind: type[_Kind]) -> _Kind | None:
    """The object that a configuration describes, if it is one of this kind; else None.

    Args:
        identifier: Anything; a configuration is what `keras.saving.serialize_keras_object` returns.
        kind: The class.
    """
    if not isinstance(identifier, dict):
        return None
    try:
        made = keras.saving.deserialize_keras_object(identifier)
    except TypeError:  # an unregistered class
        return None
    return made if isinstance(made, kind) else None


def option(
    argument: str, identifier: Any, kind: type[_Kind], names: Mapping[str, Callable[[], _Kind]]
) -> _Kind | None:
    """What an argument of a layer stands for: None, a name, a configuration or an object.

    Args:
        argument: Name of the argument.
        identifier: Its value.
        kind: The class of the objects.
        names: What makes the object of each name.

    Raises:
        ValueError: If the identifier is none of these.
    """
    if identifier is None or isinstance(identifier, kind):
        return identifier
    if isinstance(identifier, str) and identifier in names:
        return names[identifier]()
    if (made := from_config(identifier, kind)) is not None:
        return made
    hint = did_you_mean(identifier, names) if isinstance(identifier, str) else ""
    raise ValueError(
        f"Invalid value for argument `{argument}`. Expected None, "
        f"{', '.join(map(repr, names))}, or a {kind.__module__}.{kind.__name__}. "
        f"Received: {argument}={identifier!r}{hint} (of type {type(identifier).__name__})."
    )


def unknown(kind: str, identifier: Any, own: Iterable[str], module: ModuleType) -> ValueError:
    """The error for an identifier that is no name, config or object of its kind.

    Args:
        kind: What it should be, such as `"initializer"`.
        identifier: What was given.
        own: The names of kbptt.
        module: The module of Keras whose names are understood as well.
    """
    own = list(own)
    theirs = [
        name
        for name, value in vars(module).items()
        if isinstance(value, type) and name == name.lower() and not name.startswith("_")
    ]
    hint = did_you_mean(identifier, [*own, *theirs]) if isinstance(identifier, str) else ""
    names = [*own, *(name for name in theirs if name not in own)]
    return ValueError(
        f"Invalid {kind}{hint}. Expected one of {', '.join(map(repr, names))}, the config of one, "
        f"or a callable. Received: {identifier!r}."
    )
