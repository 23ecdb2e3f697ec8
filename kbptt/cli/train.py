"""The command `kbptt train`: one trial of a comparison, watched in the terminal."""

import inspect
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kbptt._quiet import quiet_start
from kbptt.ablation import limits
from kbptt.ablation.options import path_of, twice
from kbptt.cli import completion, options, terminal

if TYPE_CHECKING:
    from kbptt.ablation.grid import Grid

RUN = "Run"
# Where one run differs from the trials of a comparison, unless the user says otherwise.
DEFAULTS = {"recurrent_initializer": "orthogonal", "checkpoint": "last", "stream": "auto"}
THREADS = ("training", "threads")

Task = Annotated[
    str,
    typer.Argument(
        metavar="TASK",
        help="Task to train on: see `kbptt tasks`.",
        autocompletion=completion.task,
    ),
]
Lags = Annotated[
    int | None,
    typer.Option(
        help="Measure, log and print the gradient of a single loss at this many lags; 0 for none. "
        "Default: measure some if every timestep has a loss, and print only their reach.",
        rich_help_panel=RUN,
    ),
]
Health = Annotated[bool, typer.Option("--health", help=options.HEALTH, rich_help_panel=RUN)]


@options.command(**DEFAULTS | {"stream": "streams, if the task has them", "threads": "all cores"})
def train(
    task: Task,
    file: Annotated[
        Path | None,
        typer.Argument(metavar="FILE", help="Your file, for text, csv and mnist."),
    ] = None,
    *,
    method: Annotated[
        str,
        typer.Option(
            "--method",
            "--methods",
            help="Methods, joined by '+': orthogonal+clip. See `kbptt methods`.",
            autocompletion=completion.method,
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
        int, typer.Option(help="Seed for weights, data and order.", rich_help_panel=RUN)
    ] = 0,
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Continue the run in --logdir.", rich_help_panel=RUN),
    ] = False,
    lags: Lags = None,
    health: Health = False,
    sample: Annotated[
        int, typer.Option(help="Characters to generate at the end (text).", rich_help_panel=RUN)
    ] = 300,
) -> None:
    """Train a recurrent network on a task and watch the gradient of every timestep.

    Examples:

    kbptt train digits --cell GRU --truncation 32 --logdir runs/gru

    kbptt train text mybook.txt --length 256 --truncation 64 --epochs 20

    kbptt train adding --length 200 --clip 1
    """
    with terminal.waiting("Reading the options", in_a_terminal_only=True):
        from kbptt.cli import run_directory

        _check(given, seed, sample, lags)
        grid, threads = configuration(task, file, given, method, seed)
        config = grid.trials()[0].config
        _check_resume(config, resume, logdir)
        again_with = [] if resume else ["--resume"]
        if logdir is None:
            logdir = _new_directory(Path("runs"), task)
            again_with += ["--logdir", str(logdir)]
    with terminal.directory(logdir), run_directory.locked(logdir):
        known = run_directory.describe(config)
        again = run_directory.check_configuration(logdir / "run.json", known, resume)
        if resume and not again:
            terminal.print_text(f"There is no run to resume in {logdir}: starting a new one.")
        _announce(grid, logdir)
        go_on = again_with if config["training"]["checkpoint"] == "last" else None
        with terminal.saying_how_to_continue(logdir / "run.json", go_on):
            with terminal.waiting("Loading TensorFlow"), quiet_start():
                from kbptt.ablation.trial import set_threads
                from kbptt.cli import training
            if threads is not None:
                set_threads(threads)
            finite = training.run(config, logdir, again, sample, lags, health)
    if not finite:
        terminal.print_error(
            "The loss is not finite: training diverged. Try --clip 1 or a smaller --learning-rate."
        )
        raise typer.Exit(1)


def _check(given: options.Given, seed: int, sample: int, lags: int | None) -> None:
    from kbptt.tasks import base, registry

    limits.integer("sample", sample, least=0, shown="--sample")
    limits.integer("seed", base.check_seed(seed), least=0)
    if lags is not None and limits.integer("lags", lags, least=0, shown="--lags") == 1:
        raise ValueError(
            "Invalid value for argument `--lags`. Expected 2 or more, since gradients are "
            "compared between lags, or 0 for none. Received: --lags=1."
        )
    registry.import_modules(given.imports)


def _check_resume(config: dict[str, Any], resume: bool, logdir: Path | None) -> None:
    if resume and logdir is None:
        raise ValueError("`--resume` needs `--logdir`, the directory of the run to continue.")
    if resume and config["training"]["checkpoint"] == "best":
        raise ValueError(
            "`--resume` cannot be combined with `--checkpoint best`: a run saves only the weights "
            "of its last epoch. Start a new one, in a different --logdir."
        )


def _announce(grid: "Grid", logdir: Path) -> None:
    """Prints what is about to be trained, on what and where."""
    from kbptt.ablation import describing
    from kbptt.cli import run_directory

    config = grid.trials()[0].config
    terminal.print_columns([*describing.run(config), ("log directory", str(logdir))])
    for note in grid.notes():
        terminal.print_text(note.partition(": ")[2])
    finished, _ = run_directory.newest_checkpoint(logdir)
    if finished >= config["training"]["epochs"]:
        terminal.print_text(
            f"The run already has {finished} epochs, so there is nothing to train. To continue, "
            f"pass --epochs {finished + 1} or more."
        )


def configuration(
    task: str, file: Path | None, given: options.Given, method: str, seed: int
) -> tuple["Grid", int | None]:
    """Returns a grid of one trial.

    And the number of threads if one was given: one run, unlike a trial, uses all cores.
    """
    from kbptt import methods, tasks
    from kbptt.ablation import early
    from kbptt.ablation.grid import Grid

    of_task = tasks.options(task)

    def rename(name: str) -> str:
        """An option of the task that is also one of the model, such as `units`, is the task's."""
        option = name.removeprefix(f"{task}.")
        return f"task.{option}" if option in of_task else name

    settings, axes = given.read(rename)
    for name, values in axes.items():
        if len(values) > 1:
            raise ValueError(
                f"Option {name.removeprefix('task.')!r} has {len(values)} values, but a run takes "
                "one. Quote a value with a comma, or compare them: kbptt compare --set …"
            )
    if file is not None:
        if "path" not in of_task:
            raise ValueError(f"The task '{task}' does not read a file. Received: {str(file)!r}.")
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
    early.check(config)
    return grid, config["training"]["threads"] if THREADS in chosen else None


def _new_directory(parent: Path, task: str) -> Path:
    """Returns the first of `parent/task-1`, `parent/task-2`, ... that does not exist."""
    number = 1
    while (parent / f"{task}-{number}").exists():
        number += 1
    return parent / f"{task}-{number}"
