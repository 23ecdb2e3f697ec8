"""Figures of a report, as SVG that is part of the page."""

import math
import textwrap
import unicodedata
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from kbptt.ablation import arrays, statistics, svg
from kbptt.ablation.results import Results, Row, decay
from kbptt.ablation.sections import Drawing
from kbptt.ablation.text import described, visible

# Limits beyond which a figure is illegible and the page too large.
ARMS = 24  # in one figure: the best
FEW = 8  # in one figure of bands or images
TASKS = 12  # with figures of their own
DOTS = 200  # runs of an arm
POINTS = 500  # of a line
LABEL = 60  # characters of a method's name: as wide as a figure at 9 points
WIDTH = 5.2  # inches: on a telephone text of 10 points is still read
GRID = "#808080"  # seen on paper and on a dark screen
DASHES = ("-", "--", "-.", ":")  # told apart without colours too


def draw(results: Results) -> list[Drawing]:
    """All figures that the results allow; of one that cannot be drawn, the reason."""
    figures: list[Drawing | None] = [*overall(results)]
    for task in results.tasks[:TASKS]:
        name, _, _ = results.metric(task)
        few = len(results.seeds) < statistics.FEWEST_FOR_INTERVAL
        figures += [
            _figure(
                f"Learning curves: {task}",
                f"Validation {name} by epoch, median over seeds; "
                + ("thin lines: runs." if few else "band: all seeds.")
                + left_out(results),
                lambda task=task: curves(results, task),
            ),
            _figure(
                f"Gradient by timestep: {task}",
                "‖∂L/∂h_t‖ of the first recurrent layer against t, median over seeds; dashed: "
                "start of training, solid: end. Exact zeros (beyond a cut) are omitted."
                + left_out(results),
                lambda task=task: profiles(results, task),
            ),
            _figure(
                f"Gradient over training: {task}",
                "‖∂L/∂h_t‖ of the first recurrent layer by training step and timestep, first seed; "
                "one colour scale, set by the runs that did not diverge." + left_out(results, FEW),
                lambda task=task: heatmaps(results, task),
            ),
        ]
    figures.append(
        _figure(
            "Decay of the gradient against the score",
            "Change of ‖∂L/∂h_t‖ per timestep into the past at the end of training, against "
            f"{results.unit}. Each dot is one run." + left_out(results, dots=True),
            lambda: decay_against_score(results),
        )
    )
    return [figure for figure in figures if figure is not None]


def overall(results: Results) -> list[Drawing]:
    """The figures of scores over all tasks."""
    known = any(math.isfinite(row.mean.low) for row in results.table())
    figures = [
        _figure(
            "Score with 95 % intervals" if known else "Score of every run",
            (
                "Mean skill over all tasks and seeds (0: no better than without memory, 1: perfect)"
                if results.sole is None
                else f"Mean {results.unit} over all seeds"
            )
            + (" with its bootstrap interval" if known else "")
            + "; each dot is one run."
            + left_out(results, dots=True),
            lambda: scores(results),
        ),
    ]
    if results.sole is None:  # there is a skill
        figures.append(
            _figure(
                "Performance profiles",
                "Fraction of runs, over all tasks and seeds, with a skill above τ: higher is "
                "better. A line that is above another everywhere is better at every level."
                + (" Bands: pointwise 95 %, bootstrap by seed within each task." if known else "")
                + left_out(results, FEW),
                lambda: performance_profiles(results),
            )
        )
    return [figure for figure in figures if figure is not None]


def left_out(results: Results, most: int = ARMS, dots: bool = False) -> str:
    """The end of a caption: what the figures of a large ablation leave out."""
    text = ""
    if len(results.arms) > most:
        text += f" Shown: the best {most} of {len(results.arms)} methods and settings."
    if len(results.tasks) > TASKS:
        text += f" Only the first {TASKS} of {len(results.tasks)} tasks have separate figures."
    runs = len(results.seeds) * len(results.tasks)
    if dots and runs > DOTS:
        text += f" Dots: {DOTS} of {runs} runs each, from lowest to highest."
    return text


