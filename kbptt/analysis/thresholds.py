"""The bounds beyond which something is called wrong: one table, shown wherever it is used."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from kbptt._checks import did_you_mean, number


@dataclasses.dataclass(frozen=True)
class Thresholds:
    """Bounds of verdicts and findings. All are numbers; a comparison with a bound is strict.

    Attributes:
        vanishing: The gradient vanishes if it changes by a factor below this on its way back.
        decaying: It decays if the factor is below this.
        growing: It grows if the factor is above this.
        exploding: It explodes if the factor is above this.
        dark: Largest fraction of the timesteps that the gradient reaches with a norm below
            `vanishing` of the largest, and of the timesteps of a window that it does not reach.
        unsteady: Largest fraction of bad profiles over a run.
        records: Profiles needed before anything but non-finite steps is found.
        cut: Largest gradient by lag at the end of a truncation window, relative to the largest.
        window: How many times longer than needed a window may be, where the lags that hold 99 % of
            the gradient are needed.
        gates: Largest fraction of a gate's values outside 0.05–0.95. (An open forget or update gate
            carries the state and does not count.)
        units: Largest fraction of dead and saturated units.
        clip_rate: Largest fraction of steps in which a clip acts.
        nonfinite_steps: Largest number of steps with a NaN or infinite gradient.
    """

    vanishing: float = 1e-3
    decaying: float = 0.1
    growing: float = 10.0
    exploding: float = 1e3
    dark: float = 0.25
    unsteady: float = 0.25
    records: float = 3
    cut: float = 0.1
    window: float = 4.0
    gates: float = 0.9
    units: float = 0.5
    clip_rate: float = 0.95
    nonfinite_steps: float = 0

    def __post_init__(self) -> None:
        for name, value in dataclasses.asdict(self).items():
            checked = number(name, value, at_least=0)
            if name in _SHARES:
                number(name, value, at_most=1)
            object.__setattr__(self, name, int(checked) if checked.is_integer() else checked)
        if not 0 < self.vanishing < self.decaying < self.growing < self.exploding < math.inf:
            raise ValueError(
                "Expected vanishing < decaying < growing < exploding, all positive and finite. "
                f"Received: {self.vanishing:g}, {self.decaying:g}, {self.growing:g}, "
                f"{self.exploding:g}."
            )


_SHARES = ("dark", "unsteady", "cut", "gates", "units", "clip_rate")
DEFAULT = Thresholds()


def of_verdicts(thresholds: Thresholds = DEFAULT) -> dict[str, float]:
    """Those that `kbptt.analysis.verdict` reads, by name."""
    names = ("vanishing", "decaying", "growing", "exploding", "dark", "unsteady")
    return {name: getattr(thresholds, name) for name in names}


def as_dict(thresholds: Thresholds) -> dict[str, float]:
    """All of them by name."""
    return dataclasses.asdict(thresholds)


def get(value: Thresholds | Mapping[str, Any] | None) -> Thresholds:
    """Thresholds, from those that differ from the defaults by name.

    Raises:
        ValueError: If there is no such threshold, or a value is out of range.
    """
    if isinstance(value, Thresholds):
        return value
    if value is not None and not isinstance(value, Mapping):
        raise ValueError(
            "Invalid value for argument `thresholds`. Expected kbptt.analysis.Thresholds, or a "
            f"dict from names to numbers. Received: {value!r} (of type {type(value).__name__})."
        )
    known = [field.name for field in dataclasses.fields(Thresholds)]
    for name in value or {}:
        if name not in known:
            raise ValueError(
                f"There is no threshold {name!r}.{did_you_mean(name, known)} Expected one of "
                f"{', '.join(known)}."
            )
    return Thresholds(**(value or {}))
