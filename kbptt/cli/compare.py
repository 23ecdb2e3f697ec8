"""`kbptt compare` and `kbptt report`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from kbptt.ablation import limits
from kbptt.cli import options

Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        "--option",
        "-o",
        metavar="NAME=VALUE,…",
        help="An axis: an option and its values, such as truncation=16,64,full or "
        "adding.length=50,100. With one value, a setting. Repeatable.",
    ),
]


@options.once
def compare(
    tasks: Annotated[str | None, typer.Option(help="Tasks, separated by commas.")] = None,
    methods: Annotated[
        str | None,
        typer.Option(help="Methods, separated by commas; '+' combines: orthogonal+clip."),
    ] = None,
    seeds: Annotated[
        str | None,
        typer.Option(
            help="Number of seeds, or seeds (3,4,7); 6 are the fewest that can show an effect."
        ),
    ] = None,
    logdir: Annotated[
        Path, typer.Option(help="Directory for ledger, TensorBoard runs and reports.")
    ] = Path("runs/compare"),
    config: Annotated[
        Path | None,
        typer.Option(
            help="YAML file with tasks, methods, seeds, set, …; the command line comes first."
        ),
    ] = None,
    design: Annotated[
        str | None,
        typer.Option(
            help="grid, add-one-in or leave-one-out. Default: grid.",
        ),
    ] = None,
    settings: Settings = None,
    length: options.Length = None,
    cell: options.Cell = None,
    units: options.Units = None,
    layers: options.Layers = None,
    truncation: options.Truncation = None,
    normalization: options.Normalization = None,
    recurrent_initializer: options.recurrent_initializer("the method's") = None,
    epochs: options.Epochs = None,
    batch_size: options.BatchSize = None,
    optimizer: options.Optimizer = None,
    learning_rate: options.LearningRate = None,
    checkpoint: Annotated[
        str | None,
        typer.Option(
            help="Epoch whose weights are tested: best or last. Default: best.",
        ),
    ] = None,
    threads: Annotated[
        int | None,
        typer.Option(
            help="Threads of one trial. Default: 1.",
        ),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(
            help="Processes on this machine. Default: cores // threads.",
        ),
    ] = None,
    scheduler: Annotated[
        str | None, typer.Option(help="Run on this Dask scheduler, such as tcp://host:8786.")
    ] = None,
    retries: Annotated[
        int, typer.Option(help="How often a trial that crashes is tried again.")
    ] = 2,
    reference: Annotated[
        str | None,
        typer.Option(
            help="Method to compare with. Default: the baseline.",
        ),
    ] = None,
    imports: options.Imports = None,
    trial: Annotated[
        str | None, typer.Option(help="Function that runs a trial, as module:function.")
    ] = None,
    extend: Annotated[
        bool, typer.Option("--extend", help="Add to the ablation in the log directory.")
    ] = False,
    overwrite: Annotated[
        bool,
        typer.Option(
            "--overwrite",
            help="Delete an ablation with another configuration in the log directory.",
        ),
    ] = False,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Try trials again that crashed before.")
    ] = False,
) -> None:
    """Compare methods × tasks × seeds, and say which helps, by how much, and how sure.

    Interrupt it at any time: the same command goes on where it stopped. Exit code 1: some trials
    crashed, again and again, and the report is without them.

    Example: kbptt compare --tasks adding --methods baseline,clip,orthogonal+clip --seeds 6
    """
    from kbptt.ablation import study

    limits.integer("retries", retries, least=0, shown="--retries")
    if workers is not None:
        limits.integer("workers", workers, shown="--workers")
    values = {
        "length": length,
        "cell": cell,
        "units": units,
        "layers": layers,
        "truncation": truncation,
        "normalization": normalization,
        "recurrent_initializer": recurrent_initializer,
        "epochs": epochs,
        "batch_size": batch_size,
        "optimizer": optimizer,
        "learning_rate": learning_rate,
        "checkpoint": checkpoint,
        "threads": threads,
    }
    of_the_grid: dict[str, Any] = {
        "tasks": tasks,
        "methods": methods,
        "seeds": seeds,
        "design": design,
        "trial": trial,
        "imports": imports or None,
    }
    given = {name: value for name, value in of_the_grid.items() if value is not None}
    flags, axes = options.read(values, settings or [])
    report = study.compare(
        logdir=logdir,
        config=config,
        set=axes or None,
        scheduler=scheduler,
        workers=workers,
        retries=retries,
        extend=extend,
        overwrite=overwrite,
        retry_failed=retry_failed,
        reference=reference,
        **given,
        **flags,
    )
    if report.counts["failed"]:
        raise typer.Exit(1)


@options.once
def report(
    directory: Annotated[Path, typer.Argument(help="Log directory of kbptt compare.")],
    reference: Annotated[
        str | None, typer.Option(help="Method to compare with. Default: the baseline.")
    ] = None,
) -> None:
    """Write results.csv, report.md and report.html for an ablation, finished or not."""
    from kbptt.ablation import study

    study.report(directory, reference=reference)
