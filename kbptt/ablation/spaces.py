"""Search spaces: the options that are tuned, and the values that each of them may take."""

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

from kbptt import _checks
from kbptt.ablation import limits, options
from kbptt.ablation.rows import Trial
from kbptt.ablation.values import scalar

DECADE = 10  # a range of positive numbers that spans so much is searched on a logarithmic scale
DIGITS = 3  # of a float that is tried: no result depends on more, and tables stay legible
# Options that decide what is measured, and how: the same for all trials of a study.
NEVER = {("training", name) for name in ("threads", "checkpoint", "stream")} | {("model", "cell")}
EXPECTED = (
    "Expected a range such as 1e-4..1e-2 or 16..64, a list of choices such as [0.5,1,5], or "
    "{low: 1e-4, high: 1e-2, log: true}."
)


@dataclasses.dataclass(frozen=True)
class Range:
    """All numbers from `low` to `high`, or all integers; `log`: evenly on a logarithmic scale."""

    low: float
    high: float
    integer: bool
    log: bool

    @property
    def size(self) -> float:
        """How many values there are."""
        return self.high - self.low + 1 if self.integer else math.inf

    def at(self, share: float) -> float:
        """The value at a share of the range, from 0 to below 1."""
        half = 0.5 if self.integer else 0.0  # so that the first and the last are as likely
        low, high = self.low - half, self.high + half
        if self.log:
            value = low * (high / low) ** share
        else:
            value = low + share * (high - low)
        return self.nearest(value)

    def all(self) -> Iterable[float]:
        """Every value of a range of integers."""
        return range(int(self.low), int(self.high) + 1)

    def nearest(self, value: float) -> float:
        """The nearest value that is tried: an integer, or a float of few digits."""
        value = round(value) if self.integer else float(f"{value:.{DIGITS}g}")
        return min(max(value, self.low), self.high)

    def describe(self) -> str:
        kind = ", integers" * self.integer + ", logarithmic" * self.log
        return f"{self.low:g} to {self.high:g}{kind}"

    def configuration(self) -> Any:
        return {"low": self.low, "high": self.high, "integer": self.integer, "log": self.log}


@dataclasses.dataclass(frozen=True)
class Choice:
    """One of a few values."""

    values: tuple[Any, ...]

    @property
    def size(self) -> float:
        """How many values there are."""
        return len(self.values)

    def at(self, share: float) -> Any:
        """The value at a share of the list, from 0 to below 1."""
        return self.values[int(share * len(self.values))]

    def all(self) -> Iterable[Any]:
        """Every value."""
        return self.values

    def describe(self) -> str:
        return "one of " + ", ".join(map(options.show, self.values))

    def configuration(self) -> Any:
        return list(self.values)


Space: TypeAlias = Mapping[str, Range | Choice]
"""The dimensions of a search by the short name of the option."""
Values: TypeAlias = dict[str, Any]
"""One point of a space: a value by the short name of the option."""


def size(space: Space) -> float:
    """How many different points a space has."""
    return math.prod(dimension.size for dimension in space.values())


def ends(space: Space) -> list[Values]:
    """Points that, between them, have every choice and both ends of every range."""
    dimensions = {
        n: d.all() if isinstance(d, Choice) else (d.low, d.high) for n, d in space.items()
    }
    first = {name: next(iter(values)) for name, values in dimensions.items()}
    found = [first]
    for name, values in dimensions.items():
        found += [{**first, name: value} for value in list(values)[1:]]
    return found


def described(values: Values, separator: str = ", ") -> str:
    """A point in one line."""
    return separator.join(f"{n}={options.show(v, options.path_of(n))}" for n, v in values.items())


def at(arm: Trial, values: Values, seed: int, stage: str) -> Trial:
    """An arm's planned trial at a point, of a stage of the study other than the comparison.

    Args:
        arm: A trial of the comparison.
        values: The point.
        seed: Integer, the seed.
        stage: String, the name of the stage, which is that of a folder too.
    """
    config = options.with_values(arm.config, values, seed=seed, stage=stage)
    method, task, _ = arm.directory.rsplit("/", 2)
    parts = (stage, method, task, options.slug(described(values, ",")), str(seed))
    return Trial.planned(config, "/".join(parts))


def parse(tune: Mapping[str, Any], task_names: Sequence[str]) -> dict[str, Range | Choice]:
    """Reads the argument `tune`, from options to ranges and choices.

    Raises:
        ValueError: for an option that cannot be tuned, and for anything that is no range, no list
            of choices, or has a value that the option refuses.
    """
    if not isinstance(tune, Mapping):
        raise ValueError(
            "Invalid value for argument `tune`. Expected a mapping from options to ranges and "
            f"choices. Received: tune={tune!r} (of type {type(tune).__name__})."
        )
    space = {}
    for name, given in tune.items():
        path = options.resolve(name, task_names)
        if path[0] not in options.SECTIONS or path in NEVER:
            raise ValueError(
                f"Option {name!r} cannot be tuned: it affects what is measured, which has to be "
                "the same for every trial. Tune options of model, optimizer and training, such as "
                "learning_rate, units, dropout or clip; compare others as an axis (--set)."
            )
        space[options.display(path)] = _dimension(name, path, given)
    return dict(sorted(space.items()))  # in whatever order they were given, the points are the same


def parsed(given: Any) -> Range | Choice:
    """A dimension from its `configuration`."""
    return Choice(tuple(given)) if isinstance(given, list) else Range(**given)


def _dimension(name: str, path: options.Path, given: Any) -> Range | Choice:
    """One dimension as it was given, checked."""
    if isinstance(given, list) and len(given) == 1:
        given = given[0]  # as typed, several values have commas between them
    if isinstance(given, list):
        return _choice(name, path, given)
    log = None
    if isinstance(given, str) and ".." in given:
        low, _, high = (scalar(part) for part in given.partition(".."))
    elif isinstance(given, Mapping) and {"low", "high"} <= given.keys() <= {"low", "high", "log"}:
        low, high = scalar(given["low"]), scalar(given["high"])
        log = given.get("log")
    else:
        raise _wrong(name, given)
    if not all(type(end) in (int, float) and math.isfinite(end) for end in (low, high)):
        raise _wrong(name, given)
    if not low < high:
        raise _wrong(name, given, " The first number has to be smaller than the second.")
    checked = [options.check(path, end, name) for end in (low, high)]
    integer = all(type(end) is int for end in (low, high, *checked))
    if log is None:
        log = low > 0 and high / low >= DECADE
    elif _checks.flag("log", log) and low <= 0:
        raise _wrong(name, given, " A logarithmic range has to start above 0.")
    kind = int if integer else float
    return Range(kind(low), kind(high), integer, log)


def _choice(name: str, path: options.Path, given: Sequence[Any]) -> Choice:
    if len(given) < 2:
        raise _wrong(name, given)
    values = [options.check(path, scalar(value), name) for value in given]
    for i, value in enumerate(values):
        if value in values[:i]:
            raise ValueError(
                f"{value!r} is listed twice among the choices of {name!r}: list it once."
            )
    limits.integer("trials", len(values), shown=name)
    return Choice(tuple(values))


def _wrong(name: str, given: Any, more: str = "") -> ValueError:
    return ValueError(
        f"Invalid search space for option {name!r}. {EXPECTED} Received: {name}={given!r}.{more}"
    )
