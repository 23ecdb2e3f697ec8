"""What a run has recorded, as `kbptt.analysis.findings` reads it."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from kbptt.analysis import gradient_flow

# How the names of `kbptt.analysis.LayerHealth.statistics` begin.
OF_HEALTH = ("dead_", "saturated_", "gate_")


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

    def recent(self) -> np.ndarray | None:
        """The geometric mean of the last quarter of the profiles, or None without any."""
        if not len(self.profiles):
            return None
        return gradient_flow.mean_profile(self.profiles[-max(1, len(self.profiles) // 4) :])

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
