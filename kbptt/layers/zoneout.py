"""The argument ``zoneout=`` of the layers; what it does is in `kbptt.engine.zoneout`."""

from collections.abc import Sequence
from typing import TypeAlias

from kbptt._checks import number

ZoneoutLike: TypeAlias = float | Sequence[float]


def zoneout_rates(
    zoneout: ZoneoutLike, states: Sequence[str]
) -> tuple[float | tuple[float, ...], tuple[float, ...]]:
    """The checked argument, and the rate of each state; none if nothing is ever zoned out.

    Args:
        zoneout: A number for all states, or one for each.
        states: Names of the states.

    Raises:
        ValueError: If a rate is not in [0, 1), or there are not as many as states.
    """
    if isinstance(zoneout, list | tuple):
        if len(zoneout) != len(states):
            raise ValueError(
                f"Invalid value for argument `zoneout`. Expected a number, or one for each state "
                f"({', '.join(states)}). Received: zoneout={zoneout!r}."
            )
        rates = tuple(number("zoneout", rate, at_least=0, at_most=1) for rate in zoneout)
        checked: float | tuple[float, ...] = rates if any(rates) else 0.0
    else:
        checked = number("zoneout", zoneout, at_least=0, at_most=1)
        rates = (checked,) * len(states)
    if max(rates) == 1:
        raise ValueError(
            "Invalid value for argument `zoneout`. Expected probabilities below 1: a unit that "
            f"always keeps its value never takes one. Received: zoneout={zoneout!r}."
        )
    return checked, rates if any(rates) else ()
