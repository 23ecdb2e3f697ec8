"""Tuning: every method searches one space with one budget, on seeds that the comparison never has.

A search belongs to a method on a task (with its values of the axes): each is tried at the same
number of points, on the same seeds, and the points come from the same sampler with the same seed.
What counts is the validation score alone; a trial of a search does not read the test data.

Reference:
- [Choi et al., 2019, On empirical comparisons of optimizers for deep learning](
    https://arxiv.org/abs/1910.05446): rankings follow the tuning; it has to be the same for all.
- [Dahl et al., 2023, Benchmarking neural network training algorithms](
    https://arxiv.org/abs/2306.07179): one budget of quasi-random points for every workload.
"""

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from kbptt import _checks
from kbptt.ablation import limits, options, samplers, spaces
from kbptt.ablation.resampling import unscaled
from kbptt.ablation.rows import Trial, canonical
from kbptt.tasks import registry

# The arguments besides `tune`, and the options of the command line.
SHOWN = {
    "tuning_trials": "--trials",
    "tuning_seeds": "--tuning-seeds",
    "tuning_sampler": "--sampler",
}
STAGE = "tuning"  # `stage` of the trials of a search; those of the comparison have none
TRIALS, SEEDS = 8, 2
FIRST_SEED = 10**9  # of the searches; those of the comparison are below


@dataclasses.dataclass(frozen=True)
class Tuning:
    """The space and the budget of every search. Make one with `Tuning.make`."""

    space: spaces.Space
    trials: int
    seeds: tuple[int, ...]
    sampler: str

    @classmethod
    def make(
        cls,
        task_names: Sequence[str],
        tune: Mapping[str, Any] | None = None,
        trials: int | None = None,
        seeds: int | None = None,
        sampler: str | None = None,
    ) -> "Tuning | None":
        """Checks the arguments, which are those of `Grid.make`; `None` without `tune`."""
        if not tune:
            for name, value in zip(SHOWN, (trials, seeds, sampler), strict=True):
                if value is not None:
                    raise ValueError(
                        f"{SHOWN[name]} (`{name}`) is given, but there is nothing to tune. Pass at "
                        "least one option with --tune or the argument `tune`, such as "
                        "learning_rate=1e-4..1e-2."
                    )
            return None
        sampler = sampler or samplers.NAMES[0]
        samplers.check(_checks.one_of("tuning_sampler", sampler, samplers.NAMES))
        count = limits.integer("trials", SEEDS if seeds is None else seeds, shown="tuning_seeds")
        trials = TRIALS if trials is None else trials
        return cls(
            space=spaces.parse(tune, task_names),
            trials=limits.integer("trials", trials, shown="tuning_trials"),
            seeds=tuple(range(FIRST_SEED, FIRST_SEED + count)),
            sampler=sampler,
        )

    @property
    def points(self) -> int:
        """How many points of the space every search tries."""
        return int(min(self.trials, spaces.size(self.space)))

    @property
    def paths(self) -> set[options.Path]:
        """The options that are tuned."""
        return set(map(options.path_of, self.space))

    def fixed_tests(
        self, task_names: Iterable[str], given: Mapping[options.Path, Any]
    ) -> dict[options.Path, Any]:
        """Settings by which no search sees data that a seed of the comparison is tested on.

        Most tasks draw new data for every seed, or have one test part for all seeds. Those that
        split one set of data anew for every seed have the option `fixed_test`.
        """
        found = {}
        for task in task_names:
            if "fixed_test" in registry.options(task):
                found[task, "fixed_test"] = True
        for (section, option), value in given.items():
            if option == "fixed_test" and section in ("task", *task_names) and value is not True:
                raise ValueError(
                    "With tuning, expected fixed_test=true: otherwise a search would see data that "
                    f"another seed is tested on. Received: fixed_test={value!r}. Remove it."
                )
        return found

    def check_seeds(self, seeds: Iterable[int]) -> None:
        """Refuses seeds of the comparison that the searches have, or may have some day."""
        for seed in seeds:
            if seed >= FIRST_SEED:
                raise ValueError(
                    f"Invalid value for argument `seeds`. With tuning, expected seeds below "
                    f"{FIRST_SEED}; those from there on are for the searches. Received: {seed}."
                )

    def configuration(self) -> dict[str, Any]:
        """The tuning in JSON types, a part of the configuration of a study."""
        return {
            "space": {name: d.configuration() for name, d in self.space.items()},
            "trials": self.trials,
            "seeds": list(self.seeds),
            "sampler": self.sampler,
        }

    def next(self, points: Sequence["Point"]) -> list[spaces.Values]:
        """What a search tries next; nothing while trials of it run, and at its end."""
        if not all(point.settled for point in points):
            return []
        history = list(zip((p.values for p in points), scores(points), strict=True))
        return samplers.suggest(self.sampler, self.space, self.trials, history)


