"""What a part of the evidence is: settings to train, a claim, rules that were set beforehand."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np

from kbptt.ablation import statistics

Parameters = dict[str, Any]
Score = dict[str, Any]
QUIET: Any = 0  # Keras takes it as `verbose`, which its annotation calls a string


@dataclasses.dataclass(frozen=True)
class Published:
    """A published number, and where it was checked; an empty `checked` says that it was not."""

    what: str
    value: str
    checked: str = ""


@dataclasses.dataclass(frozen=True)
class Check:
    """One statement of a claim, its published number and ours, and whether it holds.

    None is for too few seeds to tell: see `significant`.
    """

    statement: str
    published: str
    ours: str
    holds: bool | None


class Results:
    """The results of a part: of every setting, by seed."""

    def __init__(self, scores: Mapping[str, Mapping[int, Score]]):
        self._scores = scores

    def seeds(self, *settings: str) -> list[int]:
        """The seeds with a result of all these settings."""
        common = [set(self._scores.get(setting, ())) for setting in settings]
        return sorted(set.intersection(*common)) if common else []

    def of(self, setting: str, name: str = "score", *others: str) -> np.ndarray:
        """One number of the results of a setting, by seed; of seeds that the `others` have too."""
        found = self._scores.get(setting, {})
        values = [found[seed][name] for seed in self.seeds(setting, *others)]
        return np.array([np.nan if value is None else value for value in values], float)

    def curves(self, setting: str) -> list[np.ndarray]:
        """The curves of a setting, one for each seed."""
        found = self._scores.get(setting, {})
        return [np.array(found[seed]["curve"], float) for seed in self.seeds(setting)]

    def has(self, *settings: str) -> bool:
        return bool(self.seeds(*settings))


class Part(Protocol):
    """A module of this package that trains something.

    `run` returns JSON types; "score" is its main number. `checks` judges what there is, and leaves
    out what needs a setting without results.
    """

    TITLE: str
    CLAIM: str
    SOURCE: str
    DIFFERS: str
    PUBLISHED: tuple[Published, ...]
    SETTINGS: dict[str, Parameters]
    QUICK: Parameters
    SEEDS: int
    MINUTES: float
    TEXT: str
    run: Callable[[Parameters, int], Score]
    checks: Callable[[Results], list[Check]]
    draw: Callable[[Results, Any], None]


def verdict(checks: list[Check], seeds: int, planned: int) -> str:
    """The verdict of a part: of all its checks, with a warning if there are few seeds."""
    if not checks:
        return "not run yet"
    answers = {check.holds for check in checks}
    if answers == {None}:
        word = "open"
    elif answers == {True} and seeds >= planned:
        word = "reproduced"
    elif False not in answers:
        word = "reproduced so far"
    elif True in answers:
        word = "partly reproduced"
    else:
        word = "not reproduced"
    if seeds < planned:
        word += f" (unfinished: {seeds} of {planned} seeds)"
    return word + (", exploratory" if statistics.is_exploratory(seeds) else "")


def significant(better: bool, differences: np.ndarray) -> bool | None:
    """Whether a difference that should be there is, by the exact sign-flip test.

    None for so few seeds that the test cannot get below 0.05.
    """
    if statistics.is_exploratory(len(differences)):
        return None
    return bool(better and p_of(differences) < 0.05)


def number(value: float, digits: int = 3) -> str:
    return "diverged" if not np.isfinite(value) else f"{value:.{digits}g}"


def mean(values: np.ndarray, digits: int = 3) -> str:
    """Mean with its interval, of five runs or more, else with the runs themselves."""
    estimate = statistics.mean(values)
    if np.isfinite(estimate.low):
        low, high = (number(bound, digits) for bound in (estimate.low, estimate.high))
        return f"{number(estimate.value, digits)} [{low}, {high}], {len(values)} seeds"
    runs = ", ".join(number(value, digits) for value in values)
    return f"{number(float(np.mean(values)), digits)} ({runs})" if len(values) > 1 else runs


def solved(values: np.ndarray) -> str:
    """Successes of all runs, with Wilson's interval for five runs or more."""
    rate = statistics.success_rate(int(values.sum()), len(values))
    text = f"{int(values.sum())} of {len(values)}"
    return text if np.isnan(rate.low) else f"{text} [{rate.low:.0%}, {rate.high:.0%}]"


def p_of(differences: np.ndarray) -> float:
    """The exact sign-flip test of paired differences."""
    return statistics.sign_flip_p(differences)
