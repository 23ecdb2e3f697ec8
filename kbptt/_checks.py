"""Checks of arguments. Every error states what was expected, what came and how to fix it."""

import difflib
import math
import numbers
from collections.abc import Iterable
from typing import Any


def positive_integer(name: str, value: Any, mend: str = "") -> int:
    """Returns `value` as an int, or raises `ValueError` naming the argument.

    Booleans, floats, strings and NaN are refused: ``True`` is no length.
    """
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < 1:
        raise ValueError(_message(name, "a positive integer", value, mend))
    return int(value)


def count(name: str, value: Any) -> int:
    """Returns `value` as an int if it is an integer of at least 0, or raises `ValueError`."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < 0:
        raise ValueError(_message(name, "an integer of at least 0", value, ""))
    return int(value)


def number(
    name: str,
    value: Any,
    *,
    above: float = -math.inf,
    at_least: float = -math.inf,
    at_most: float = math.inf,
    mend: str = "",
) -> float:
    """Returns `value` as a finite float within the bounds, or raises `ValueError`."""
    expected = "a finite number"
    if above > -math.inf:
        expected += f" above {above:g}"
    if at_least > -math.inf:
        expected += f" of at least {at_least:g}"
    if at_most < math.inf:
        expected += f", at most {at_most:g}"
    try:
        valid = isinstance(value, numbers.Real) and math.isfinite(float(value))
    except OverflowError:  # an integer beyond all floats
        valid = False
    if (
        not valid
        or isinstance(value, bool)
        or value <= above
        or value < at_least
        or value > at_most
    ):
        raise ValueError(_message(name, expected, value, mend))
    return float(value)


def share(name: str, value: Any) -> float:
    """Returns `value` as a float of at least 0 and below 1, or raises `ValueError`."""
    is_number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if not is_number or not 0 <= float(value) < 1:
        raise ValueError(_message(name, "a number of at least 0 and below 1", value, ""))
    return float(value)


def did_you_mean(word: Any, valid: Iterable[str]) -> str:
    """`" (did you mean 'x'?)"` with the nearest of `valid`; empty if none is near."""
    spelled = {name.lower(): name for name in valid}
    close = difflib.get_close_matches(str(word).lower(), list(spelled), n=1)
    return f" (did you mean {spelled[close[0]]!r}?)" if close else ""


def one_of(name: str, value: Any, valid: Iterable[Any]) -> Any:
    """Returns `value` if it is one of `valid`, or raises `ValueError` listing them."""
    valid = list(valid)
    if value not in valid:
        expected = "one of " + ", ".join(repr(v) for v in valid)
        raise ValueError(_message(name, expected, value, ""))
    return value


def check_seed(seed: Any) -> int:
    """Returns `seed` as an int, or raises `ValueError`."""
    if isinstance(seed, bool) or not isinstance(seed, numbers.Integral) or seed < 0:
        raise ValueError(_message("seed", "a non-negative integer", seed, ""))
    return int(seed)


def flag(name: str, value: Any) -> bool:
    """Returns `value` if it is a bool, or raises `ValueError`."""
    if not isinstance(value, bool) and type(value).__name__ not in ("bool_", "bool"):
        raise ValueError(
            f"Invalid value for argument `{name}`. Expected True or False. "
            f"Received: {name}={value!r} (of type {type(value).__name__})."
        )
    return bool(value)


def _message(name: str, expected: str, value: Any, mend: str) -> str:
    message = (
        f"Invalid value for argument `{name}`. Expected {expected}. "
        f"Received: {name}={value!r} (of type {type(value).__name__})."
    )
    return f"{message} {mend}".rstrip()
