"""Optional dependencies: what `pip install 'kbptt[…]'` adds, and the error where it is missing."""

import contextlib
import importlib.util
from collections.abc import Iterator

_COMPARE = ("distributed", "dask", "jinja2", "psutil", "rich", "sklearn", "typer", "yaml")
EXTRAS = {
    "plot": ("matplotlib",),
    "compare": _COMPARE,
    "csv": ("pandas",),
    "tune": ("optuna",),
}
"""The modules that each extra of setup.cfg brings."""


class MissingExtra(ModuleNotFoundError):
    """An optional dependency is not installed."""


@contextlib.contextmanager
def optional_imports() -> Iterator[None]:
    """A scope for imports of optional dependencies; if one is missing, the error names its extra.

    Example:

    >>> with optional_imports():
    ...     import pandas

    Raises:
        MissingExtra: If a module of `EXTRAS` cannot be found. Other errors pass unchanged.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        extra = next((name for name, modules in EXTRAS.items() if missing in modules), None)
        if extra is None:
            raise
        raise MissingExtra(
            f"This part of kbptt needs '{missing}', which is not installed. "
            f"Install it with: pip install 'kbptt[{extra}]'",
            name=missing,
        ) from None


def require(*modules: str) -> None:
    """Checks that optional dependencies are installed, without importing them.

    Raises:
        MissingExtra: If one of them is not; the error names its extra.
    """
    with optional_imports():
        for name in modules:
            if importlib.util.find_spec(name) is None:
                raise ModuleNotFoundError(name=name)
