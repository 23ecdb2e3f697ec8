"""The command `kbptt train`."""

import inspect
from pathlib import Path
from typing import Annotated, Any

import typer

from kbptt import _checks, methods, tasks
from kbptt._quiet import quiet_start
from kbptt.ablation import limits
from kbptt.ablation.grid import Grid
from kbptt.ablation.options import path_of, twice
from kbptt.cli import options, run_directory, terminal

RUN = "Run"
INITIALIZER = "orthogonal"
# Options of a comparison that make no sense for one run.
_OF_COMPARE = [("training", "checkpoint"), ("training", "threads")]


@options.once
def train(
    task: Annotated[
        str, typer.Argument(metavar="TASK", help=f"One of: {', '.join(tasks.names())}.")
    ],
    file: Annotated[
        Path | None,
        typer.Argument(metavar="[FILE]", help="The user's file, for text, csv and mnist."),
    ] = None,
    option: Annotated[
        list[str] | None,
        typer.Option(
            "--option",
            "--set",
            "-o",
            metavar="NAME=VALUE",
            help="An option of the task, such as permuted=true or sizes=[500,100,100], or any "
            "other that kbptt compare knows, such as dropout=0.1. Repeatable.",
        ),
    ] = None,
    imports: options.Imports = None,
    length: options.Length = None,
    method: Annotated[
        str, typer.Option(help="Methods of kbptt compare, joined by '+': orthogonal+clip.")
    ] = "baseline",
    cell: options.Cell = None,
    units: options.Units = None,
    layers: options.Layers = None,
    truncation: options.Truncation = None,
    normalization: options.Normalization = None,
    recurrent_initializer: options.recurrent_initializer(INITIALIZER) = None,
    epochs: options.Epochs = None,
    batch_size: options.BatchSize = None,
    optimizer: options.Optimizer = None,
    learning_rate: options.LearningRate = None,
    clip: Annotated[
        float | None,
        typer.Option(
            help="Clip the gradient to this global norm. Default: no clipping.",
            rich_help_panel=options.TRAINING,
        ),
    ] = None,
    logdir: Annotated[
        Path | None,
        typer.Option(
            help="Directory for TensorBoard files, checkpoints and model. Default: runs/TASK-N.",
            rich_help_panel=RUN,
        ),
    ] = None,
    seed: Annotated[
        int, typer.Option(help="Seed of weights, data and order.", rich_help_panel=RUN)
    ] = 0,
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Continue the run in --logdir.", rich_help_panel=RUN),
    ] = False,
    sample: Annotated[
        int, typer.Option(help="Characters to write at the end (text).", rich_help_panel=RUN)
    ] = 300,
) -> None:
    """Train a recurrent network on a task and watch the gradient of every timestep.

    Examples:

    kbptt train digits --cell GRU --truncation 32 --logdir runs/gru

    kbptt train text mybook.txt --length 256 --truncation 64 --epochs 20

    kbptt train adding --length 200 --clip 1
    """
    if clip is not None:
        _checks.number("--clip", clip, above=0)
    limits.integer("sample", sample, least=0, shown="--sample")
    limits.integer("seed", tasks.base.check_seed(seed), least=0)
    tasks.registry.import_modules(imports or [])
    settings = {
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
    }
    config = _configuration(task, file, option or [], method, seed, settings)
    if clip is not None:
        clipping = methods.ref("kbptt.callbacks:ClipByGlobalNorm", threshold=clip)
        config["method"]["definition"]["callbacks"].append(clipping)
    if resume and logdir is None:
        raise ValueError("`--resume` needs `--logdir`, the directory of the run to continue.")
    with terminal.directory(logdir or _new_directory(Path("runs"), task)) as logdir:
        with quiet_start():
            from kbptt.cli import training
        with run_directory.locked(logdir):
            finite = training.Run(config, clip, logdir, resume, sample)()
    if not finite:
        terminal.print_error(
            "The loss is not finite: the training diverged. Try --clip 1 or a smaller "
            "--learning-rate."
        )
        raise typer.Exit(1)


def _configuration(
    task: str,
    file: Path | None,
    assignments: list[str],
    method: str,
    seed: int,
    settings: dict[str, Any],
) -> dict[str, Any]:
    """Returns the configuration of the one trial of a grid without axes."""
    of_task = tasks.options(task)

    def rename(name: str) -> str:
        """What a task calls as the model does, such as `units`, is the task's here."""
        option = name.removeprefix(f"{task}.")
        return f"task.{option}" if option in of_task else name

    settings, axes = options.read(settings, assignments, rename)
    for name, values in axes.items():
        if len(values) > 1:
            raise ValueError(
                f"Option {name.removeprefix('task.')!r} has {len(values)} values, and one run "
                "takes one; quote a value with a comma, or compare them: kbptt compare --set …"
            )
        if path_of(name) in _OF_COMPARE:
            raise ValueError(f"Option {name!r} is one of kbptt compare, not of kbptt train.")
    if file is not None:
        if "path" not in of_task:
            raise ValueError(f"The task '{task}' reads no file. Received: {str(file)!r}.")
        if "task.path" in axes:
            raise ValueError(twice(f"the file {str(file)!r}", "-o path"))
        axes["task.path"] = [file]
    if of_task.get("path") is inspect.Parameter.empty and "task.path" not in axes:
        raise ValueError(f"The task '{task}' reads your file: kbptt train {task} FILE.")
    sets_it = "recurrent_initializer" in methods.get(method).layer
    initializer = ("layer", "recurrent_initializer")
    if not sets_it and initializer not in map(path_of, [*settings, *axes]):
        settings["recurrent_initializer"] = INITIALIZER
    grid = Grid.make([task], [method], seeds=[seed], set=axes, **settings)
    return grid.cells()[0].config


def _new_directory(parent: Path, task: str) -> Path:
    """Returns the first of `parent/task-1`, `parent/task-2`, ... that does not exist."""
    number = 1
    while (parent / f"{task}-{number}").exists():
        number += 1
    return parent / f"{task}-{number}"
