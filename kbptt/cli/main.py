"""The Typer application. Nothing here, and nothing `--help` needs, imports Keras or TensorFlow."""

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import Any

import typer
import typer.core

import kbptt
from kbptt._extras import MissingExtra, optional_imports
from kbptt.cli import catalogue, check, compare, terminal, train

# Base class of the errors for unknown options, wrong types, …, for which Typer has no name.
UsageError = typer.BadParameter.__base__
# With this environment variable an unexpected error keeps its traceback.
TRACEBACK = "KBPTT_TRACEBACK"


@contextlib.contextmanager
def exit_codes() -> Iterator[None]:
    """Ends a command with a message and an exit code that describe what happened.

    A `ValueError`, which is how kbptt refuses an argument, and what Typer refuses get exit code 2;
    Ctrl-C gets 130; anything else, such as a full disk, gets 1.
    """
    try:
        with optional_imports():
            yield
    except (typer.Exit, typer.Abort, BrokenPipeError):
        raise
    except (Exception, KeyboardInterrupt) as error:
        if isinstance(error, KeyboardInterrupt) or terminal.interrupted():
            code = 130
            typer.echo("Interrupted.", err=True)
        else:
            code = _explain(error)
        raise typer.Exit(code) from error


def _explain(error: Exception) -> int:
    """Prints the error and returns the exit code."""
    if isinstance(error, UsageError):
        if type(error).__name__ == "NoArgsIsHelpError":
            raise error
        terminal.print_error(error.format_message())
        return 2
    if isinstance(error, ValueError):
        terminal.print_error(error)
        return 2
    if isinstance(error, MemoryError):
        terminal.print_error(f"Not enough memory. {error}")
    elif isinstance(error, OSError | MissingExtra):
        terminal.print_error(error)
    elif os.environ.get(TRACEBACK):
        raise error
    else:
        from kbptt.ablation.errors import TrialError

        where = TrialError.describing(error)
        terminal.print_error(f"{where}\nSet {TRACEBACK}=1 to see the traceback.")
    return 1


class Commands(typer.core.TyperGroup):
    """Ends every command with the exit codes of `exit_codes`, its warnings as sentences."""

    def make_context(self, info_name: Any, args: Any, *others: Any, **kwargs: Any) -> Any:
        terminal.arguments[:] = args
        with exit_codes():
            return super().make_context(info_name, args, *others, **kwargs)

    def invoke(self, ctx: Any) -> Any:
        with terminal.sentences_for_warnings(), exit_codes():
            return super().invoke(ctx)


app: typer.Typer = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Train recurrent networks with truncated backpropagation through time, see the gradient "
    "of every timestep, and compare the methods that keep it healthy.",
)
# In the order of the help.
COMMANDS = {
    "train": train.train,
    "compare": compare.compare,
    "report": compare.report,
    "check": check.check,
    "tasks": catalogue.tasks,
    "methods": catalogue.methods,
}
for _name, _command in COMMANDS.items():
    app.command(_name)(_command)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"kbptt {kbptt.__version__}")
        raise typer.Exit()


@app.callback()
def _options(
    version: bool = typer.Option(
        False, "--version", callback=_print_version, is_eager=True, help="Print the version."
    ),
) -> None:
    # TensorFlow's start-up messages mean nothing to the user of a command.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


def main() -> None:
    """Runs the command line; the entry point of the command `kbptt`."""
    for stream in (sys.stdout, sys.stderr):
        # A character that the terminal cannot show, such as ∂, must not end the command.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    terminal.handle_interrupts()
    try:
        app(prog_name="kbptt")
    except KeyboardInterrupt:
        typer.echo("Interrupted.", err=True)
        sys.exit(130)
