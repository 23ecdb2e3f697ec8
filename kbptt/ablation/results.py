"""From the trials of a ledger to scores by method and task, and their comparison.

Rules, the same for every method and fixed before any result is seen:

* The **score** of a run is the task's primary metric on its test data, at the epoch that the
  checkpoint rule names.
* To average over tasks, a score becomes a **skill**: 0 for the task's baseline (the best predictor
  without memory) or worse, 1 for a perfect answer. A perfect answer is 1 (0 where less is better)
  unless the task declares otherwise; if a score is even better, it is the best score.
* A **diverged** run is a failure: skill 0, and in the metric's units the worst of the baseline and
  all scores of the task. A run that **crashed** has no score; it is listed, not hidden.
* Methods are compared over the seeds that both have: by skill, and per task by the metric. Tuned
  ones are, where they differ, compared at the same values too: see `kbptt.ablation.controls`.
* They are ranked over the seeds that all of them have: see `kbptt.ablation.ranking`.
"""

import collections
import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from kbptt.ablation import controls, ranking, statistics, tuning
from kbptt.ablation.labels import Labels, labels
from kbptt.ablation.outcome import readable
from kbptt.ablation.resampling import unscaled
from kbptt.ablation.rows import Trial, canonical
from kbptt.ablation.scale import Scale, finite
from kbptt.ablation.text import visible


@dataclasses.dataclass(frozen=True)
class Row:
    """A method (with its settings, if these are an axis) and its results."""

    arm: str
    runs: int
    diverged: int
    failed: int
    mean: statistics.Estimate
    iqm: statistics.Estimate
    gap: float  # by how much the runs miss a perfect answer, their mean
    success: statistics.Estimate
    reference: str | None
    comparison: statistics.Comparison | None
    p: float  # after Holm's correction
    seconds_per_step: float
    memory: float
    decay: float
    clip_rate: float
    controlled: bool = False  # whether p is that of a control, the larger of the two
    standing: float = math.nan  # the mean that it is ranked by; NaN without a place