@dataclasses.dataclass(frozen=True)
class Point:
    """A point of a search space with its trials, one for each seed."""

    values: spaces.Values
    trials: list[Trial]

    @property
    def settled(self) -> bool:
        """Whether every trial has ended, in whatever way."""
        return all(trial.state in ("done", "failed") for trial in self.trials)


def points_of(trials: Iterable[Trial]) -> list[Point]:
    """The points of one search in the order of the ledger."""
    found: dict[str, Point] = {}
    for trial in trials:
        values = trial.config["tuned"]
        found.setdefault(canonical(values), Point(values, [])).trials.append(trial)
    return list(found.values())


def best(points: Sequence[Point]) -> Point | None:
    """The point with the best mean, the first of equals; `None` if every trial crashed."""
    if not any(trial.result for point in points for trial in point.trials):
        return None
    found = scores(points)
    return points[found.index(max(found))]


def scores(points: Sequence[Point]) -> list[float]:
    """Mean validation score of each point over the seeds; larger is better.

    A trial that crashed or diverged counts as the worst of the search and of the task's baseline,
    just as a diverged run does in the comparison.
    """
    runs = [[_signed(trial) for trial in point.trials] for point in points]
    known = [score for point in runs for score in point if score is not None]
    worst = min([*known, *_baseline(points)], default=0.0)
    filled = [[worst if score is None else score for score in point] for point in runs]
    return [unscaled(np.mean, np.array(point)) for point in filled]


def validation_score(result: Mapping[str, Any], config: Mapping[str, Any]) -> float | None:
    """The validation score of a result; `None` if the run diverged.

    It is the number `validation_score` or, without one, taken from the curve `validation` by the
    checkpoint rule: the best, or the last.

    Raises:
        ValueError: if a run that did not diverge has neither.
    """
    if result["status"] != "ok":
        return None
    score = result.get("validation_score")
    if score is None:
        curve = (result.get("curve") or {}).get("validation") or []
        if config["training"].get("checkpoint") == "last":
            curve = curve[-1:]
        finite = [value for value in curve if math.isfinite(value)]
        if not curve:
            raise ValueError(
                "`validation_score` of a trial: expected a number, or a list `validation` in its "
                "`curve`: tuning uses the validation score, never the test data. "
                "Received neither."
            )
        score = (max if result["mode"] == "max" else min)(finite, default=math.nan)
    return float(score) if math.isfinite(score) else None


def _signed(trial: Trial) -> float | None:
    """The validation score of a trial, larger is better; `None` if it failed."""
    if trial.result is None:
        return None
    try:
        score = validation_score(trial.result, trial.config)
    except ValueError:  # no worker sends such a result, but a ledger may be damaged
        return None
    return score if score is None or trial.result["mode"] == "max" else -score


def _baseline(points: Sequence[Point]) -> list[float]:
    """The score of the task's baseline, larger is better, if it has one."""
    for result in (trial.result for point in points for trial in point.trials):
        if result and result.get("baseline") is not None:
            return [result["baseline"] if result["mode"] == "max" else -result["baseline"]]
    return []
