"""Attributes of callbacks: those that may be set are checked, the others say what to do instead."""

from collections.abc import Callable
from typing import Any

from kbptt import _checks

FIXED_DIRECTORY = "One callback writes one run: make a second callback for another directory."


class Option:
    """An attribute that is checked whenever it is set.

    Args:
        check: Called with the attribute's name and value. Returns what to keep, or raises
            `ValueError`.
    """

    def __init__(self, check: Callable[[str, Any], Any]) -> None:
        self.check = check

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, callback: Any, owner: type | None = None) -> Any:
        return self if callback is None else vars(callback)[self.name]

    def __set__(self, callback: Any, value: Any) -> None:
        vars(callback)[self.name] = self.check(self.name, value)


class Fixed:
    """An attribute that can only be read.

    Args:
        read: Returns its value, given the callback.
        mend: What to do instead of setting it.
    """

    def __init__(self, read: Callable[[Any], Any], mend: str) -> None:
        self.read = read
        self.mend = mend

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, callback: Any, owner: type | None = None) -> Any:
        return self if callback is None else self.read(callback)

    def __set__(self, callback: Any, value: Any) -> None:
        raise AttributeError(
            f"`{self.name}` of {type(callback).__name__} cannot be set. {self.mend}"
        )


# Checks for `Option` that several callbacks share.


def count(name: str, value: Any) -> int:
    """Returns `value` if it is an integer of at least 0."""
    if value == 0 and not isinstance(value, bool):
        return 0
    return _checks.positive_integer(name, value, "Or give 0.")


def log_freq(name: str, value: Any) -> str | int:
    """Returns `value` if it is "epoch" or a positive integer."""
    if isinstance(value, str) and value == "epoch":
        return value
    return _checks.positive_integer(name, value, 'Or give "epoch".')


def lags_count(name: str, value: Any) -> int:
    """Returns `value` if it is an integer of at least 2."""
    if _checks.positive_integer(name, value) < 2:
        raise ValueError(
            f"Invalid value for argument `{name}`. Expected at least 2 lags, since the gradients "
            f"are compared from lag to lag. Received: {name}={value}."
        )
    return int(value)


def labelled_sequences(name: str, value: Any) -> tuple:
    """Returns `value` if it is (x, y) or (x, y, sample_weight)."""
    if not isinstance(value, list | tuple) or len(value) not in (2, 3):
        raise ValueError(
            f"Invalid value for argument `{name}`. Expected (x, y) or (x, y, sample_weight), "
            f"sequences to measure the gradients on. Received: {name} of type "
            f"{type(value).__name__}."
        )
    return tuple(value)