class Results:
    """Scores of finished trials, arranged by arm, task and seed.

    An arm is what is compared: a method together with values of the axes. Labels name only the
    options that differ within the ablation.

    Args:
        trials: From the ledger, in its order. Those of the searches of a tuning and its controls
            have no score of their own here; they are in `searches` and `values`.
        reference: Label of the arm to compare with. Defaults to the baseline (or the first method)
            with the same values of the axes; with a single method, its first arm.
        label: Function from all configurations to two functions, from a configuration to the label
            of its arm and the values of the axes in it, and to the label of its task. Defaults to
            labels with the options that differ.
    """

    def __init__(
        self, trials: Sequence[Trial], reference: str | None = None, label: Labels = labels
    ):
        self.trials: list[Trial] = [readable(trial) for trial in trials]
        known = [trial for trial in self.trials if trial.config]
        label_arm, label_task = label([trial.config for trial in known])
        self.runs: dict[tuple[str, str, int], Trial] = {}
        self.searches: dict[tuple[str, str], list[Trial]] = {}
        self._controls: dict[tuple[str, str, int, str], Trial] = {}
        points: dict[str, tuple[str, str]] = {}  # method and values of the axes, by arm
        for trial in known:
            (arm, rest), task = label_arm(trial.config), label_task(trial.config)
            seed, stage = trial.config["seed"], trial.config.get("stage")
            if stage == tuning.STAGE:
                self.searches.setdefault((arm, task), []).append(trial)
            elif stage == controls.STAGE:
                self._controls[arm, task, seed, canonical(trial.config["tuned"])] = trial
            else:
                points[arm] = trial.config["method"]["name"], rest
                self.runs[arm, task, seed] = trial
        self.arms: list[str] = list(points)
        self.tasks: list[str] = list(dict.fromkeys(task for _, task, _ in self.runs))
        self.seeds: list[int] = sorted({seed for _, _, seed in self.runs})
        if reference is not None and reference not in points:
            raise ValueError(
                f"Unknown reference: {reference!r}. "
                f"Expected one of {visible(', '.join(self.arms))}."
            )
        self._reference_of = _references(points, reference)
        self._done, self._failed = collections.defaultdict(list), collections.Counter()
        for (arm, task, _), trial in self.runs.items():
            for key in ((arm, task), (arm, None), (None, task), (None, None)):
                if trial.result is not None:
                    self._done[key].append(trial)
                self._failed[key] += trial.state == "failed"
        self._scales = {task: Scale.of(self.done(task=task)) for task in self.tasks}

    @property
    def exploratory(self) -> bool:
        """Whether there are too few seeds for any conclusion at the 5 % level."""
        return statistics.is_exploratory(len(self.seeds))

    @property
    def sole(self) -> str | None:
        """The only task, if it names no baseline: then its metric ranks, and not the skill."""
        only = self.only
        return only if only and math.isnan(self._scales[only].declared) else None

    @property
    def only(self) -> str | None:
        """The only task, whose metric is what is said of a study; None: of several, the skill."""
        return self.tasks[0] if len(self.tasks) == 1 and self.done() else None

    @property
    def unit(self) -> str:
        """What `table` and `overall` are in: "skill", or the metric of the sole task."""
        return "skill" if self.sole is None else self._scales[self.sole].metric

    def overall(self, arm: str) -> np.ndarray:
        """The scores of an arm that the ranking is made of, array `(seeds, tasks)`, see `unit`."""
        return self.skills(arm) if self.sole is None else self.scores(arm, self.sole)[:, None]

    @property
    def unreadable(self) -> list[Trial]:
        """Invalid rows of the ledger; their `error` describes them."""
        return [trial for trial in self.trials if trial.state == "unreadable"]

    def reference_of(self, arm: str) -> str | None:
        """The arm that `arm` is compared with; None for a reference itself."""
        return self._reference_of[arm]

    @property
    def comparisons(self) -> int:
        """How many arms are compared with a reference: the family of Holm's correction."""
        return sum(reference is not None for reference in self._reference_of.values())

    def done(self, arm: str | None = None, task: str | None = None) -> list[Trial]:
        """Trials with a result, of an arm, a task or both."""
        return list(self._done[arm, task])

    def metric(self, task: str) -> tuple[str, str, float]:
        """Name, mode and baseline of a task's primary metric."""
        scale = self._scales[task]
        return scale.metric, scale.mode, scale.declared

    def scores(self, arm: str, task: str, at: str | None = None) -> np.ndarray:
        """Primary metric by seed, diverged runs at the worst; NaN where there is no result.

        Args:
            arm: Label of the arm.
            task: Label of the task.
            at: Label of the arm that the runs have the tuned values of. Defaults to `arm`.
        """
        worst = self._scales[task].worst
        runs = (self.runs.get((arm, task, seed)) for seed in self.seeds)
        values = self.tuned_values(at or arm, task)
        if values != self.tuned_values(arm, task):
            key = canonical(values)
            runs = (self._controls.get((arm, task, seed, key)) for seed in self.seeds)
        return np.array([_score(run, worst) for run in runs])

    def skills(
        self, arm: str, tasks: Sequence[str] | None = None, at: str | None = None
    ) -> np.ndarray:
        """Skill, array `(seeds, tasks)`; NaN where there is no result."""
        tasks = self.tasks if tasks is None else tasks
        columns = [self._scales[task].skill(self.scores(arm, task, at)) for task in tasks]
        return np.stack(columns, axis=1)

    def values(self, arm: str, task: str | None, at: str | None = None) -> np.ndarray:
        """What tables are made of, larger is better: the skills or, of one task, the metric.

        An array `(seeds, tasks)`; arguments as those of `scores`.
        """
        if task is None:
            return self.skills(arm, at=at)
        return self._scales[task].sign * self.scores(arm, task, at)[:, None]

    @functools.cached_property
    def tuned(self) -> bool:
        """Whether the runs have values that searches have chosen."""
        return any("tuned" in trial.config for trial in self.runs.values())

    def tuned_values(self, arm: str, task: str) -> dict[str, Any] | None:
        """The values that were chosen for an arm on a task, by option; `None` without tuning."""
        runs = (self.runs.get((arm, task, seed)) for seed in self.seeds)
        return next((run.config.get("tuned") for run in runs if run), None)

    def controls(self) -> list[tuple[str, str, Trial]]:
        """Arm, task and trial of every control (see `kbptt.ablation.controls`)."""
        return [(arm, task, trial) for (arm, task, *_), trial in self._controls.items()]

    def table(self) -> list[Row]:
        """All arms over all tasks, best first: in skill, or in the sole task's metric."""
        return self._tables[self.sole]

    def task_table(self, task: str) -> list[Row]:
        """All arms on one task in the metric's units, best first."""
        return self._tables[task]

    def said(self) -> tuple[str, list[Row]]:
        """The table that sums a study up, and its unit: the only task's metric, or the skill."""
        if self.only is None:
            return self.unit, self.table()
        return self.metric(self.only)[0], self.task_table(self.only)

    @functools.cached_property
    def rankings(self) -> dict[str | None, ranking.Ranking]:
        """The order of the arms over all tasks (None) and on each, larger is better."""
        return {
            task: ranking.rank({arm: self.values(arm, task) for arm in self.arms})
            for task in (None, *self.tasks)
        }

    @functools.cached_property
    def _tables(self) -> dict[str | None, list[Row]]:
        """The ranking over all tasks (None) and by task, all intervals computed together."""
        scores: dict[tuple[str, str | None], np.ndarray] = {
            (arm, task): self.values(arm, task)
            for task in (None, *self.tasks)
            for arm in self.arms
            if task in (None, self.only) or self._done[arm, task]
        }
        pairs = {(arm, task): (self.reference_of(arm), task) for arm, task in scores}
        pairs = {key: reference for key, reference in pairs.items() if reference in scores}
        compared = statistics.comparisons([(scores[k], scores[r]) for k, r in pairs.items()])
        comparisons = dict(zip(pairs, compared, strict=True))
        own = {key: comparison.p for key, comparison in comparisons.items()}
        for task in (None, *self.tasks) if self.tuned else ():
            for arm, p in controls.p_values(self, task).items():
                if found := comparisons.get((arm, task)):
                    comparisons[arm, task] = dataclasses.replace(found, p=p)
        means = statistics.means(list(scores.values()))
        iqms = statistics.interquartile_means(list(scores.values()))
        perfect: dict[str | None, float] = {
            task: scale.sign * scale.one for task, scale in self._scales.items()
        }
        rows = collections.defaultdict(list)
        for (arm, task), mean, iqm in zip(scores, means, iqms, strict=True):
            seeds = int(np.isfinite(scores[arm, task]).any(axis=1).sum())
            comparison = comparisons.get((arm, task))
            missed = statistics.shortfall(scores[arm, task], perfect.get(task, 1.0))
            missed = missed[~np.isnan(missed)]
            gap = unscaled(np.mean, missed) if missed.size else math.nan
            row = self._row(arm, task, seeds, mean, iqm, gap, comparison)
            controlled = comparison is not None and comparison.p > own[arm, task]
            place = self.rankings[task].means.get(arm, math.nan)
            row = dataclasses.replace(row, controlled=controlled, standing=place)
            rows[task].append(row)
        signs: dict[str | None, int] = {task: self._scales[task].sign for task in self.tasks}
        return {task: _ranked(rows[task], signs.get(task, 1)) for task in (None, *self.tasks)}

    def _row(self, arm, task, seeds, mean, iqm, gap, comparison) -> Row:
        found = [trial.result for trial in self._done[arm, task]]
        judged = [is_success(r) for r in found if r.get("success_threshold") is not None]
        return Row(
            arm=arm,
            runs=len(found),
            diverged=sum(result["status"] == "diverged" for result in found),
            failed=self._failed[arm, task],
            mean=mean,
            iqm=iqm,
            gap=gap,
            success=statistics.success_rate(sum(judged), len(judged), seeds),
            reference=self.reference_of(arm),
            comparison=comparison,
            p=math.nan,
            seconds_per_step=_median(found, "cost", "seconds_per_step"),
            memory=_median(found, "cost", "training_memory_bytes"),
            decay=_median_of([decay(result, "end") for result in found]),
            clip_rate=_median_of([clip_rate(result) for result in found]),
        )


