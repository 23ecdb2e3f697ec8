"""From the trials of a ledger to numbers: scores by method and task, and their comparison.

Rules, the same for every method and declared before any result is seen:

* The **score** of a run is the task's primary metric on its test data, at the epoch that the
  checkpoint rule names.
* To average over tasks, a score becomes a **skill**: 0 for the task's baseline (the best predictor
  without memory) or worse, 1 for a perfect answer. A perfect answer is 1 (0 where less is better)
  unless the task says otherwise, or a score is better still: then it is the best one.
* A **diverged** run is a failure: skill 0, and in the metric's own units the worst of the baseline
  and all scores of the task. A run that **crashed** has no score; it is listed, not hidden.
* Methods are compared over the seeds that both have, on the skill; per task on the metric.
"""

import collections
import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from kbptt.ablation import options, statistics
from kbptt.ablation.grid import show
from kbptt.ablation.ledger import Trial

PERFECT = {"max": 1.0, "min": 0.0}  # accuracy; errors, nats and bits


@dataclasses.dataclass(frozen=True)
class Row:
    """A method (with its settings, where those are an axis) and how it did."""

    arm: str
    runs: int
    diverged: int
    failed: int
    mean: statistics.Estimate
    iqm: statistics.Estimate
    success: statistics.Estimate
    reference: str | None
    comparison: statistics.Comparison | None
    p: float  # after Holm's correction
    seconds_per_step: float
    memory: float
    decay: float
    clip_rate: float


