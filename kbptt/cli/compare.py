"""`kbptt compare` and `kbptt report`."""

from pathlib import Path
from typing import Annotated

import typer

from kbptt.ablation import limits
from kbptt.cli import completion, options, terminal

METHODS = "Methods (see `kbptt methods`), separated by commas; '+' combines: orthogonal+clip."
SEEDS = "Number of seeds, or seeds (3,4,7); 6 are the fewest that can show an effect."
CONFIG = "YAML file with tasks, methods, seeds, set, …; the command line takes precedence."
SCRIPT = "Your own training script (or FILE:FUNCTION); --set and the like are its options."
METRIC = "With --script, the score among its metrics. Default: score, or the first one."
MODE = "With --script, max or min: which is better. Default: by the metric's name."
TIMEOUT = "How long a trial may run: 90s, 30m, 12h. Default: as long as it takes."
MEMORY = "Memory that a trial may use: 4GB, or auto, an equal share for every worker."
OVERWRITE = "Delete an ablation with a different configuration in the log directory."
Reference = Annotated[
    str | None,
    typer.Option(
        help="Method to compare with. Default: the baseline.", autocompletion=completion.method
    ),
]


@options.command(recurrent_initializer="the method's")
def compare(
    *,
    tasks: Annotated[
        str | None,
        typer.Option(
            help="Tasks, separated by commas: see `kbptt tasks`.", autocompletion=completion.task
        ),
    ] = None,
    methods: Annotated[
        str | None,
        typer.Option("--methods", "--method", help=METHODS, autocompletion=completion.method),
    ] = None,
    seeds: Annotated[str | None, typer.Option(help=SEEDS)] = None,
    logdir: Annotated[
        Path, typer.Option(help="Directory for ledger, TensorBoard runs and reports.")
    ] = Path("runs/compare"),
    config: Annotated[Path | None, typer.Option(help=CONFIG)] = None,
    design: Annotated[
        str | None,
        typer.Option(
            help="grid, add-one-in or leave-one-out. Default: grid.",
            autocompletion=completion.one_of("grid", "add-one-in", "leave-one-out"),
        ),
    ] = None,
    given: options.Given,
    workers: Annotated[
        int | None, typer.Option(help="Processes on this machine. Default: cores // threads.")
    ] = None,
    scheduler: Annotated[
        str | None, typer.Option(help="Run on this Dask scheduler, such as tcp://host:8786.")
    ] = None,
    retries: Annotated[int, typer.Option(help="How often a trial that crashes is retried.")] = 2,
    trial_timeout: Annotated[str | None, typer.Option(metavar="<time>", help=TIMEOUT)] = None,
    memory_limit: Annotated[str | None, typer.Option(metavar="<memory>", help=MEMORY)] = None,
    reference: Reference = None,
    script: Annotated[str | None, typer.Option(metavar="<file>", help=SCRIPT)] = None,
    metric: Annotated[str | None, typer.Option(help=METRIC)] = None,
    mode: Annotated[str | None, typer.Option(help=MODE)] = None,
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

    Interrupt it at any time: the same command continues where it stopped.

    Exit code 1: some trials crashed on every attempt; the report is without them.

    kbptt compare --tasks adding --methods baseline,clip,orthogonal+clip --seeds 6
    """
    limits.integer("retries", retries, least=0, shown="--retries")
    if workers is not None:
        limits.integer("workers", workers, shown="--workers")
    with terminal.waiting("Reading the options", in_a_terminal_only=True):
        from kbptt.ablation import study

        settings, axes = given.read()
    grid = {"tasks": tasks, "methods": methods, "seeds": seeds, "design": design, "trial": trial}
    grid |= {"imports": given.imports or None, "set": axes or None}
    grid |= {"script": script, "metric": metric, "mode": mode}
    with terminal.saying_how_to_continue(logdir / "ledger.sqlite"):
        report = study.compare(
            logdir=logdir,
            config=config,
            scheduler=scheduler,
            workers=workers,
            retries=retries,
            trial_timeout=limits.seconds(trial_timeout, "--trial-timeout"),
            memory_limit=limits.memory(memory_limit, "--memory-limit"),
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