def _ranked(rows: list[Row], sign: int) -> list[Row]:
    """The rows of a table, best first, in the metric's sign and with Holm's correction."""
    adjusted = statistics.holm([math.nan if r.comparison is None else r.comparison.p for r in rows])
    rows = [dataclasses.replace(row, p=float(p)) for row, p in zip(rows, adjusted, strict=True)]
    rows.sort(key=lambda r: (_last(r.standing), r.diverged, -r.runs, _last(r.mean.value)))
    return [_with_sign(row, sign) for row in rows]


def _last(value: float) -> float:
    """A key that sorts the largest value first and NaN last."""
    return math.inf if math.isnan(value) else -value


def _references(points: dict[str, tuple[str, str]], reference: str | None) -> dict[str, str | None]:
    """The reference of every arm: see `Results`."""
    methods = list(dict.fromkeys(method for method, _ in points.values()))
    if reference is None and len(methods) == 1:
        reference = next(iter(points))
    if reference is not None:
        return {arm: None if arm == reference else reference for arm in points}
    first = "baseline" if "baseline" in methods else next(iter(methods), None)
    of_rest = {rest: arm for arm, (method, rest) in points.items() if method == first}
    found = {arm: of_rest.get(rest) for arm, (_, rest) in points.items()}
    return {arm: None if other == arm else other for arm, other in found.items()}