def shown_arms(results: Results, most: int = ARMS) -> list[str]:
    """The arms that figures show: the best ones, in the order of the ablation."""
    best = {row.arm for row in results.table()[:most]}
    return [arm for arm in results.arms if arm in best]


def _thinned(values: np.ndarray, most: int) -> np.ndarray:
    """Indices of at most `most` values, evenly spaced from the first to the last."""
    return np.linspace(0, len(values) - 1, min(len(values), most)).round().astype(int)


def scores(results: Results) -> Figure | None:
    """Mean skill of every arm with its interval, and every run."""
    rows = [row for row in results.table() if row.runs][:ARMS][::-1]
    if not rows:
        return None
    figure = Figure(figsize=(WIDTH, 0.7 + 0.4 * len(rows)), layout="constrained")
    axes = figure.subplots()
    for y, row in enumerate(rows):
        color = color_of(results, row.arm)
        runs = results.overall(row.arm)
        runs = np.sort(runs[np.isfinite(runs)])
        runs = runs[_thinned(runs, DOTS)]
        axes.plot(runs, np.full(runs.size, y), "o", ms=4, alpha=0.4, color=color, mew=0)
        _interval(axes, row, y, color)
        # Above its line, so that a long name takes no width from the scale, and at the left of the
        # axes: 0 on the scale of the scores is outside of the figure if these are far from it.
        left = axes.get_yaxis_transform()
        name = axes.text(0, y + 0.24, _named(row.arm), fontsize=9, transform=left)
        name.set_in_layout(False)  # the axes would shrink for a name wider than they are
    axes.set_yticks([])
    axes.set(xlabel=_safe(results.unit), ylim=(-0.45, len(rows) - 0.2))
    if results.sole is None:
        axes.set_xlim(-0.03, 1.03)
    axes.spines[["top", "left", "right"]].set_visible(False)
    axes.grid(axis="x", color=GRID, alpha=0.3)
    return figure


def performance_profiles(results: Results) -> Figure | None:
    """The share of runs above each skill, with its band, for the best arms."""
    figure, axes = _axes()
    shown = shown_arms(results, FEW)
    for arm in shown:
        profile = statistics.performance_profile(results.skills(arm))
        if not np.isfinite(profile.share).any():
            continue
        color, x = color_of(results, arm), profile.thresholds
        style = DASHES[shown.index(arm) % len(DASHES)]
        axes.step(x, profile.share, style, where="post", color=color, label=_named(arm), lw=1.6)
        if np.isfinite(profile.low).all():
            axes.fill_between(
                x, profile.low, profile.high, step="post", color=color, alpha=0.15, lw=0
            )
    if not axes.get_lines():
        return None
    axes.set(xlabel="skill τ", ylabel="fraction of runs above τ", xlim=(0, 1), ylim=(-0.02, 1.02))
    return _with_legend(figure, axes)


def curves(results: Results, task: str) -> Figure | None:
    """Validation metric by epoch for every arm."""
    figure, axes = _axes()
    name, _, baseline = results.metric(task)
    longest, shown = 0, shown_arms(results)
    for arm in shown:
        runs = [t.result["curve"] for t in results.done(arm, task) if t.result.get("curve")]
        runs = [run["validation"] for run in runs if run.get("validation")]
        if not runs:
            continue
        table = np.full((len(runs), max(map(len, runs))), np.nan)
        longest = max(longest, table.shape[1])
        for row, run in zip(table, runs, strict=True):
            row[: len(run)] = run
        table[~np.isfinite(table)] = np.nan
        epochs = _thinned(table[0], POINTS)
        table, epochs = table[:, epochs], epochs + 1
        color = color_of(results, arm)
        middle, low, high = (f(table, axis=0) for f in (np.nanmedian, np.nanmin, np.nanmax))
        marker = "o" if len(epochs) == 1 else None
        style = DASHES[shown.index(arm) % len(DASHES)]
        axes.plot(epochs, middle, style, color=color, label=_named(arm), marker=marker)
        if len(results.seeds) < statistics.FEWEST_FOR_INTERVAL:  # the runs themselves
            axes.plot(epochs, table.T, color=color, alpha=0.5, lw=0.6)
        else:
            axes.fill_between(epochs, low, high, color=color, alpha=0.15, lw=0)
    if not longest:
        return None
    if math.isfinite(baseline):
        axes.axhline(baseline, color=GRID, ls=":", label="without memory")
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    if longest == 1:
        axes.set(xlim=(0.5, 1.5), xticks=[1])
    axes.set_ylabel(f"validation {_safe(name)}")
    return _with_legend(figure, axes)


