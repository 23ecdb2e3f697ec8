"""The command `kbptt train`: one trial of a comparison, watched in the terminal."""

import inspect
from pathlib import Path
from typing import Annotated, Any

import typer

from kbptt import methods, tasks
from kbptt._quiet import quiet_start
from kbptt.ablation import limits
from kbptt.ablation.grid import Grid
from kbptt.ablation.options import path_of, twice
from kbptt.cli import options, run_directory, terminal
from kbptt.tasks import base, registry

RUN = "Run"
# Where one run differs from the trials of a comparison, unless the user says otherwise.
DEFAULTS = {"recurrent_initializer": "orthogonal", "checkpoint": "last", "stream": "auto"}
THREADS = ("training", "threads")


@options.command(**DEFAULTS | {"stream": "streams, if the task has them", "threads": "all cores"})
def train(
    task: Annotated[
        str, typer.Argument(metavar="TASK", help=f"One of: {', '.join(tasks.names())}.")
    ],
    file: Annotated[
        Path | None,
        typer.Argument(metavar="[FILE]", help="The user's file, for text, csv and mnist."),
    ] = None,
    *,
    method: Annotated[
        str,
        typer.Option(
            "--method",
            "--methods",
            help="Methods of kbptt compare, joined by '+': orthogonal+clip.",
        ),
    ] = "baseline",
    given: options.Given,
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
    limits.integer("sample", sample, least=0, shown="--sample")
    limits.integer("seed", base.check_seed(seed), least=0)
    registry.import_modules(given.imports)
    config, threads = configuration(task, file, given, method, seed)
    if resume and logdir is None:
        raise ValueError("`--resume` needs `--logdir`, the directory of the run to continue.")
    if resume and config["training"]["checkpoint"] == "best":
        raise ValueError(
            "`--resume` cannot be combined with `--checkpoint best`: a run keeps the weights of "
            "its last epoch only."
        )
    with terminal.directory(logdir or _new_directory(Path("runs"), task)) as logdir:
        with quiet_start():
            from kbptt.ablation.trial import set_threads
            from kbptt.cli import training
        if threads is not None:
            set_threads(threads)
        with run_directory.locked(logdir):
            finite = training.run(config, logdir, resume, sample)
    if not finite:
        terminal.print_error(
            "The loss is not finite: the training diverged. Try --clip 1 or a smaller "
            "--learning-rate."
        )
        raise typer.Exit(1)


def configuration(
    task: str, file: Path | None, given: options.Given, method: str, seed: int
) -> tuple[dict[str, Any], int | None]:
    """Returns the configuration of the one trial of a grid without axes.

    And the number of threads if one was given: one run, unlike a trial, uses all cores.
    """
    of_task = tasks.options(task)

    def rename(name: str) -> str:
        """An option of the task that is also one of the model, such as `units`, is the task's."""
        option = name.removeprefix(f"{task}.")
        return f"task.{option}" if option in of_task else name

    settings, axes = given.read(rename)
    for name, values in axes.items():
        if len(values) > 1:
            raise ValueError(
                f"Option {name.removeprefix('task.')!r} has {len(values)} values, and one run "
                "takes one; quote a value with a comma, or compare them: kbptt compare --set …"
            )
    if file is not None:
        if "path" not in of_task:
            raise ValueError(f"The task '{task}' reads no file. Received: {str(file)!r}.")
        if "task.path" in axes:
            raise ValueError(twice(f"the file {str(file)!r}", "-o path"))
        axes["task.path"] = [file]
    if of_task.get("path") is inspect.Parameter.empty and "task.path" not in axes:
        raise ValueError(f"The task '{task}' reads your file: kbptt train {task} FILE.")
    chosen = {*map(path_of, [*settings, *axes])}
    for name, default in DEFAULTS.items():
        if path_of(name) not in chosen and name not in methods.get(method).layer:
            settings[name] = default
    grid = Grid.make([task], [method], seeds=[seed], set=axes, **settings)
    config = grid.trials()[0].config
    return config, config["training"]["threads"] if THREADS in chosen else None


def _new_directory(parent: Path, task: str) -> Path:
    """Returns the first of `parent/task-1`, `parent/task-2`, ... that does not exist."""
    number = 1
    while (parent / f"{task}-{number}").exists():
        number += 1
    return parent / f"{task}-{number}"
