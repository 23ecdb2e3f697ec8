"""Identifiers of Keras's kind: what one that is unknown is answered with."""

from collections.abc import Iterable
from types import ModuleType
from typing import Any

from kbptt._checks import did_you_mean


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