def is_success(result: dict[str, Any]) -> bool:
    """Whether a run reached the task's threshold of success."""
    threshold, score = result.get("success_threshold"), result["score"]
    if threshold is None or not finite(score):
        return False
    return score >= threshold if result["mode"] == "max" else score <= threshold


def decay(result: dict[str, Any], when: str) -> float:
    """Decay of the gradient per timestep into the past, the median over the layers."""
    layers = (result.get("gradient") or {}).values()
    return _median_of([(layer.get(f"statistics_{when}") or {}).get("decay") for layer in layers])


def clip_rate(result: dict[str, Any]) -> float:
    """Share of the steps that were clipped; the largest of several callbacks."""
    rates = [c.get("clip_rate", math.nan) for c in (result.get("clipping") or {}).values()]
    return max(rates) if rates else math.nan


def skipped(result: dict[str, Any]) -> float:
    """Steps that were skipped because of a non-finite gradient."""
    counts = [c.get("skipped", math.nan) for c in (result.get("clipping") or {}).values()]
    return max(counts) if counts else math.nan


def _score(trial: Trial | None, worst: float) -> float:
    if trial is None or trial.result is None:
        return math.nan
    score = trial.result["score"]
    return float(score) if finite(score) else worst


def _median(results: Sequence[dict[str, Any]], section: str, name: str) -> float:
    return _median_of([(result.get(section) or {}).get(name) for result in results])


def _median_of(values: Sequence[float | None]) -> float:
    values = [value for value in values if finite(value)]
    return unscaled(np.median, np.array(values, float)) if values else math.nan


def _with_sign(row: Row, sign: int) -> Row:
    """Restores the sign of a negated metric."""
    if sign > 0:
        return row

    def turned(e: statistics.Estimate) -> statistics.Estimate:
        return statistics.Estimate(-e.value, -e.high, -e.low, e.method, tuple(-r for r in e.runs))

    comparison = row.comparison
    if comparison is not None:
        comparison = dataclasses.replace(comparison, difference=turned(comparison.difference))
    changes = {"mean": turned(row.mean), "iqm": turned(row.iqm), "standing": -row.standing}
    return dataclasses.replace(row, comparison=comparison, **changes)
