"""What `GradientFlow` keeps in memory of a run, in bounded size."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from kbptt.analysis.evidence import (
    NONFINITE_STEPS,
    OPTIMIZER,
    Evidence,
    Key,
    LayerEvidence,
    of_health,
    of_run,
)
from kbptt.tensorboard import layout, writer
from kbptt.tensorboard.history import History
from kbptt.truncation import windows

_MISSED = OPTIMIZER, NONFINITE_STEPS
# Profiles of a layer that findings are based on; more would only be averaged.
_JUDGED = 200


class Records:
    """Profiles, norms of states and scalars of a run at some training steps.

    Args:
        max_records: Integer. Largest number of records of each; beyond it they are evenly thinned
            out.

    Attributes:
        profiles: The `History` of ‖∂L/∂h_t‖ by layer.
        states: That of ‖h_t‖ and ‖c_t‖, by (layer, "h") and (layer, "c").
        lags: The last gradients by lag of each layer, `(lags,)`.
    """

    def __init__(self, max_records: int) -> None:
        self.profiles = History(max_records)
        self.states = History(max_records)
        self.lags: dict[str, np.ndarray] = {}
        self._scalars = History(max_records)
        self._step = 0  # of the last record
        self._last: dict[Key, tuple[int, float]] = {}
        self._missed = 0.0  # steps with a NaN or infinite gradient before this `fit`
        self._windows: dict[int, dict[str, int | None]] = {}

    def limit(self, max_records: int) -> None:
        """Changes the largest number of records."""
        for history in (self.profiles, self.states, self._scalars):
            history.max_records = max_records

    def add(
        self,
        step: int,
        profiles: dict[str, np.ndarray],
        states: dict[Key, np.ndarray],
        scalars: dict[Key, float],
        divisions: Mapping[str, windows.Division],
    ) -> None:
        """Adds what was measured at a step, later than those before.

        Args:
            step: Integer.
            profiles: By layer, `(timesteps,)`.
            states: By (layer, state), `(timesteps,)`; empty if not measured at this step.
            scalars: By (group, name).
            divisions: The truncation of each layer.
        """
        self.profiles.add(step, profiles)
        if states:
            self.states.add(step, states)
        self._scalars.add(step, {k: np.array([v], np.float64) for k, v in scalars.items()})
        self._step = step
        self.note(scalars)
        self._windows[step] = {
            name: windows.length_of_last(norms.size, divisions[name])
            for name, norms in profiles.items()
        }
        if len(self._windows) > 2 * len(self.profiles) + 2:
            kept = set(self.profiles.steps())
            self._windows = {s: w for s, w in self._windows.items() if s in kept}

    def begin(self) -> None:
        """Begins a `fit`, which may have other clips."""
        _, self._missed = self._last.get(_MISSED, (0, 0.0))
        self._last = {key: v for key, v in self._last.items() if key[0] != OPTIMIZER}
        if self._missed:
            self.note({_MISSED: self._missed})

    def of_run(self, scalars: dict[Key, float]) -> dict[Key, float]:
        """The scalars of a `fit` with what counts over all of them."""
        if _MISSED in scalars:
            scalars[_MISSED] += self._missed
        return scalars

    def note(self, scalars: dict[Key, float]) -> None:
        """Keeps the last values of scalars, of a step that is not recorded too."""
        self._last |= {key: (self._step, value) for key, value in scalars.items()}

    def scalars(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """`(steps, values)` of every scalar, by "group/name"."""
        found = self._scalars.all()
        return {"/".join(key): (s, np.asarray(v)[:, 0]) for key, (s, v) in found.items()}

    def evidence(self, layers: Mapping[str, Any]) -> Evidence:
        """What findings are based on; `layers` are those of the model, by their profiles' names."""
        found = []
        for name, layer in layers.items():
            steps, norms = self.profiles.vectors(name, _JUDGED)
            truncation = getattr(layer, "truncation", None)
            statistics, looked_at = of_health(name, self._last)
            found.append(
                LayerEvidence(
                    name,
                    per_timestep=bool(getattr(layer, "return_sequences", False)),
                    profiles=norms,
                    windows=[self._windows.get(step, {}).get(name) for step in steps],
                    window=getattr(truncation, "length", None),
                    by_lag=self.lags.get(name),
                    statistics=statistics,
                    looked_at=looked_at,
                )
            )
        return of_run(found, self._last)


def summary_values(
    profiles: Mapping[str, np.ndarray],
    states: Mapping[Key, np.ndarray],
    scalars: Mapping[Key, float],
    contents: Mapping[str, bytes],
) -> list[writer.Value]:
    """What is written of one step; the arguments are those of `Records.add`."""
    values = [writer.profile_value(name, v, contents[name]) for name, v in profiles.items()]
    for (name, state), norms in states.items():
        values.append(writer.state_value(name, state, norms, contents[name]))
    return values + [writer.scalar_value(layout.statistic_tag(*k), v) for k, v in scalars.items()]


def content(name: str, layer: Any, index: int) -> bytes:
    """The plugin content of a layer's tensors; `index` is its position in the model."""
    loss = "all" if getattr(layer, "return_sequences", False) else "last"
    t = division(layer)
    return layout.content(name, loss, t.length, t.stride, t.align, index=index)


def division(layer: Any) -> windows.Division:
    """The truncation of a layer; none for a user's layer without one."""
    truncation = getattr(layer, "truncation", None)
    return truncation if hasattr(truncation, "length") else layout.Division()
