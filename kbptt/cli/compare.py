"""`kbptt compare` and `kbptt report`."""

from pathlib import Path
from typing import Annotated

import typer

from kbptt.ablation import limits
from kbptt.cli import options

METHODS = "Methods, separated by commas; '+' combines: orthogonal+clip."
SEEDS = "Number of seeds, or seeds (3,4,7); 6 are the fewest that can show an effect."
CONFIG = "YAML file with tasks, methods, seeds, set, …; the command line takes precedence."
TUNE = (
    "Search space of an option: a range (learning_rate=1e-4..1e-2, units=16..64) or choices "
    "(clip=0.5,1,5). Every method gets its best values, by validation score, on every task. "
    "Repeatable: one joint space."
)
OVERWRITE = "Delete an ablation with a different configuration in the log directory."
TRIALS = "Points of the space that each method tries. Default: 8."
TUNING_SEEDS = "Seeds that each point is tried on, none of the comparison's. Default: 2."
SAMPLER = (
    "quasi-random, or tpe, which follows the scores and needs Optuna (the extra tune). Default: "
    "quasi-random."
)
Reference = Annotated[
    str | None, typer.Option(help="Method to compare with. Default: the baseline.")
]
Tune = Annotated[
    list[str] | None, typer.Option(metavar="NAME=SPACE", help=TUNE, rich_help_panel="Tuning")
]
Trials = Annotated[int | None, typer.Option(help=TRIALS, rich_help_panel="Tuning")]
TuningSeeds = Annotated[int | None, typer.Option(help=TUNING_SEEDS, rich_help_panel="Tuning")]
Sampler = Annotated[str | None, typer.Option(help=SAMPLER, rich_help_panel="Tuning")]


@options.command(recurrent_initializer="the method's")
def compare(
    *,
    tasks: Annotated[str | None, typer.Option(help="Tasks, separated by commas.")] = None,
    methods: Annotated[str | None, typer.Option("--methods", "--method", help=METHODS)] = None,
    seeds: Annotated[str | None, typer.Option(help=SEEDS)] = None,
    logdir: Annotated[
        Path, typer.Option(help="Directory for ledger, TensorBoard runs and reports.")
    ] = Path("runs/compare"),
    config: Annotated[Path | None, typer.Option(help=CONFIG)] = None,
    design: Annotated[
        str | None, typer.Option(help="grid, add-one-in or leave-one-out. Default: grid.")
    ] = None,
    given: options.Given,
    tune: Tune = None,
    trials: Trials = None,
    tuning_seeds: TuningSeeds = None,
    sampler: Sampler = None,
    workers: Annotated[
        int | None, typer.Option(help="Processes on this machine. Default: cores // threads.")
    ] = None,
    scheduler: Annotated[
        str | None, typer.Option(help="Run on this Dask scheduler, such as tcp://host:8786.")
    ] = None,
    retries: Annotated[int, typer.Option(help="How often a trial that crashes is retried.")] = 2,
    reference: Reference = None,
    trial: Annotated[
        str | None, typer.Option(help="Function that runs a trial, as module:function.")
    ] = None,
    extend: Annotated[
        bool, typer.Option("--extend", help="Add to the ablation in the log directory.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help=OVERWRITE)] = False,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Retry trials that crashed before.")
    ] = False,
) -> None:
    """Compare methods × tasks × seeds: which one helps, by how much, and how certain that is.

    Interrupt it at any time: the same command continues where it stopped. Exit code 1: some trials
    crashed on every attempt, and the report is without them.

    Example: kbptt compare --tasks adding --methods baseline,clip,orthogonal+clip --seeds 6
    """
    from kbptt.ablation import study

    limits.integer("retries", retries, least=0, shown="--retries")
    if workers is not None:
        limits.integer("workers", workers, shown="--workers")
    settings, axes = given.read()
    grid = {"tasks": tasks, "methods": methods, "seeds": seeds, "design": design, "trial": trial}
    grid |= {"imports": given.imports or None, "set": axes or None}
    grid |= {"tune": options.assigned("--tune", tune or []) or None, "tuning_trials": trials}
    grid |= {"tuning_seeds": tuning_seeds, "tuning_sampler": sampler}
    report = study.compare(
        logdir=logdir,
        config=config,
        scheduler=scheduler,
        workers=workers,
        retries=retries,
        extend=extend,
        overwrite=overwrite,
        retry_failed=retry_failed,
        reference=reference,
        **{name: value for name, value in grid.items() if value is not None},
        **settings,
    )
    if report.counts["failed"]:
        raise typer.Exit(1)


@options.command()
def report(
    directory: Annotated[Path, typer.Argument(help="Log directory of kbptt compare.")],
    reference: Reference = None,
) -> None:
    """Write results.csv, report.md and report.html for an ablation, finished or not."""
    from kbptt.ablation import study

    study.report(directory, reference=reference)
