"""`kbptt compare` and `kbptt report`."""

from pathlib import Path
from typing import Annotated

import typer

from kbptt.ablation import limits
from kbptt.cli import options

METHODS = "Methods, separated by commas; '+' combines: orthogonal+clip."
SEEDS = "Number of seeds, or seeds (3,4,7); 6 are the fewest that can show an effect."
CONFIG = "YAML file with tasks, methods, seeds, set, …; the command line takes precedence."
OVERWRITE = "Delete an ablation with a different configuration in the log directory."
SCORES = (
    "Report on the scores in this file: one line for each run, with the columns method, task, seed "
    "and score. Reads a results.csv too."
)
Reference = Annotated[
    str | None, typer.Option(help="Method to compare with. Default: the baseline.")
]


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
    directory: Annotated[
        Path | None, typer.Argument(help="Log directory of kbptt compare.", show_default=False)
    ] = None,
    csv: Annotated[Path | None, typer.Option("--csv", help=SCORES)] = None,
    reference: Reference = None,
) -> None:
    """Write results.csv, report.md, report.html and report.tex for an ablation, finished or not.

    With --csv the report is on the scores in a file, of any origin; it is written into the
    directory or, without one, beside the file.

    Example: kbptt report runs/study --csv scores.csv
    """
    from kbptt.ablation import study

    directory = directory or (csv.parent if csv else None)
    if directory is None:
        raise typer.BadParameter(
            "Name the log directory of kbptt compare, or a file of scores with --csv FILE."
        )
    study.report(directory, reference=reference, csv=csv)
