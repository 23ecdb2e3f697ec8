"""Checks of the attributes of callbacks, for `kbptt._attributes.Option`."""

from typing import Any, Literal, TypeAlias

from kbptt import _checks

Frequency: TypeAlias = int | Literal["epoch"]


def epoch_or_steps(name: str, value: Any) -> Frequency:
    """Returns `value` if it is "epoch" or a positive integer."""
    if isinstance(value, str) and value == "epoch":
        return "epoch"
    return _checks.positive_integer(name, value, 'Or pass "epoch".')


def lags_count(name: str, value: Any) -> int:
    """Returns `value` if it is an integer of at least 2."""
    if _checks.positive_integer(name, value) < 2:
        raise ValueError(
            f"Invalid value for argument `{name}`. Expected at least 2 lags, since gradients are "
            f"compared between lags. Received: {name}={value}."
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
