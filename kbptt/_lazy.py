"""Packages whose names are imported when they are first used."""

import sys
from collections.abc import Callable
from typing import Any

import lazy_loader

from kbptt._checks import did_you_mean


def attach(package: str, **names: Any) -> tuple[Callable, Callable, list[str]]:
    """`lazy_loader.attach`, with the nearest name in the error for one that does not exist.

    Returns:
        ``__getattr__``, ``__dir__`` and ``__all__`` of the package.
    """
    get, _, public = lazy_loader.attach(package, **names)

    def __getattr__(name: str) -> Any:
        if name in public:
            return get(name)
        hint = did_you_mean(name, public)
        raise AttributeError(f"module {package!r} has no attribute {name!r}{hint}")

    def __dir__() -> list[str]:
        version = {"__version__"} & vars(sys.modules[package]).keys()
        return sorted({*public, *version})

    return __getattr__, __dir__, public
