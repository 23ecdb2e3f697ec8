"""One figure of a layer: its gradient over training, and the health of its states."""

from collections.abc import Mapping

import numpy as np

from kbptt.tensorboard.figure import Figure
from kbptt.tensorboard.heatmap import draw_heatmap, draw_profile
from kbptt.tensorboard.reader import Profiles

_SHARES = ("dead_units", "saturated_units")


def figure(
    layer: str,
    gradient: Profiles,
    states: Mapping[str, Profiles],
    scalars: Mapping[str, Profiles],
) -> Figure:
    """Heatmap and profiles of ‖∂L/∂h_t‖; below them norms of states, and fractions over training.

    Args:
        layer: The layer's name.
        gradient: `(steps, norms)`, `(records,)` and `(records, timesteps)`.
        states: `(steps, norms)` by "layer/state".
        scalars: `(steps, values)` by "group/name".

    Returns:
        A `matplotlib.figure.Figure`, which a notebook displays. Without `states` and fractions for
        this layer, the lower row is omitted.
    """
    own = {key.rpartition("/")[2]: v for key, v in states.items() if key.startswith(f"{layer}/")}
    shares = {
        key.removeprefix(f"{layer}/"): value
        for key, value in scalars.items()
        if key.startswith(f"{layer}/gate_") or key in {f"{layer}/{name}" for name in _SHARES}
    }
    rows = 2 if own or shares else 1
    made = Figure(figsize=(11.0, 3.9 * rows), layout="constrained")
    axes = made.subplots(rows, 2, squeeze=False)
    steps, norms = gradient
    draw_heatmap(made, axes[0][0], steps, norms)
    ends = {f"step {steps[0]}": norms[0], f"step {steps[-1]}": norms[-1]}
    draw_profile(axes[0][1], ends)
    made.suptitle(layer, parse_math=False, fontsize=12)
    if rows == 2:
        _states(axes[1][0], own)
        _shares(axes[1][1], shares)
    return made


def _states(axes, states: Mapping[str, Profiles]) -> None:
    for number, (name, (steps, norms)) in enumerate(states.items()):
        for record, style in ((0, ":"), (-1, "-")):
            label = f"‖{name}$_t$‖, step {steps[record]}"
            axes.plot(np.ma.filled(norms[record], np.nan), style, color=f"C{number}", label=label)
    axes.set(xlabel="timestep t", ylabel="norm of the state")
    _finish(axes)


def _shares(axes, shares: Mapping[str, Profiles]) -> None:
    for name, (steps, values) in shares.items():
        marker = "." if len(steps) == 1 else None
        axes.plot(steps, values, marker=marker, label=name.replace("_", " "), linewidth=1.4)
    axes.set(xlabel="training step", ylabel="fraction", ylim=(-0.02, 1.02))
    _finish(axes)


def _finish(axes) -> None:
    axes.grid(True, color="#ddd", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    if axes.get_lines():
        axes.legend(frameon=False, fontsize=8, ncols=2)