class Results:
    """Scores of finished trials, arranged by arm, task and seed.

    An arm is what is compared: a method together with the values of the axes. Labels name the
    options that differ within the ablation, and only those.

    Args:
        trials: From the ledger, in its order.
        reference: Label of the arm to compare with. Defaults to the baseline (or the first method)
            with the same values of the axes; with a single method, its first arm.
    """

    def __init__(self, trials: Sequence[Trial], reference: str | None = None):
        self.trials = list(trials)
        label_arm, label_task = _labels([t.config for t in self.trials])
        self.runs: dict[tuple[str, str, int], Trial] = {}
        self._method_of: dict[str, str] = {}
        self._rest_of: dict[str, str] = {}
        for trial in self.trials:
            arm, rest = label_arm(trial.config)
            self.runs[arm, label_task(trial.config), trial.config["seed"]] = trial
            self._method_of[arm] = trial.config["method"]["name"]
            self._rest_of[arm] = rest
        self.arms = list(dict.fromkeys(arm for arm, _, _ in self.runs))
        self.tasks = list(dict.fromkeys(task for _, task, _ in self.runs))
        self.seeds = sorted({seed for _, _, seed in self.runs})
        if reference is not None and reference not in self.arms:
            raise ValueError(
                f"Unknown reference: {reference!r}. Expected one of {', '.join(self.arms)}."
            )
        self._reference = reference

    @property
    def exploratory(self) -> bool:
        """Whether there are too few seeds for any conclusion at the 5 % level."""
        return statistics.is_exploratory(len(self.seeds))

    def reference_of(self, arm: str) -> str | None:
        """The arm that `arm` is compared with; None for a reference itself."""
        if self._reference is not None:
            return None if arm == self._reference else self._reference
        methods = list(dict.fromkeys(self._method_of.values()))
        if len(methods) == 1:
            return None if arm == self.arms[0] else self.arms[0]
        method = "baseline" if "baseline" in methods else methods[0]
        for other in self.arms:
            if self._method_of[other] == method and self._rest_of[other] == self._rest_of[arm]:
                return None if other == arm else other
        return None

    @property
    def comparisons(self) -> int:
        """How many arms are compared with a reference: what Holm's correction counts."""
        return sum(self.reference_of(arm) is not None for arm in self.arms)

    def done(self, arm: str | None = None, task: str | None = None) -> list[Trial]:
        """Trials with a result, of an arm, a task or both."""
        return [
            trial
            for (a, t, _), trial in self.runs.items()
            if trial.result is not None and arm in (None, a) and task in (None, t)
        ]

    def metric(self, task: str) -> tuple[str, str, float]:
        """Name, mode and baseline of a task's primary metric."""
        for trial in self.done(task=task):
            result = trial.result
            baseline = result.get("baseline")
            return result["metric"], result["mode"], math.nan if baseline is None else baseline
        return "", "max", math.nan

    def scores(self, arm: str, task: str) -> np.ndarray:
        """Primary metric by seed, diverged runs at the worst; NaN where there is no result."""
        worst = self._worst(task)
        return np.array([_score(self.runs.get((arm, task, s)), worst) for s in self.seeds])

    def skills(self, arm: str, tasks: Sequence[str] | None = None) -> np.ndarray:
        """Skill, array `(seeds, tasks)`; NaN where there is no result."""
        columns = []
        for task in tasks or self.tasks:
            baseline, perfect = self._scale(task)
            scores = self.scores(arm, task)
            span = perfect - baseline
            with np.errstate(invalid="ignore"):
                skill = (scores - baseline) / span if span else np.where(scores == perfect, 1, 0)
            columns.append(np.where(np.isnan(scores), np.nan, np.clip(skill, 0, 1)))
        return np.stack(columns, axis=1)

    def table(self) -> list[Row]:
        """All arms over all tasks, best mean skill first."""
        return self._rank({arm: self.skills(arm) for arm in self.arms}, None)

    def task_table(self, task: str) -> list[Row]:
        """All arms on one task in the metric's own units, best mean first."""
        sign = 1 if self.metric(task)[1] == "max" else -1
        scores = {arm: sign * self.scores(arm, task)[:, None] for arm in self.arms}
        scores = {arm: s for arm, s in scores.items() if self.done(arm, task)}
        return [_with_sign(row, sign) for row in self._rank(scores, task)]

    def _rank(self, scores: dict[str, np.ndarray], task: str | None) -> list[Row]:
        comparisons = {}
        for arm in scores:
            reference = self.reference_of(arm)
            if reference in scores:
                comparisons[arm] = statistics.compare(scores[arm], scores[reference])
        adjusted = statistics.holm([c.p for c in comparisons.values()])
        p_values = dict(zip(comparisons, adjusted, strict=True))
        rows = []
        for arm, values in scores.items():
            done = self.done(arm, task)
            judged = [t.result for t in done if t.result.get("success_threshold") is not None]
            rows.append(
                Row(
                    arm=arm,
                    runs=len(done),
                    diverged=sum(t.result["status"] == "diverged" for t in done),
                    failed=self._failed(arm, task),
                    mean=statistics.mean(values),
                    iqm=statistics.interquartile_mean(values),
                    success=statistics.success_rate(sum(map(is_success, judged)), len(judged)),
                    reference=self.reference_of(arm),
                    comparison=comparisons.get(arm),
                    p=float(p_values.get(arm, math.nan)),
                    seconds_per_step=_median(done, "cost", "seconds_per_step"),
                    memory=_median(done, "cost", "training_memory_bytes"),
                    decay=_median_of([decay(t.result, "end") for t in done]),
                    clip_rate=_median_of([clip_rate(t.result) for t in done]),
                )
            )
        return sorted(
            rows, key=lambda row: (math.isnan(row.mean.value), -row.mean.value, row.diverged)
        )

    def _failed(self, arm: str, task: str | None) -> int:
        return sum(
            trial.state == "failed" and a == arm and task in (None, t)
            for (a, t, _), trial in self.runs.items()
        )

    def _scale(self, task: str) -> tuple[float, float]:
        """The scores of skill 0 and 1."""
        _, mode, baseline = self.metric(task)
        declared = next((t.result.get("perfect") for t in self.done(task=task)), None)
        perfect = PERFECT[mode] if declared is None else declared
        if not math.isfinite(baseline) or baseline == perfect:
            baseline = self._worst(task)
        if declared is None:
            choose = max if mode == "max" else min
            perfect = choose(perfect, self._extreme(task, best=True))
        return baseline, perfect

    def _worst(self, task: str) -> float:
        return self._extreme(task, best=False)

    def _extreme(self, task: str, best: bool) -> float:
        """The best or worst of all scores of a task and its baseline."""
        _, mode, baseline = self.metric(task)
        scores = [t.result["score"] for t in self.done(task=task) if _finite(t.result["score"])]
        known = [*scores, *([baseline] if math.isfinite(baseline) else [])]
        if not known:
            return math.nan
        return max(known) if best == (mode == "max") else min(known)


