"""Health of recurrent layers on data: norms of their states, saturated gates, dead units."""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import keras
import numpy as np

from kbptt._typing import Arrays
from kbptt.analysis.unchanged import unchanged
from kbptt.layers import find

# A gate below LOW is closed, above HIGH it is open: saturated, with a slope below a fifth of the
# largest.
LOW, HIGH = 0.05, 0.95
# A unit is saturated if it is beyond the bounds above, as a share of its activation's range, at
# this share of all timesteps and samples.
STUCK = 0.95
# A unit is dead if its output varies by less than this share of the range.
CONSTANT = 1e-3

# Ranges of the bounded activations.
_RANGES = {
    "tanh": (-1.0, 1.0),
    "hard_tanh": (-1.0, 1.0),
    "softsign": (-1.0, 1.0),
    "sigmoid": (0.0, 1.0),
    "hard_sigmoid": (0.0, 1.0),
}
_GATES = ("sigmoid", "hard_sigmoid")


class Gate(NamedTuple):
    """How far a gate is saturated, over all samples, timesteps and units.

    Attributes:
        closed: Share of its values below 0.05.
        open: Share above 0.95.
    """

    closed: float
    open: float

    @property
    def saturated(self) -> float:
        """Share of its values outside 0.05–0.95."""
        return self.closed + self.open


@dataclass(frozen=True, eq=False)
class LayerHealth:
    """Health of one recurrent layer.

    Attributes:
        layer: The layer's name.
        state_norms: For each state (`"h"`; of an LSTM also `"c"`) the mean over samples of its
            Euclidean norm by timestep, `(timesteps,)`, in the order of processing.
        gates: For each gate its `Gate`: i, f, o of an LSTM, z, r of a GRU; empty for other cells
            (a GRU with `reset_after=False`, the user's own), for gates whose activation is not a
            sigmoid, and where they are NaN.
        dead_units: Fraction of the units whose output is constant, to within 10⁻³ of the range of
            the activation (or of the layer's largest output, if unbounded), over all timesteps of
            all samples, and not saturated. NaN for a single timestep of a single sample, and if any
            output is NaN.
        saturated_units: Fraction of the units whose output is in the outer 2.5 % of the
            activation's range (|h| > 0.95 with tanh) at 95 % of all timesteps and samples. NaN for
            an unbounded activation.
        complete: Whether no timestep of the sample is masked, `(samples,)`.
    """

    layer: str
    state_norms: dict[str, np.ndarray]
    gates: dict[str, Gate] = field(default_factory=dict)
    dead_units: float = np.nan
    saturated_units: float = np.nan
    complete: np.ndarray = field(default_factory=lambda: np.ones(0, bool))

    def statistics(self) -> dict[str, float]:
        """All single numbers by name: `dead_units`, `saturated_units`, `gate_f_closed`, …"""
        found = {"dead_units": self.dead_units, "saturated_units": self.saturated_units}
        for name, gate in self.gates.items():
            found |= {f"gate_{name}_closed": gate.closed, f"gate_{name}_open": gate.open}
        return {name: value for name, value in found.items() if not np.isnan(value)}


def health(
    model: keras.Model, x: Arrays, layers: Sequence[Any] | None = None, training: bool = False
) -> list[LayerHealth]:
    """Runs a model on a batch and measures the states of its recurrent kbptt layers.

    The model is unchanged: weights, states, random numbers, metrics.

    Args:
        model: A `keras.Model`.
        x: A batch of inputs to the model. Masked timesteps are excluded.
        layers: Some of its recurrent kbptt layers. Defaults to `None`, all of them.
        training: Boolean. Whether dropout and zoneout act. Defaults to `False`.

    Returns:
        The `LayerHealth` of each layer that was called. If a layer is called several times, it
        describes the last call.

    Raises:
        ValueError: If the model has no recurrent kbptt layer.
    """
    layers = find.choose_layers(model) if layers is None else layers
    return [found for _, found in health_of(model, x, layers, training)]


