"""The argument ``zoneout=`` of the layers; what it does is in `kbptt.engine.zoneout`."""

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np

from kbptt._checks import share

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
    if isinstance(zoneout, np.ndarray):
        zoneout = zoneout.tolist()
    if isinstance(zoneout, list | tuple):
        if len(zoneout) != len(states):
            raise ValueError(
                f"Invalid value for argument `zoneout`. Expected one number, or one per state "
                f"({', '.join(states)}). Received: zoneout={zoneout!r}."
            )
        rates = tuple(share("zoneout", rate) for rate in zoneout)
        checked: float | tuple[float, ...] = rates if any(rates) else 0.0
    else:
        checked = share("zoneout", zoneout)
        rates = (checked,) * len(states)
    return checked, rates if any(rates) else ()
