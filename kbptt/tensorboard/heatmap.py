"""Figures of gradient norms. Matplotlib without pyplot: no global state, nothing to close."""

from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize, to_rgba
from matplotlib.patches import Patch
from numpy.typing import ArrayLike

from kbptt import _checks
from kbptt.tensorboard import grid, layout
from kbptt.tensorboard.figure import Figure, to_png

__all__ = ["heatmap_figure", "profile_figure", "to_png"]

COLORMAP = "viridis"
ZERO_COLOR = "#101010"
NAN_COLOR = "#ff2fd1"
INF_COLOR = "#ff9100"
NORM_LABEL = "‖∂L/∂h$_t$‖"

# More lines would hide the heatmap.
_MAX_EDGES = 40


def heatmap_figure(
    steps: ArrayLike,
    norms: ArrayLike,
    title: str = "",
    window: int | None = None,
    align: str = "end",
    max_steps: int = 400,
    max_timesteps: int = 400,
    limits: tuple[float, float] | None = None,
) -> Figure:
    """Heatmap *training step × timestep* of ‖∂L/∂h_t‖ on a log10 colour scale.

    Exact zeros, NaN and infinite norms have separate colours, named in a legend if they occur.
    Beyond the two maxima, neighbours are merged into their geometric mean; a merged cell shows any
    NaN or infinite norm in it.

    Args:
        steps: Training steps `(records,)`, increasing.
        norms: Norms `(records, timesteps)`; masked where a record has no such timestep.
        title: String. Defaults to none.
        window: Length of the truncation windows, whose edges are drawn. Defaults to None.
        align: `"end"` or `"start"`: the side from which windows are counted.
        max_steps: Integer. Largest number of columns drawn. Defaults to 400.
        max_timesteps: Integer. Largest number of rows drawn. Defaults to 400.
        limits: Smallest and largest log10 norm of the colour scale, for comparable figures.
            Defaults to the range of the data.

    Returns:
        A `matplotlib.figure.Figure`, which a notebook displays.
    """
    steps = np.asarray(steps, np.float64)
    norms = norms if np.ma.isMaskedArray(norms) else np.asarray(norms)
    if norms.ndim != 2 or len(steps) != len(norms) or norms.size == 0:
        raise ValueError(
            "Expected `steps` of shape (records,) and `norms` of shape (records, timesteps), not "
            f"empty. Received: shapes {steps.shape} and {norms.shape}."
        )
    if limits is not None and not limits[0] < limits[1]:
        raise ValueError(
            "Invalid value for argument `limits`. Expected (smallest, largest) log10 norm. "
            f"Received: limits={limits!r}."
        )
    sizes = (
        _checks.positive_integer("max_steps", max_steps),
        _checks.positive_integer("max_timesteps", max_timesteps),
    )
    figure = Figure(figsize=(8.0, 4.2), layout="constrained")
    axes = figure.add_subplot()
    edges = layout.window_edges(norms.shape[1], window, align)
    legend = draw_heatmap(figure, axes, steps, norms, edges, sizes, limits)
    if title:
        # `$` in a layer's name must not start a formula.
        axes.set_title(title, parse_math=False, fontsize=11)
    if legend:
        handles = [Patch(facecolor=c, edgecolor="#888", label=n) for n, c in legend]
        figure.legend(
            handles=handles, loc="outside lower center", ncols=3, frameon=False, fontsize=9
        )
    return figure


def draw_heatmap(
    figure: Figure,
    axes,
    steps: np.ndarray,
    norms: np.ndarray,
    edges: Sequence[int] = (),
    sizes: tuple[int, int] = (400, 400),
    limits: tuple[float, float] | None = None,
) -> list[tuple[str, str]]:
    """Draws a heatmap with its colour scale; returns name and colour of each special value in it.

    Args:
        figure, axes: Where to draw.
        steps, norms: As for `heatmap_figure`.
        edges: Timesteps at which the gradient is cut.
        sizes: Largest numbers of columns and rows.
        limits: As for `heatmap_figure`.
    """
    cells = grid.reduce(norms, *sizes)
    image = _colors(cells.values, limits)
    x = grid.step_edges(steps)[cells.row_edges]
    y = cells.column_edges - 0.5
    axes.set_facecolor("white")
    mesh = axes.pcolormesh(x, y, image["rgba"].swapaxes(0, 1), shading="flat")
    mesh.set_rasterized(True)
    axes.set(xlabel="training step", ylabel="timestep t", xlim=(x[0], x[-1]), ylim=(y[0], y[-1]))
    axes.ticklabel_format(axis="x", style="plain", useOffset=False)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.yaxis.get_major_locator().set_params(integer=True)
    if len(edges) <= _MAX_EDGES:
        for edge in edges:
            axes.axhline(edge - 0.5, color="white", linewidth=0.6, linestyle=(0, (4, 4)), alpha=0.8)
    figure.colorbar(image["scale"], ax=axes, label=f"log$_{{10}}$ {NORM_LABEL}", pad=0.02)
    return image["legend"]


