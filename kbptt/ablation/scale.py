"""What the scores of a task mean: which of them are skill 0 and 1, and which is the worst."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from kbptt.ablation.rows import Trial

PERFECT = {"max": 1.0, "min": 0.0}  # accuracy; errors, nats and bits


@dataclasses.dataclass(frozen=True)
class Scale:
    """The scale of a task's scores: its metric, and the scores of skill 0 and 1."""

    metric: str
    mode: str
    declared: float  # the baseline, NaN if the task names none
    worst: float  # of all scores and the baseline
    zero: float
    one: float

    @property
    def sign(self) -> int:
        """The factor that makes larger scores better."""
        return 1 if self.mode == "max" else -1

    @classmethod
    def of(cls, trials: Sequence[Trial]) -> "Scale":
        """The scale of a task; metric, mode and baseline are those of its first trial."""
        if not trials:
            return cls("", "max", *[math.nan] * 4)
        results = [trial.result for trial in trials if trial.result is not None]
        mode, baseline = results[0]["mode"], results[0].get("baseline")
        baseline = math.nan if baseline is None else baseline
        known = [s for s in (baseline, *(r["score"] for r in results)) if finite(s)]
        known = known or [math.nan]
        best, worst = (max(known), min(known)) if mode == "max" else (min(known), max(known))
        declared = results[0].get("perfect")
        one = PERFECT[mode] if declared is None else declared
        zero = worst if math.isnan(baseline) or baseline == one else baseline
        if declared is None:
            one = max(one, best) if mode == "max" else min(one, best)
        return cls(results[0]["metric"], mode, baseline, worst, zero, one)

    def skill(self, scores: np.ndarray) -> np.ndarray:
        """Skill of each score; NaN where that is NaN."""
        with np.errstate(all="ignore"):
            if self.zero == self.one:
                skill = np.where(scores == self.one, 1, 0)
            else:
                # Halved, because the difference of two large numbers could overflow.
                skill = (scores / 2 - self.zero / 2) / (self.one / 2 - self.zero / 2)
        return np.where(np.isnan(scores), np.nan, np.clip(skill, 0, 1))


def finite(value: Any) -> bool:
    """Whether there is a value, and it is a finite number."""
    return value is not None and math.isfinite(value)