def health_of(
    model: keras.Model, x: Arrays, layers: Sequence[Any], training: bool
) -> list[tuple[Any, LayerHealth]]:
    """`health`, with each layer itself."""
    seen: dict[int, list[tuple[Any, Any]]] = {}
    with unchanged(model), contextlib.ExitStack() as stack:
        for layer in layers:
            stack.enter_context(layer.observing(_recorder(seen, id(layer))))
        model(keras.tree.map_structure(keras.ops.convert_to_tensor, x), training=training)
    return [(one, describe(one, seen[id(one)])) for one in layers if id(one) in seen]


def _recorder(seen: dict[int, list[tuple[Any, Any]]], key: int) -> Any:
    def record(observation: Any, mask: Any, continues: bool) -> None:
        before = seen[key] if continues else []
        seen[key] = [*before, (observation, mask)]

    return record


def describe(layer: Any, parts: Sequence[tuple[Any, Any]]) -> LayerHealth:
    """The health of a layer from what `layer.observing` recorded, stretches of time in order."""
    observations = [observation for observation, _ in parts]
    names = _state_names(layer, len(observations[0].states))
    states = {
        name: np.concatenate([np.asarray(o.states[at], np.float64) for o in observations])
        for at, name in names.items()
    }
    real = np.concatenate([_real(o.states[0], mask) for o, mask in parts])
    norms = {name: _mean(np.linalg.norm(s, axis=-1), real) for name, s in states.items()}
    gates = {}
    cell = _cell(layer)
    if _name(getattr(cell, "recurrent_activation", None)) in _GATES:
        for name in observations[0].gates:
            values = np.concatenate([np.asarray(o.gates[name]) for o in observations])[real]
            if values.size and np.isfinite(values).all():
                gates[name] = Gate(float((values < LOW).mean()), float((values > HIGH).mean()))
    h = next(iter(states.values()))[real]
    units = _units(h, _name(getattr(cell, "activation", None)))
    return LayerHealth(layer.name, norms, gates, *units, complete=real.all(axis=0))


def _units(h: np.ndarray, activation: str | None) -> tuple[float, float]:
    """Shares of dead and of saturated units of outputs `(records, units)`."""
    if len(h) < 2 or not np.isfinite(h).all():
        return np.nan, np.nan
    bounds = _RANGES.get(activation or "")
    stuck = np.zeros(h.shape[1], bool)
    if bounds is not None:
        low, high = bounds
        margin = (high - low) * (1 - HIGH) / 2
        stuck = ((h < low + margin) | (h > high - margin)).mean(axis=0) >= STUCK
    span = np.abs(h).max() if bounds is None else bounds[1] - bounds[0]
    with np.errstate(invalid="ignore"):
        dead = ~stuck & (np.ptp(h, axis=0) <= CONSTANT * span)
    return float(dead.mean()), float(stuck.mean()) if bounds is not None else np.nan


def _state_names(layer: Any, count: int) -> dict[int, str]:
    """Index and name of the states that are described: those of a known cell, or the first."""
    names = ("h", "c")
    cell = _cell(layer)
    known = isinstance(cell, keras.layers.LSTMCell)
    return dict(enumerate(names[: min(count, 2 if known else 1)]))


def _cell(layer: Any) -> Any:
    """The cell whose output is the layer's: the top one of a stack."""
    cells = getattr(layer.cell, "cells", None)
    return cells[-1] if cells else layer.cell


def _name(activation: Any) -> str | None:
    return getattr(activation, "__name__", None)


def _real(states: Any, mask: Any) -> np.ndarray:
    """Which of the (timestep, sample) pairs are not masked: boolean `(timesteps, batch)`."""
    if mask is None:
        return np.ones(states.shape[:2], bool)
    return np.asarray(mask, bool).T


def _mean(values: np.ndarray, real: np.ndarray) -> np.ndarray:
    """Mean over the samples that are not masked, NaN where all are: `(timesteps,)` float32."""
    counts = real.sum(axis=1)
    sums = np.where(real, values, 0.0).sum(axis=1)
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan).astype(np.float32)