def profiles(results: Results, task: str) -> Figure | None:
    """Gradient norm against timestep, at the start and the end of training."""
    figure, axes = _axes()
    shown = False
    for arm in shown_arms(results):
        for when, style in (("start", "--"), ("end", "-")):
            found = [
                layer[when]
                for trial in results.done(arm, task)
                if (layer := _first_layer(trial.result)).get(when)
            ]
            if not found:
                continue
            length = min(map(len, found))
            norms = np.median(np.array([run[-length:] for run in found], float), axis=0)
            norms = np.where(np.isfinite(norms) & (norms > 0), norms, np.nan)
            timesteps = _thinned(norms, POINTS)
            label = _named(arm) if when == "end" else None
            color = color_of(results, arm)
            axes.plot(timesteps, norms[timesteps], style, color=color, label=label, lw=1.2)
            shown = shown or bool(np.isfinite(norms).any())
    if not shown:
        return None
    axes.set_yscale("log")
    axes.set_xlabel("timestep t")
    axes.set_ylabel("‖∂L/∂h_t‖")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    return _with_legend(figure, axes)


def heatmaps(results: Results, task: str) -> Figure | None:
    """Training step × timestep for every arm, side by side."""
    found, sound = [], []
    for arm in shown_arms(results, FEW):
        for trial in results.done(arm, task):
            record = _first_layer(trial.result).get("record")
            if record:
                norms = arrays.decode(record["norms"])
                found.append((arm, record["steps"], record["timesteps"], norms))
                sound.append(trial.result["status"] == "ok")
                break
    positive = [n[np.isfinite(n) & (n > 0)] for *_, n in found]
    # The 1e30 of a run that diverged would give all the others one colour.
    judged = [p for p, ok in zip(positive, sound, strict=True) if ok and p.size] or positive
    positive = np.concatenate(judged) if judged else np.empty(0)
    if not positive.size:
        return None
    # Ten decades below the largest value colours are indistinguishable.
    high = float(positive.max())
    low = max(float(positive.min()), high * 1e-10)
    scale = LogNorm(min(low, high / 1.01), high)
    columns = min(2, len(found))
    rows = -(-len(found) // columns)
    figure = Figure(figsize=(WIDTH, 1.6 * rows + 0.7), layout="constrained")
    grid = np.atleast_1d(figure.subplots(rows, columns, sharey=True, squeeze=False)).ravel()
    image = None
    for axes, (arm, steps, timesteps, norms) in zip(grid, found, strict=False):
        axes.set_facecolor("#dddddd")  # zero, NaN and Inf
        shown = np.ma.masked_where(~(np.isfinite(norms) & (norms > 0)), norms).T
        x = _edges(np.asarray(steps, float))
        y = arrays.bins(timesteps, shown.shape[0])
        image = axes.pcolormesh(x, y, shown, norm=scale, cmap="viridis", rasterized=True)
        axes.set_title("\n".join(textwrap.wrap(_named(arm, 90), 30)), fontsize=8)
        axes.tick_params(labelsize=8)
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(MaxNLocator(5, integer=True))
    for axes in grid[len(found) :]:
        axes.set_visible(False)
    figure.supxlabel("training step", fontsize=9)
    figure.supylabel("timestep t", fontsize=9)
    label = "‖∂L/∂h_t‖ (grey: 0 or not finite)"
    figure.colorbar(image, ax=list(grid[: len(found)]), label=label, location="top", aspect=40)
    return figure


def decay_against_score(results: Results) -> Figure | None:
    """Decay of the gradient against the score, one dot per run."""
    figure, axes = _axes()
    shown = False
    for arm in shown_arms(results):
        points = []
        for task, runs in zip(results.tasks, results.overall(arm).T, strict=True):
            for seed, score in zip(results.seeds, runs, strict=True):
                trial = results.runs.get((arm, task, seed))
                if trial is not None and trial.result is not None:
                    points.append((decay(trial.result, "end"), score))
        points = np.array(sorted(p for p in points if np.isfinite(p).all()))
        if points.size:
            points = points[_thinned(points, DOTS)]
            color = color_of(results, arm)
            axes.plot(*points.T, "o", ms=5, alpha=0.7, mew=0, color=color, label=_named(arm))
            shown = True
    if not shown:
        return None
    axes.axvline(1, color=GRID, ls=":")
    axes.set_xlabel("decay per timestep into the past (below 1: vanishing)")
    axes.set_ylabel(_safe(results.unit))
    return _with_legend(figure, axes)


def _figure(title: str, caption: str, make: Callable[[], Figure | None]) -> Drawing | None:
    title = visible(title)
    # Epochs without any run and overflowing sums must not stop the rest from being drawn.
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        try:
            figure = make()
            if figure is None:
                return None
            return Drawing(title, caption, svg.inline(figure, title))
        except Exception as error:  # numbers that Matplotlib has no axis for cost one figure only
            return Drawing(title, f"Not drawn: {described(error)}.", "")


def _axes() -> tuple[Figure, Any]:
    figure = Figure(figsize=(WIDTH, 3.2), layout="constrained")
    axes = figure.subplots()
    axes.grid(color=GRID, alpha=0.3)
    return figure, axes


def _with_legend(figure: Figure, axes: Any) -> Figure:
    handles, labels = axes.get_legend_handles_labels()
    columns = int(72 * WIDTH // (4.9 * max(map(len, labels)) + 28))  # points of a character
    columns = max(1, min(4, columns))
    figure.set_figheight(figure.get_figheight() + 0.17 * -(-len(labels) // columns))
    figure.legend(
        handles, labels, loc="outside lower left", fontsize=8, ncols=columns, frameon=False
    )
    return figure


def _interval(axes: Any, row: Row, y: float, color: Any) -> None:
    mean = row.mean
    if math.isfinite(mean.low):
        axes.plot([mean.low, mean.high], [y, y], color=color, lw=3, solid_capstyle="butt")
    axes.plot([mean.value], [y], "D", color=color, ms=6, mec=svg.PAPER)


def color_of(results: Results, arm: str) -> Any:
    """The colour of an arm, different from all others in the ablation."""
    index, count = results.arms.index(arm), len(results.arms)
    if count <= len(svg.PALETTE):
        return svg.PALETTE[index]
    return colormaps["turbo"](0.05 + 0.9 * index / count)


def _first_layer(result: dict[str, Any]) -> dict[str, Any]:
    """The recorded gradient of a trial's first recurrent layer."""
    return next(iter((result.get("gradient") or {}).values()), {})


def _safe(text: str) -> str:
    """A label that Matplotlib shows literally: a dollar sign would start a formula."""
    text = visible(text)
    return text.replace("\\", "\\\\").replace("$", r"\$") if "$" in text else text


def _named(arm: str, most: int = LABEL) -> str:
    """The name of an arm, of one that is too wide the beginning and the end, where settings are."""
    name = visible(arm)
    wide = sum(unicodedata.east_asian_width(character) in "WF" for character in name)
    most = most * len(name) // (len(name) + wide)
    if len(name) > most:
        name = f"{name[: most // 2]} … {name[-(most // 2) + 3 :]}"
    return _safe(name)


def _edges(centers: np.ndarray) -> np.ndarray:
    if centers.size == 1:
        return np.array([centers[0] - 0.5, centers[0] + 0.5])
    middle = (centers[1:] + centers[:-1]) / 2
    return np.concatenate([[2 * centers[0] - middle[0]], middle, [2 * centers[-1] - middle[-1]]])
