"""Which initializer or clip lets a plain RNN remember a digit for a hundred timesteps?

    make demo            # or: python scripts/demo.py

Real handwritten digits (scikit-learn's, nothing is downloaded), one pixel a timestep in a shuffled
order, then 96 timesteps of nothing before the answer is due: 160 timesteps, of which truncated BPTT
goes back 128. Every method is trained with two seeds. Results stay in the log directory: started
again, it continues where it stopped, and a finished demo only shows its results.
"""

import argparse
import sys
import time
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

import kbptt

METHODS = ("baseline", "clip", "omega+clip", "orthogonal", "orthogonal+clip")
COLORS = ("#4477AA", "#EE6677", "#AA3377", "#228833", "#CCBB44")
BLANK, TRUNCATION = 96, 128
TIMESTEPS = 64 + BLANK


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--logdir", type=Path, default=Path("runs/demo"))
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument(
        "--overwrite", action="store_true", help="delete results of other --epochs or --seeds"
    )
    arguments = parser.parse_args()

    console, started = Console(), time.perf_counter()
    console.print(
        f"{len(METHODS)} methods × {arguments.seeds} seeds on digits read pixel by pixel; results "
        f"in {arguments.logdir}",
        soft_wrap=True,
    )
    report = kbptt.ablation.compare(
        tasks=["digits"],
        methods=METHODS,
        seeds=arguments.seeds,
        logdir=arguments.logdir,
        overwrite=arguments.overwrite,
        retry_failed=True,
        verbose="progress",
        permuted=True,
        blank=BLANK,
        cell="SimpleRNN",
        units=64,
        truncation=TRUNCATION,
        learning_rate=1e-3,
        epochs=arguments.epochs,
    )
    results, ranking = report.results, [row.arm for row in report.rows]
    picture = arguments.logdir / "gradient.png"
    draw(results).savefig(picture, dpi=110)

    console.print(table(results, ranking))
    for note in [*report.notes(), *(f"{where}: {error}" for where, error in report.failures())]:
        console.print(note, style="yellow", markup=False)
    console.print(f"Done in {time.perf_counter() - started:.0f} s.", highlight=False)
    console.print(f"The gradient of every timestep: {picture}", soft_wrap=True)
    console.print(f"All figures and intervals:      {report.directory / 'report.html'}")
    console.print(
        f"Watch it step by step:          {kbptt.tensorboard.command(report.directory)}",
        soft_wrap=True,
    )
    return 1 if report.failures() else 0


def table(results: kbptt.ablation.Results, ranking: list[str]) -> Table:
    """Best method first; means over the seeds."""
    shown = Table(
        title=f"SimpleRNN, truncation {TRUNCATION} of {TIMESTEPS} timesteps; means over the seeds",
        caption="decay: of ‖∂L/∂h_t‖ per timestep into the past, first → last step\n"
        "horizon: last timesteps that hold 90 % of the gradient",
        caption_justify="left",
        box=SIMPLE_HEAD,
        pad_edge=False,
    )
    shown.add_column("method", no_wrap=True)
    for name in ("accuracy", "loss", "decay", "horizon", "clipped", "s/step"):
        shown.add_column(name, justify="right", no_wrap=True)
    for method in ranking:
        runs = [trial.result for trial in results.done(method)]
        if not runs:
            continue
        flows = [next(iter(run["gradient"].values())) for run in runs]
        before, after = (
            mean(flow[f"statistics_{when}"]["decay"] for flow in flows) for when in ("start", "end")
        )
        clips = [c["clip_rate"] for run in runs for c in run["clipping"].values()]
        shown.add_row(
            method,
            f"{100 * mean(run['score'] for run in runs):.0f} %",
            f"{mean(run.get('test', {}).get('loss') for run in runs):.2f}",
            f"{before:.3f} → {after:.3f}",
            f"{mean(flow['statistics_end']['horizon'] for flow in flows):.0f}",
            f"{100 * mean(clips):.0f} %" if clips else "–",
            f"{mean(run['cost']['seconds_per_step'] for run in runs):.3f}",
        )
    return shown


def mean(values) -> float:
    """Mean over runs; NaN if one diverged and has no score."""
    return float(np.mean([np.nan if value is None else value for value in values]))


def draw(results: kbptt.ablation.Results) -> Figure:
    """‖∂L/∂h_t‖ against t at the first and the last step of training, a line for each run."""
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    for axes, when, title in zip(
        panels, ("start", "end"), ("first step", "last step"), strict=True
    ):
        for method, color, width in zip(METHODS, COLORS, (5, 3, 1, 3, 1), strict=True):
            for number, trial in enumerate(results.done(method)):
                norms = np.array(next(iter(trial.result["gradient"].values()))[when])
                norms[~(np.isfinite(norms) & (norms > 0))] = np.nan
                label = method if number == 0 else None
                # At the first step several methods coincide: wide lines show below narrow ones.
                axes.plot(norms, color=color, label=label, lw=width if when == "start" else 1.3)
        cut = TIMESTEPS - TRUNCATION
        axes.axvspan(0, cut, color="#dddddd", lw=0)
        axes.text(
            cut / 2,
            0.5,
            "exactly 0",
            rotation=90,
            ha="center",
            va="center",
            transform=axes.get_xaxis_transform(),
        )
        axes.set(
            title=f"{title} of training", xlabel="timestep t", yscale="log", xlim=(0, TIMESTEPS)
        )
        axes.axvline(64, color="grey", ls=":", lw=1)
        axes.grid(alpha=0.3)
    panels[0].set_ylabel("‖∂L/∂h_t‖")
    panels[1].annotate(
        "image ends",
        (64, 0.02),
        xycoords=("data", "axes fraction"),
        fontsize=8,
        xytext=(3, 0),
        textcoords="offset points",
        color="grey",
    )
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside right center", fontsize=8)
    return figure


# Workers import this file: without the guard each would start its own demo.
if __name__ == "__main__":
    try:
        sys.exit(main())
    except (ValueError, OSError) as error:
        sys.exit(f"Error: {error}")
    except KeyboardInterrupt:
        print("Interrupted; `make demo` continues from here.", file=sys.stderr)
        sys.exit(130)