def profile_figure(
    profiles: Mapping[str, ArrayLike],
    title: str = "",
    relative: bool = False,
    window: int | None = None,
) -> Figure:
    """‖∂L/∂h_t‖ against t, one line per name, logarithmic y axis.

    Args:
        profiles: Mapping from a name (a method, a run) to norms `(timesteps,)`, or
            `(seeds, timesteps)`: then the line is the geometric mean, with a band from minimum to
            maximum.
        title: String. Defaults to none.
        relative: Boolean. Divide each profile by its largest finite norm, to compare shapes
            regardless of the loss. Defaults to False.
        window: Length of the truncation windows, whose edges are drawn. Defaults to None.

    Returns:
        A `matplotlib.figure.Figure`, which a notebook displays. Squares below the curves mark exact
        zeros, which a logarithmic axis cannot show; crosses on top mark non-finite norms.
    """
    figure = Figure(figsize=(8.0, 4.5), layout="constrained")
    axes = figure.add_subplot()
    draw_profile(axes, profiles, relative, window)
    if title:
        axes.set_title(title, parse_math=False, fontsize=11)
    return figure


def draw_profile(
    axes, profiles: Mapping[str, ArrayLike], relative: bool = False, window: int | None = None
) -> None:
    """Draws profiles; the arguments are those of `profile_figure`."""
    axes.set_yscale("log")
    longest = 0
    for number, (name, norms) in enumerate(profiles.items()):
        norms = np.ma.atleast_2d(np.ma.asarray(norms, np.float64))
        longest = max(longest, norms.shape[1])
        _draw_profile(axes, number, str(name), _relative(norms) if relative else norms)
    for edge in layout.window_edges(longest, window):
        axes.axvline(edge - 0.5, color="#999", linewidth=0.6, linestyle=(0, (4, 4)))
    axes.set(xlabel="timestep t", ylabel=NORM_LABEL + (" / largest" if relative else ""))
    axes.set_xlim(-0.5, max(longest - 0.5, 0.5))
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.grid(True, which="major", color="#ddd", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    if profiles:
        legend = axes.legend(frameon=False, fontsize=9, loc="best")
        for text in legend.get_texts():
            text.set_parse_math(False)


def _colors(values: np.ndarray, limits: tuple[float, float] | None) -> dict:
    missing = values == grid.MISSING
    finite = np.isfinite(values) & ~missing
    if limits is None:
        limits = (values[finite].min(), values[finite].max()) if finite.any() else (-1.0, 0.0)
    low, high = (float(limit) for limit in limits)
    if high - low < 0.1:  # a constant gradient: rounding errors must not span the scale
        low, high = low - 0.5, high + 0.5
    scale = ScalarMappable(Normalize(low, high), matplotlib.colormaps[COLORMAP])
    rgba = scale.to_rgba(np.where(finite, values, low))
    special = [
        ("exactly 0", ZERO_COLOR, np.isneginf(values)),
        ("NaN", NAN_COLOR, np.isnan(values)),
        ("infinite", INF_COLOR, np.isposinf(values)),
    ]
    for _, color, where in special:
        rgba[where] = to_rgba(color)
    rgba[missing] = (1, 1, 1, 1)
    legend = [(name, color) for name, color, where in special if where.any()]
    return {"rgba": rgba, "scale": scale, "legend": legend}


def _draw_profile(axes, number: int, name: str, norms: np.ma.MaskedArray) -> None:
    color = f"C{number % 10}"
    missing, norms = np.ma.getmaskarray(norms), np.ma.getdata(norms)
    timesteps = np.arange(norms.shape[1])
    drawable = np.isfinite(norms) & (norms > 0) & ~missing
    logs = np.log(norms, where=drawable, out=np.zeros_like(norms))
    counts = drawable.sum(axis=0)
    center = np.where(counts > 0, np.exp(logs.sum(axis=0) / np.maximum(counts, 1)), np.nan)
    axes.plot(timesteps, center, color=color, linewidth=1.6, label=name)
    if len(norms) > 1:
        low = np.where(drawable, norms, np.inf).min(axis=0)
        high = np.where(drawable, norms, 0).max(axis=0)
        axes.fill_between(
            timesteps, low, high, where=counts > 0, color=color, alpha=0.18, linewidth=0
        )
    zero = ((norms == 0) | missing).all(axis=0) & ~missing.all(axis=0)
    nonfinite = (~np.isfinite(norms) & ~missing).any(axis=0)
    _mark(axes, timesteps[zero], 0.012 + 0.02 * (number % 10), color, "s")
    _mark(axes, timesteps[nonfinite], 0.985, color, "x")


def _mark(axes, timesteps: np.ndarray, height: float, color: str, marker: str) -> None:
    """Marks timesteps at a height in axes coordinates: zeros at the bottom, non-finite on top."""
    if len(timesteps):
        axes.plot(
            timesteps,
            np.full(len(timesteps), height),
            marker,
            color=color,
            markersize=2.5 if marker == "s" else 5,
            linestyle="none",
            transform=axes.get_xaxis_transform(),
        )


def _relative(norms: np.ma.MaskedArray) -> np.ma.MaskedArray:
    finite = np.where(np.isfinite(norms.filled(0)), norms.filled(0), 0)
    largest = finite.max(axis=1, keepdims=True, initial=0)
    # `np.ma` division would mask NaN and infinite norms away.
    return np.ma.MaskedArray(norms.data / np.where(largest > 0, largest, 1), norms.mask)
