"""What `GradientFlow` does about findings: it warns, stops training or calls a function."""

import warnings
from collections.abc import Callable
from typing import Any, Literal, TypeAlias

import keras

from kbptt import _checks
from kbptt.analysis import findings, thresholds
from kbptt.analysis.evidence import Evidence
from kbptt.analysis.findings import Finding

OnVerdict: TypeAlias = Literal["warn", "stop"] | Callable[[list[Finding]], Any] | None


def on_verdict(name: str, value: Any) -> OnVerdict:
    """Returns `value` if it is "warn", "stop", None or a function."""
    if value is None or callable(value):
        return value
    return _checks.one_of(name, value, ("warn", "stop"))


class Judge:
    """Acts on what is found, once for each finding and place."""

    def __init__(self) -> None:
        self.act: OnVerdict = None
        self.bounds: thresholds.Thresholds = thresholds.DEFAULT
        self._told: set[tuple[str, str]] = set()

    def set(self, act: OnVerdict, bounds: thresholds.Thresholds) -> None:
        """Sets what to do, and the `kbptt.analysis.Thresholds`."""
        if (act, bounds) != (self.act, self.bounds):
            self._told = set()
        self.act, self.bounds = act, bounds

    def judge(self, model: keras.Model, evidence: Evidence) -> None:
        """Judges a run, and acts on what was not found before."""
        found = findings.find_faults(evidence, self.bounds)
        new = [one for one in found if (one.name, one.where) not in self._told]
        self._told |= {(one.name, one.where) for one in new}
        if not new:
            return
        if callable(self.act):
            self.act(new)
            return
        for one in new:
            warnings.warn(f"GradientFlow found {one}", stacklevel=2)
        if self.act == "stop":
            names = ", ".join(dict.fromkeys(one.name for one in new))
            warnings.warn(f"GradientFlow(on_verdict='stop') ends training: {names}.", stacklevel=2)
            model.stop_training = True
