"""The Typer application. Nothing here, and nothing `--help` needs, imports Keras or TensorFlow."""

import os
import sys

import typer
import typer.core

import kbptt
from kbptt.cli import compare, train

# Of an unknown option, a value of another type, …; of such errors Typer names this one alone.
UsageError = typer.BadParameter.__base__


class Commands(typer.core.TyperGroup):
    """Ends every command with an exit code that says what happened.

    A `ValueError`, which is how kbptt refuses an argument, and what Typer refuses become a message
    on stderr and exit code 2; a file that cannot be written (a full disk) one sentence and 1;
    Ctrl-C becomes 130.
    """

    def invoke(self, ctx):
        try:
            return super().invoke(ctx)
        except UsageError as error:
            typer.echo(f"Error: {error.format_message()}", err=True)
            raise typer.Exit(2) from error
        except ValueError as error:
            lines = [line.rstrip() for line in str(error).splitlines() if line.strip()]
            typer.echo("Error: " + "\n".join(lines), err=True)
            raise typer.Exit(2) from error
        except BrokenPipeError:
            raise
        except OSError as error:
            typer.echo(f"Error: {error}", err=True)
            raise typer.Exit(1) from error
        except KeyboardInterrupt as error:
            typer.echo("Interrupted.", err=True)
            raise typer.Exit(130) from error


app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Train recurrent networks with truncated backpropagation through time, see the gradient "
    "of every timestep, and compare the methods that keep it healthy.",
)
app.command("train")(train.train)
app.command("compare")(compare.compare)
app.command("report")(compare.report)


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
    # TensorFlow's start-up messages are not news to the user of a command.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


def main() -> None:
    """Runs the command line; the entry point of the command `kbptt`."""
    for stream in (sys.stdout, sys.stderr):
        # What a terminal cannot show, ∂ or a box's edge, is no reason to end there.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    try:
        app(prog_name="kbptt")
    except KeyboardInterrupt:
        typer.echo("Interrupted.", err=True)
        sys.exit(130)
