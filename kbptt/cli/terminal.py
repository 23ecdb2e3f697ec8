"""What the commands share: values typed on the command line, directories."""

import contextlib
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import yaml


def parse_truncation(text: str) -> int | None:
    """Returns the truncation length typed by the user; `None` for "full"."""
    if text.strip().lower() in ("full", "none"):
        return None
    if not text.strip().isdecimal() or int(text) == 0:
        raise ValueError(
            "Invalid value for `--truncation`. Expected a positive integer, the number of "
            f"timesteps that the gradient goes back, or 'full'. Received: {text!r}."
        )
    return int(text)


def parse_options(assignments: Iterable[str]) -> dict[str, Any]:
    """Returns the options typed as `name=value`; the values are YAML scalars or lists."""
    options = {}
    for assignment in assignments:
        name, equals, value = assignment.partition("=")
        if not equals or not name.strip():
            raise ValueError(
                "Invalid value for `--option`. Expected name=value, such as length=200. "
                f"Received: {assignment!r}."
            )
        try:
            options[name.strip()] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise ValueError(
                f"Invalid value for `--option`. {value!r} is neither a word, a number nor a list."
            ) from error
    return options


@contextlib.contextmanager
def directory(path: Path) -> Iterator[Path]:
    """Yields a directory to write to, or raises `ValueError`; one left empty is removed if new."""
    new = not path.exists()
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise ValueError(f"Cannot write to the directory {path}: {error.strerror}.") from error
    try:
        yield path
    finally:
        if new:
            with contextlib.suppress(OSError):
                path.rmdir()
