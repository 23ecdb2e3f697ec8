"""What `kbptt train` prints when it has finished."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import rich.box
import rich.table

from kbptt.ablation.training import Training
from kbptt.analysis import reach


def summary(
    training: Training, scores: Mapping[str, float], result: Mapping[str, Any]
) -> rich.table.Table:
    """The scores, and what `result` holds of the training (nothing if none was left to do)."""
    task = training.task
    table = rich.table.Table(box=rich.box.SIMPLE, show_header=False)
    table.add_column(style="bold")
    table.add_column()
    for key, value in scores.items():
        note = f"   (without memory {task.baseline:.4f})" if key == task.metric else ""
        table.add_row(f"test {_metric(key)}", f"{value:.4f}{note}")
    if task.success is not None:
        sign, better = (">=", 1) if task.mode == "max" else ("<=", -1)
        solved = better * scores[task.metric] >= better * task.success
        bound = f"{task.metric} {sign} {task.success:.4g}"
        table.add_row("solved", f"{'yes' if solved else 'no'}   ({bound})")
    if training.best is not None:
        table.add_row("best epoch", _best(training))
    if result.get("status") == "ok":
        for name, layer in result["gradient"].items():
            for what, value in _gradient(layer, task.outputs.per_timestep):
                table.add_row(f"{what} ({name})", value)
        for statistics in result["clipping"].values():
            if "clip_rate" in statistics:
                table.add_row("steps clipped", f"{100 * statistics['clip_rate']:.0f} %")
    if result:
        cost, unit = result["cost"], task.counts_in
        table.add_row("median step", f"{1000 * cost['seconds_per_step']:.1f} ms")
        table.add_row(f"{unit} per second", f"{cost['timesteps_per_second']:,.0f}")
    return table


def by_lag(training: Training) -> rich.table.Table:
    """The gradients by lag of the last measurement, at lags 0, 1, 2, 5, 10, …, and the last one."""
    table = rich.table.Table(box=rich.box.SIMPLE_HEAD)
    table.add_column("lag", justify="right")
    profiles = [p for p in training.lag_profiles if len(p)]
    for profile in profiles:
        table.add_column(f"‖∂L_s/∂h_s−lag‖ ({profile.layer})", justify="right")
    count = max(map(len, profiles), default=0)
    lags = {0, count - 1, *(m * 10**e for e in range(len(str(count))) for m in (1, 2, 5))}
    for lag in sorted(lag for lag in lags if 0 <= lag < count):
        norms = (f"{p.norms[lag]:.3g}" if lag < len(p) else "" for p in profiles)
        table.add_row(str(lag), *norms)
    return table


def best_so_far(training: Training) -> str:
    """The best epoch and its validation score, in a clause; empty before the first one ended."""
    if training.best is None:
        return ""
    epoch, score = training.best
    first, last = training.epochs_run[0], training.epochs_run[-1]
    of = "" if first == 1 else f" of {first} to {last}"  # those before a resume are not known here
    shown = f"validation {_metric(training.task.metric)} {score:.4f}"
    return f"epoch {epoch}{of} was the best ({shown})"


def _best(training: Training) -> str:
    epoch, score = training.best or (0, 0.0)
    first, last = training.epochs_run[0], training.epochs_run[-1]
    of = f"{last}" if first == 1 else f"{first} to {last}"
    tested = epoch if training.settings["checkpoint"] == "best" else last
    shown = f"{epoch} of {of}   (validation {_metric(training.task.metric)} {score:.4f}"
    return f"{shown}{'' if tested == epoch else f'; epoch {tested} is tested'})"


def _metric(name: str) -> str:
    return "bits per character" if name == "bits" else name


def _gradient(layer: Mapping[str, Any], per_timestep: bool) -> Iterator[tuple[str, str]]:
    """Decay and horizon of a layer's gradient, by lag if there is a loss at every timestep."""
    flow, timesteps, of_a_loss = layer["statistics_end"], layer["record"]["timesteps"], ""
    if per_timestep:
        timesteps = min(timesteps, reach.lags_to_measure(timesteps))
        timesteps = min(timesteps, (layer["truncation"] or {}).get("length") or timesteps)
        of_a_loss = " up to each loss"
    if np.isfinite(flow["decay"]):  # two timesteps or more get some
        yield "gradient decay", f"{flow['decay']:.3f} per timestep"
    if np.isfinite(flow["horizon"]):
        yield (
            "90 % of it within",
            f"the last {flow['horizon']:.0f} of {timesteps} timesteps{of_a_loss}",
        )
