"""What a trial records while it trains."""

import os
import time
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from kbptt import tasks
from kbptt.ablation import arrays
from kbptt.analysis import gradient_flow, reach
from kbptt.layers import find

RECORDS = 48  # rows of the gradient record: enough for a heatmap on a page
COLUMNS = 128  # timesteps of the record; longer sequences are averaged in bins


class Monitor(keras.callbacks.Callback):
    """Records curve, gradient, cost and best weights; stops a training that diverged.

    Diverged means that weights or the validation loss are NaN or infinite. A non-finite loss of a
    batch is not enough: a method that skips such a step may recover.

    Args:
        task: The task.
        training: `epochs` and `checkpoint`.
        steps_per_epoch: Integer.
        timesteps: Integer, the real timesteps that an epoch trains on.
        flow: The `GradientFlow` before this callback, which measures gradients by lag where there
            is a loss at every timestep.
        first_epoch: Integer, the epoch that training starts at. Defaults to `0`.
    """

    def __init__(
        self,
        task: tasks.Task,
        training: Mapping[str, Any],
        steps_per_epoch: int,
        timesteps: int,
        flow: Any,
        first_epoch: int = 0,
    ):
        super().__init__()
        self.task = task
        self.flow = flow
        self.keeps_best: bool = training.get("checkpoint") == "best"
        self.steps_per_epoch = steps_per_epoch
        self.timesteps = timesteps
        first, end = (self.steps_per_epoch * e for e in (first_epoch, training["epochs"]))
        rows = np.linspace(first, end - 1, min(RECORDS, end - first))
        self.record_at: set[int] = set(rows.round().astype(int).tolist())
        self.first_step: int = first
        self.step: int = first
        self.diverged_at: int | None = None
        self.best_score: float | None = None
        self.best_epoch: int | None = None
        self.best_weights: list[np.ndarray] | None = None
        self.durations: list[float] = []
        self.curve: dict[str, list[Any]] = {
            "epoch": [],
            "loss": [],
            "val_loss": [],
            "validation": [],
        }
        self.recorded_steps: list[int] = []
        self.profiles: dict[str, list[np.ndarray]] = {}
        self.statistics_start: dict[str, dict[str, float]] = {}

    def on_train_begin(self, logs: Any = None) -> None:
        self.layers: dict[str, Any] = recurrent_layers(self.model)
        self.memory_before: int | None = _reset_peak_memory()

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        self.begun: float = time.perf_counter()

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        finite = bool(np.isfinite(logs["loss"]))  # reading it waits for the device
        self.durations.append(time.perf_counter() - self.begun)
        diverged = not finite and not self._weights_are_finite()
        if self.step in self.record_at or diverged:
            self._record()
        if diverged:
            self._stop(self.step // self.steps_per_epoch)
        self.step += 1

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        score = float(logs[f"val_{self.task.metric}"])
        self.curve["epoch"].append(epoch + 1)
        self.curve["loss"].append(float(logs["loss"]))
        self.curve["val_loss"].append(float(logs["val_loss"]))
        self.curve["validation"].append(score)
        if not np.isfinite([logs["val_loss"], score]).all() or not self._weights_are_finite():
            self._stop(epoch)
            return
        better = self.best_score is None or (
            score > self.best_score if self.task.mode == "max" else score < self.best_score
        )
        if better:
            self.best_score, self.best_epoch = score, epoch + 1
            if self.keeps_best:
                self.best_weights = self.model.get_weights()

    def result(self) -> dict[str, Any]:
        """The part of a trial's result that is recorded here."""
        steady = self.durations[1:] or self.durations  # the first step compiles
        timesteps = self.timesteps / self.steps_per_epoch * len(steady)
        return {
            "status": "ok" if self.diverged_at is None else "diverged",
            "score": None,
            "diverged_at": self.diverged_at,
            "best_epoch": self.best_epoch,
            "curve": self.curve,
            "gradient": {name: self._gradient(name) for name in self.profiles},
            "cost": {
                "seconds_per_step": float(np.median(steady)),
                "first_step_seconds": self.durations[0],
                "steps": self.step - self.first_step,
                "timesteps_per_second": timesteps / sum(steady),
                **_peak_memory(self.memory_before),
            },
        }

    def _stop(self, epoch: int) -> None:
        if self.diverged_at is None:
            self.diverged_at = epoch + 1
        self.model.stop_training = True

    def _weights_are_finite(self) -> bool:
        return all(np.isfinite(w).all() for w in self.model.get_weights())

    def _record(self) -> None:
        self.recorded_steps.append(self.step)
        for name, layer in self.layers.items():
            norms = layer.gradient_norms
            if norms is not None:
                self.profiles.setdefault(name, []).append(np.array(norms, np.float32))
                if self.step == self.first_step:
                    self.statistics_start[name] = self._statistics(name)
        if self.step == self.first_step:
            self.lags_start: Any = self.flow.lag_profiles

    def _statistics(self, name: str) -> dict[str, float]:
        """Decay and horizon now; of the latest gradients by lag if every timestep has a loss."""
        if not self.task.outputs.per_timestep:
            return gradient_flow.summarize(self.profiles[name][-1])
        layer, measured = self.layers[name], self.flow.lag_profiles
        if self.step > self.first_step and measured is self.lags_start:
            measured = []  # training ended before the second measurement
        truncation = getattr(layer, "truncation", None)
        for profile in measured:
            if profile.layer == layer.name:
                return reach.statistics(profile.norms, truncation, profile.timesteps)
        return reach.statistics([])

    def _gradient(self, name: str) -> dict[str, Any]:
        profiles = self.profiles[name]
        steps = self.recorded_steps[-len(profiles) :]
        norms = np.stack([binned(profile) for profile in profiles])
        return {
            "start": profiles[0].tolist(),
            "end": profiles[-1].tolist(),
            "statistics_start": self.statistics_start[name],
            "statistics_end": self._statistics(name),
            "truncation": _truncation(self.layers[name]),
            "record": {
                "steps": steps,
                "timesteps": len(profiles[0]),
                "norms": arrays.encode(norms),
            },
        }


def recurrent_layers(model: keras.Model) -> dict[str, Any]:
    """The layers that record the gradient of every timestep, by name."""
    found = {}
    for layer in find.layers_with_norms(model):
        found[layer.name if layer.name not in found else f"{layer.name}_{len(found)}"] = layer
    return found


def binned(profile: np.ndarray) -> np.ndarray:
    """Means over neighbouring timesteps, so that at most `COLUMNS` are left."""
    edges = arrays.bins(len(profile), COLUMNS)
    return np.array([part.mean() for part in np.split(profile, edges[1:-1])], np.float32)


def _truncation(layer: Any) -> Any:
    truncation = getattr(layer, "truncation", None)
    if truncation is None:
        return None
    return {"name": type(truncation).__name__, **truncation.get_config()}


def _status(field: str) -> int | None:
    """A size of this process in bytes, from Linux's /proc."""
    try:
        with open("/proc/self/status", encoding="ascii") as file:
            for line in file:
                if line.startswith(field + ":"):
                    return int(line.split()[1]) * 1024
    except (OSError, ValueError):
        pass
    return None


def _reset_peak_memory() -> int | None:
    try:
        with open("/proc/self/clear_refs", "w", encoding="ascii") as file:
            file.write("5")
    except OSError:
        return None
    return _status("VmRSS")


def _peak_memory(before: int | None) -> dict[str, int | None]:
    """Peak of the process, and how far training raised it; None where it is unknown."""
    peak = _status("VmHWM") if os.name == "posix" else None
    known = before is not None and peak is not None
    return {
        "peak_memory_bytes": peak,
        "training_memory_bytes": max(0, peak - before) if known else None,
    }
