"""Limits of the numbers that a user gives, and of the memory that a trial needs.

An absurdly large number is a typing error. It is refused here, before anything large is planned,
built or allocated.
"""

import os
import re
import stat
from collections.abc import Mapping
from typing import Any

from kbptt import _checks
from kbptt._extras import optional_imports
from kbptt.cells.names import NAMES

# Of every integer without a limit below, the options of tasks included.
LARGEST = 10**9
LIMITS = {
    "units": 2**16,
    "layers": 100,
    "epochs": 10**6,
    "batch_size": 10**6,
    "threads": 1024,
    "workers": 1024,
    "retries": 100,
    "sample": 10**6,
    "trials": 50_000,
    "seed": 2**63 - 1,
}


def integer(name: str, value: Any, least: int = 1, shown: str | None = None) -> int:
    """Returns `value` if it is an integer from `least` to the limit of `name`.

    Args:
        name: String, a key of `LIMITS`; any other name has the limit `LARGEST`.
        value: What the user gave.
        least: Integer. Defaults to `1`.
        shown: String, its name in the error. Defaults to `name`.
    """
    limit = LIMITS.get(name, LARGEST)
    if isinstance(value, int) and not isinstance(value, bool) and value > limit:
        # Without the number itself, which may have thousands of digits.
        raise ValueError(
            f"Invalid value for argument `{shown or name}`. Expected at most {limit:,}. "
            "Received a larger number."
        )
    if value == 0 == least and not isinstance(value, bool):
        return 0
    return _checks.positive_integer(shown or name, value, "" if least else "Or 0.")


def typed_integers(value: Any) -> Any:
    """Truncates the integers in a comma-separated string to the digits that the limits need.

    Longer ones are too large either way, and Python refuses to parse thousands of digits.
    """
    if not isinstance(value, str) or not re.fullmatch(r"[\d\s,]+", value):
        return value
    digits = len(str(max(LIMITS.values()))) + 1
    return re.sub(r"\d+", lambda number: number[0].lstrip("0")[:digits] or "0", value)


def seconds(value: Any, name: str = "trial_timeout") -> float | None:
    """Returns a length of time in seconds.

    Args:
        value: A number of seconds, or a string with a unit, such as "90s", "30m" or "1.5 hours".
        name: Its name in the error.
    """
    if value is None:
        return None
    with optional_imports():
        from dask.utils import parse_timedelta

    try:
        found = float(parse_timedelta(value.strip() if isinstance(value, str) else value))
    except (ValueError, LookupError, TypeError, AttributeError, OverflowError):
        found = 0.0
    if not 0 < found <= LARGEST or isinstance(value, bool):
        raise ValueError(
            f"Invalid value for argument `{name}`. Expected a positive length of time: seconds, or "
            f"a number with a unit, such as 90s, 30m or 12h. Received: {value!r}."
        )
    return found


def memory(value: Any, name: str = "memory_limit") -> int | str | None:
    """Returns an amount of memory in bytes, or "auto".

    Args:
        value: A number of bytes, or a string with a unit, such as "4GB" or "512 MiB".
        name: Its name in the error.
    """
    if value is None or value == "auto":
        return value
    with optional_imports():
        from dask.utils import parse_bytes

    try:
        found = parse_bytes(value) if value else 0  # of "", Dask makes a byte
    except (ValueError, LookupError, TypeError, AttributeError, OverflowError):
        found = 0
    if not found > 0 or isinstance(value, bool):
        raise ValueError(
            f"Invalid value for argument `{name}`. Expected a positive amount of memory: bytes, a "
            f"number with a unit, such as 4GB or 512MiB, or 'auto'. Received: {value!r}."
        )
    return int(found)


def check_task_option(name: str, value: Any) -> None:
    """Refuses integers beyond `LARGEST`, also within lists, and files without an end."""
    if isinstance(value, list):
        for part in value:
            check_task_option(name, part)
    elif isinstance(value, int) and abs(value) > LARGEST:
        raise ValueError(
            f"Invalid value for option `{name}`. Expected at most {LARGEST:,}. Received a larger "
            "number."
        )
    elif name == "path" and isinstance(value, str):
        check_file(value)


def check_file(path: str | os.PathLike[str]) -> None:
    """Refuses a directory, and devices, pipes and sockets, whose content may have no end.

    A missing file is reported by its reader.
    """
    try:
        mode = os.stat(os.path.expanduser(path)).st_mode
    except (OSError, ValueError):
        return
    if not stat.S_ISREG(mode):
        kind = "a directory" if stat.S_ISDIR(mode) else "a device or a pipe"
        raise ValueError(f"Cannot read {str(path)!r}: expected a file, but it is {kind}.")


def check_memory(task: Any, model: Mapping[str, Any], training: Mapping[str, Any]) -> None:
    """Raises `ValueError` if a trial needs more memory than this process may use.

    A lower bound: the data (those of streams the task has already), the weights with Adam's two
    moments, and the residuals of one batch.

    Args:
        task: A `kbptt.tasks.Task`.
        model: Its `cell`, `units` and `layers`.
        training: Its `batch_size`, and `stream` if on streams.
    """
    with optional_imports():
        from distributed.system import MEMORY_LIMIT  # respects control groups and limits

    sizes, batch_size = getattr(task, "sizes", (0, 0, 0)), training["batch_size"]
    copied = 0 if training.get("stream") else sum(sizes)
    # Weights of the input, the recurrence and the bias for each unit: one row of gates.
    gates, units, layers = NAMES[model["cell"]].gates, model["units"], model["layers"]
    features = task.features if task.vocabulary is None else min(task.vocabulary, 256)
    steps = task.length * min(batch_size, sizes[0])
    weights = gates * units * (features + units + (layers - 1) * 2 * units)
    weights += task.outputs.units * units + (task.vocabulary or 0) * units
    parts = {
        f"the data, {' + '.join(map(str, sizes))} sequences of {task.length} timesteps": (
            4 * copied * task.length * (task.features if task.vocabulary is None else 1)
        ),
        f"a model of {layers} × {units} units": 3 * 4 * weights,
        f"a batch of {min(batch_size, sizes[0])} sequences of {task.length} timesteps": (
            4 * steps * (layers * (gates + 1) * units + task.outputs.units)
        ),
    }
    for what, size in parts.items():
        if size > MEMORY_LIMIT:
            raise ValueError(
                f"Not enough memory for {what}: it needs at least {size / 2**30:,.0f} GiB, but "
                f"only {MEMORY_LIMIT / 2**30:,.0f} GiB are available. Choose smaller numbers."
            )
