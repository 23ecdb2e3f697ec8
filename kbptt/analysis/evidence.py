"""What a run has recorded, as `kbptt.analysis.findings` reads it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np

from kbptt.analysis import gradient_flow
from kbptt.analysis.thresholds import DEFAULT, Thresholds

# How the names of `kbptt.analysis.LayerHealth.statistics` begin.
OF_HEALTH = ("dead_", "saturated_", "gate_")
# The group of what the optimizer has measured, and names in it.
OPTIMIZER = "optimizer"
CLIP_RATE, NONFINITE_STEPS = "clip_rate", "nonfinite_steps"

NEEDS_LAGS = (
    "The layer returns sequences, so only gradients by lag show how far back its losses reach: "
    "measure them with GradientFlow(health=True) or lag_data."
)

Key: TypeAlias = tuple[str, str]
"""Group and name of a scalar; the group is a layer's name, `OPTIMIZER` or "variables"."""
Last: TypeAlias = Mapping[Key, tuple[int, float]]
"""Step and value of the last record of each scalar of a run."""


@dataclass(eq=False)
class LayerEvidence:
    """What a run has recorded of one layer.

    Attributes:
        name: The layer's name.
        per_timestep: Whether every timestep has an output, so that ‖∂L/∂h_t‖ adds up losses and
            only gradients by lag show how far back they reach.
        profiles: ‖∂L/∂h_t‖ of each record, oldest first, each `(timesteps,)`.
        windows: For each of them the length of its last truncation window, or None.
        window: The length K of the truncation windows in force, or None.
        by_lag: φ `(lags,)` of the last measurement, lag 0 first, or None.
        statistics: Last values of `kbptt.analysis.LayerHealth.statistics`; empty if not measured.
        looked_at: The step at which they were measured, or None.
    """

    name: str
    per_timestep: bool = False
    profiles: Sequence[np.ndarray] = ()
    windows: Sequence[int | None] = ()
    window: int | None = None
    by_lag: np.ndarray | None = None
    statistics: dict[str, float] = field(default_factory=dict)
    looked_at: int | None = None

    def verdict_on(self) -> tuple[Sequence[np.ndarray], Sequence[int | None]] | None:
        """The profiles that a verdict judges, each with the length of its last window or None.

        Where every timestep has a loss of its own their sum shows no reach: then the gradients by
        lag within the window, lag 0 last; None where they have not been measured.
        """
        if not self.per_timestep:
            return self.profiles, self.windows
        if self.by_lag is None:
            return None
        return [self.by_lag[: self.window][::-1]], [None]

    def overview(self, thresholds: Thresholds = DEFAULT) -> dict[str, Any]:
        """`gradient_flow.overview` of what the verdict judges; with `by_lag`, whether that is so.

        Without gradients by lag where they are needed the verdict is `"not judged"`, but for norms
        that are not finite, and the numbers are those of the profiles.
        """
        judged = self.verdict_on()
        found = gradient_flow.overview(*(judged or (self.profiles, self.windows)), thresholds)
        if judged is None:
            if found["verdict"] != "non-finite":
                found |= {"verdict": "not judged", "reason": NEEDS_LAGS}
        elif self.per_timestep:
            found["reason"] = f"By lag. {found['reason']}"
        return {**found, "by_lag": self.per_timestep and judged is not None}

    def recent(self) -> np.ndarray | None:
        """The geometric mean of the last quarter of the profiles, or None without any."""
        if not len(self.profiles):
            return None
        return gradient_flow.latest(self.profiles)

    def lags(self) -> np.ndarray | None:
        """How strongly a loss reaches back, by lag: φ, or what the profile of a single loss shows.

        Under truncation the lags of a profile end at the cut.
        """
        if self.per_timestep or self.by_lag is not None:
            return self.by_lag
        norms = self.recent()
        if norms is None or not np.isfinite(norms).all() or not norms.any():
            return None
        norms = norms[: np.flatnonzero(norms)[-1] + 1]
        window = self.windows[-1]
        return norms[::-1] if window is None else norms[::-1][:window]


@dataclass(eq=False)
class Evidence:
    """What a run has recorded.

    Attributes:
        layers: The recurrent layers.
        clip_rates: For each clip its name and the share of steps in which it acted.
        nonfinite_steps: Steps with a NaN or infinite gradient; None if nobody counted.
    """

    layers: Sequence[LayerEvidence] = ()
    clip_rates: dict[str, float] = field(default_factory=dict)
    nonfinite_steps: float | None = None

    def records(self) -> int:
        """The largest number of profiles of a layer."""
        return max((len(layer.profiles) for layer in self.layers), default=0)


def of_health(layer: str, last: Last) -> tuple[dict[str, float], int | None]:
    """`statistics` and `looked_at` of a layer."""
    found = {
        name: at
        for (group, name), at in last.items()
        if group == layer and name.startswith(OF_HEALTH)
    }
    looked_at = max((step for step, _ in found.values()), default=None)
    return {name: value for name, (_, value) in found.items()}, looked_at


def of_run(layers: Sequence[LayerEvidence], last: Last) -> Evidence:
    """What a run has recorded: its layers, and what its optimizer measured."""
    found = {name: at for (group, name), at in last.items() if group == OPTIMIZER}
    # What is older than the last record is that of an earlier `fit`, of a clip since removed.
    latest = max((step for step, _ in found.values()), default=0)
    optimizer = {name: value for name, (step, value) in found.items() if step == latest}
    rates = {
        name.removesuffix(CLIP_RATE).strip("/") or "clip": value
        for name, value in optimizer.items()
        if name.endswith(CLIP_RATE)
    }
    return Evidence(layers, rates, optimizer.get(NONFINITE_STEPS))