def is_success(result: dict[str, Any]) -> bool:
    """Whether a run reached the task's threshold of success."""
    threshold, score = result.get("success_threshold"), result["score"]
    if threshold is None or not _finite(score):
        return False
    return score >= threshold if result["mode"] == "max" else score <= threshold


def decay(result: dict[str, Any], when: str) -> float:
    """Decay of the gradient for each timestep into the past, the mean over the layers."""
    layers = (result.get("gradient") or {}).values()
    return _median_of([layer[f"statistics_{when}"]["decay"] for layer in layers])


def clip_rate(result: dict[str, Any]) -> float:
    """Share of the steps in which a gradient was clipped; the largest of several callbacks."""
    rates = [c.get("clip_rate", math.nan) for c in (result.get("clipping") or {}).values()]
    return max(rates) if rates else math.nan


def skipped(result: dict[str, Any]) -> float:
    """Steps that were skipped because a gradient was not finite."""
    counts = [c.get("skipped", math.nan) for c in (result.get("clipping") or {}).values()]
    return max(counts) if counts else math.nan


def _score(trial: Trial | None, worst: float) -> float:
    if trial is None or trial.result is None:
        return math.nan
    score = trial.result["score"]
    return float(score) if _finite(score) else worst


def _finite(value: Any) -> bool:
    return value is not None and math.isfinite(value)


def _median(trials: Sequence[Trial], section: str, name: str) -> float:
    return _median_of([(t.result.get(section) or {}).get(name) for t in trials])


def _median_of(values: Sequence[float | None]) -> float:
    values = [value for value in values if _finite(value)]
    return float(np.median(values)) if values else math.nan


def _with_sign(row: Row, sign: int) -> Row:
    """Means of a negated metric in its own sign again."""
    if sign > 0:
        return row

    def turned(e: statistics.Estimate) -> statistics.Estimate:
        return statistics.Estimate(-e.value, -e.high, -e.low, e.method)

    comparison = row.comparison
    if comparison is not None:
        comparison = dataclasses.replace(comparison, difference=turned(comparison.difference))
    return dataclasses.replace(
        row, mean=turned(row.mean), iqm=turned(row.iqm), comparison=comparison
    )


def _labels(configs: Sequence[dict[str, Any]]):
    """Functions that label a configuration's arm and task by what differs in the ablation."""
    settings: dict[Any, set[str]] = collections.defaultdict(set)
    for config in configs:
        for path, value in _settings(config).items():
            settings[path].add(repr(value))
    by_task: dict[str, dict[Any, set[str]]] = {}
    names = {name for config in configs for name in config["task"]["options"]}
    for config in configs:
        own = by_task.setdefault(config["task"]["name"], collections.defaultdict(set))
        for name in names:
            own[name].add(repr(config["task"]["options"].get(name)))

    def label_arm(config: dict[str, Any]) -> tuple[str, str]:
        varied = [
            f"{options.display(path)}={show(value, path)}"
            for path, value in _settings(config).items()
            if len(settings[path]) > 1
        ]
        rest = ", ".join(varied)
        return config["method"]["name"] + (f" [{rest}]" if rest else ""), rest

    def label_task(config: dict[str, Any]) -> str:
        name = config["task"]["name"]
        varied = [
            f"{option}={show(value)}"
            for option, value in config["task"]["options"].items()
            if len(by_task[name][option]) > 1
        ]
        return name + (f" [{', '.join(varied)}]" if varied else "")

    return label_arm, label_task


def _settings(config: dict[str, Any]) -> dict[options.Path, Any]:
    """What was set besides the method: options of model, layer, optimizer and training."""
    definition = config["method"]["definition"]
    found = {("model", n): v for n, v in config["model"].items() if n != "layer"}
    for name, value in config["model"]["layer"].items():
        if name not in definition["layer"]:
            found["layer", name] = value
    for name, value in config["optimizer"].items():
        if name not in definition["optimizer"]:
            found["optimizer", name] = value
    found |= {("training", n): v for n, v in config["training"].items()}
    return found
