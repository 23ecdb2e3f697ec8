"""The command `kbptt train`."""

import hashlib
from pathlib import Path
from typing import Annotated, Any

import typer

from kbptt import _checks, tasks
from kbptt._quiet import quiet_start
from kbptt.cli import terminal

MODEL, TRAINING, RUN = "Model", "Training", "Run"


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
            "-o",
            metavar="NAME=VALUE",
            help="An option of the task, such as permuted=true or sizes=[500,100,100]. Repeatable.",
        ),
    ] = None,
    imports: Annotated[
        list[str] | None,
        typer.Option("--import", metavar="MODULE", help="Module that registers tasks. Repeatable."),
    ] = None,
    length: Annotated[
        int | None, typer.Option(help="Timesteps of a sequence (short for -o length=...).")
    ] = None,
    cell: Annotated[
        str, typer.Option(help="LSTM, GRU or SimpleRNN.", rich_help_panel=MODEL)
    ] = "LSTM",
    units: Annotated[
        int, typer.Option(help="Width of a recurrent layer.", rich_help_panel=MODEL)
    ] = 64,
    layers: Annotated[int, typer.Option(help="Recurrent layers.", rich_help_panel=MODEL)] = 1,
    truncation: Annotated[
        str,
        typer.Option(
            help="Timesteps the gradient goes back, or 'full'.",
            rich_help_panel=MODEL,
            metavar="INTEGER|full",
        ),
    ] = "full",
    recurrent_initializer: Annotated[
        str,
        typer.Option(
            help="Initializer of the recurrent kernel: orthogonal, glorot_uniform, "
            "orthogonal_per_gate, identity, ...",
            rich_help_panel=MODEL,
        ),
    ] = "orthogonal",
    epochs: Annotated[
        int, typer.Option(help="Passes over the training data.", rich_help_panel=TRAINING)
    ] = 10,
    batch_size: Annotated[
        int, typer.Option(help="Sequences in a batch.", rich_help_panel=TRAINING)
    ] = 32,
    learning_rate: Annotated[
        float, typer.Option(help="Learning rate of Adam.", rich_help_panel=TRAINING)
    ] = 1e-3,
    clip: Annotated[
        float | None,
        typer.Option(
            help="Clip the gradient to this global norm.",
            show_default="no clipping",
            rich_help_panel=TRAINING,
        ),
    ] = None,
    logdir: Annotated[
        Path | None,
        typer.Option(
            help="Directory for TensorBoard files, checkpoints and the model.",
            show_default="runs/TASK-N",
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
    _checks.positive_integer("--epochs", epochs)
    _checks.positive_integer("--batch-size", batch_size)
    _checks.number("--learning-rate", learning_rate, above=0)
    if clip is not None:
        _checks.number("--clip", clip, above=0)
    if sample < 0:
        raise ValueError(f"Invalid value for `--sample`. Expected 0 or more. Received: {sample}.")
    model = {
        "cell": tasks.model.get_cell(cell),
        "units": _checks.positive_integer("--units", units),
        "layers": _checks.positive_integer("--layers", layers),
        "truncation": terminal.parse_truncation(truncation),
        "recurrent_initializer": recurrent_initializer,
        "seed": tasks.base.check_seed(seed),
    }
    tasks.registry.import_modules(imports or [])
    options = _task_options(task, file, option or [], length)
    chosen = tasks.get(task, **options)
    if resume and logdir is None:
        raise ValueError("`--resume` needs `--logdir`, the directory of the run to continue.")
    with terminal.directory(logdir or _new_directory(Path("runs"), task)) as logdir:
        with quiet_start():
            from kbptt.cli import training
        run = training.Run(
            task=chosen,
            model=model,
            optimizer={"learning_rate": learning_rate, "clip": clip, "batch_size": batch_size},
            options=_described(options),
            epochs=epochs,
            logdir=logdir,
            resume=resume,
            sample=sample,
        )
        finite = run()
    if not finite:
        typer.echo(
            "Error: The loss is not finite: the training diverged. Try --clip 1 or a smaller "
            "--learning-rate.",
            err=True,
        )
        raise typer.Exit(1)


def _task_options(
    task: str, file: Path | None, assignments: list[str], length: int | None
) -> dict[str, Any]:
    options = terminal.parse_options(assignments)
    if length is not None:
        options["length"] = length
    takes_file = "path" in tasks.options(task)
    if file is not None:
        if not takes_file:
            raise ValueError(f"The task '{task}' reads no file. Received: {str(file)!r}.")
        options["path"] = str(file)
    if task in ("text", "csv") and "path" not in options:
        raise ValueError(f"The task '{task}' reads your file: kbptt train {task} FILE.")
    return options


def _described(options: dict[str, Any]) -> dict[str, str]:
    """Returns the options as text, and a digest of the user's file, to recognize a run by."""
    described = {name: str(value) for name, value in options.items()}
    if "path" in options:
        content = Path(options["path"]).expanduser().read_bytes()
        described["file_sha256"] = hashlib.sha256(content).hexdigest()[:16]
    return described


def _new_directory(parent: Path, task: str) -> Path:
    """Returns the first of `parent/task-1`, `parent/task-2`, ... that does not exist."""
    number = 1
    while (parent / f"{task}-{number}").exists():
        number += 1
    return parent / f"{task}-{number}"
