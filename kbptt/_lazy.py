"""Packages whose names are imported when they are first used."""

import sys
from collections.abc import Callable
from typing import Any

import lazy_loader

from kbptt._checks import did_you_mean
from kbptt._extras import optional_imports


def attach(package: str, file: str) -> tuple[Callable[[str], Any], Callable[[], list], list[str]]:
    """`lazy_loader.attach_stub`, with the nearest name in the error for one that does not exist.

    The names are those imported in the stub ``__init__.pyi``, which type checkers and editors read.

    Args:
        package: ``__name__`` of the package.
        file: ``__file__`` of the package.

    Returns:
        ``__getattr__``, ``__dir__`` and ``__all__`` of the package.
    """
    get, _, public = lazy_loader.attach_stub(package, file)

    def __getattr__(name: str) -> Any:
        if name in public:
            with optional_imports():
                return get(name)
        hint = did_you_mean(name, public)
        raise AttributeError(f"module {package!r} has no attribute {name!r}{hint}")

    def __dir__() -> list[str]:
        version = {"__version__"} & vars(sys.modules[package]).keys()
        return sorted({*public, *version})

    return __getattr__, __dir__, public
