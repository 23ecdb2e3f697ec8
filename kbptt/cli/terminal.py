"""What all commands share: messages, progress, Ctrl-C, warnings and the output directory."""

import atexit
import contextlib
import logging
import os
import shlex
import signal
import sys
import textwrap
import threading
import warnings
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import typer

from kbptt.ablation import text
from kbptt.ablation.text import visible

# A message must fit on a small screen.
LINES, COLUMNS = 22, 80
_LONGEST = LINES * COLUMNS
_LONGEST_WORD = 160
# What the command was given, to say how to go on after Ctrl-C.
arguments: list[str] = []
_held = False  # whether the first Ctrl-C waits


def readable(message: str) -> str:
    """Returns `message` fit for a terminal: at most one screen, without control characters.

    Messages echo the user's input, so very long words, and the text as a whole, are shortened in
    the middle, and escape sequences are spelled out.
    """
    if len(message) > 2 * _LONGEST:
        message = f"{message[:_LONGEST]}…{message[-_LONGEST:]}"
    words = [_shortened(word, _LONGEST_WORD) for word in visible(message).split(" ")]
    lines = [line.rstrip() for line in " ".join(words).splitlines() if line.strip()]
    if sum(len(line) // COLUMNS + 1 for line in lines) <= LINES:
        return "\n".join(lines)
    wrapped = [part for line in lines for part in textwrap.wrap(line, COLUMNS) or [""]]
    return "\n".join([*wrapped[: LINES - 6], "…", *wrapped[-4:]])


def _shortened(word: str, length: int) -> str:
    return word if len(word) <= length else f"{word[: length - 20]}…{word[-19:]}"


def print_error(message: Any) -> None:
    """Prints an error to stderr."""
    typer.echo(readable(f"Error: {message}"), err=True)


@contextlib.contextmanager
def saying_how_to_continue(begun: Path, added: Sequence[str] | None = ()) -> Iterator[None]:
    """After Ctrl-C, prints the command that goes on with a run.

    Args:
        begun: A file that is there once the run has begun.
        added: Options to add to the command that was given. None if the run cannot go on.
    """
    try:
        yield
    except BaseException as error:
        stopped = isinstance(error, KeyboardInterrupt) or interrupted()
        if added is not None and stopped and begun.exists():
            say(f"Continue with: {shlex.join(['kbptt', *arguments, *added])}")
        raise


@contextlib.contextmanager
def waiting(for_what: str, in_a_terminal_only: bool = False) -> Iterator[None]:
    """Shows what is being waited for: a spinner in a terminal, a line elsewhere.

    Args:
        for_what: The words, "Building the model".
        in_a_terminal_only: Boolean, whether nothing is shown elsewhere. Defaults to `False`.
    """
    shown = console()
    if shown.is_terminal:
        with shown.status(for_what):
            yield
        return
    if not in_a_terminal_only:
        say(f"{for_what} …")
    yield


def say(line: str) -> None:
    """Prints a line as it is, so that a path or a command in it can be copied."""
    console().print(visible(line), markup=False, soft_wrap=True)


def console() -> Any:
    """Standard output, for text that is printed as it is."""
    import rich.console

    return rich.console.Console(highlight=False)


def print_text(paragraphs: str) -> None:
    """Prints paragraphs, wrapped in a terminal."""
    shown = console()
    shown.print(visible(paragraphs), markup=False, soft_wrap=not shown.is_terminal)


def print_columns(rows: Iterable[Sequence[str]]) -> None:
    """Prints names and texts: see `kbptt.ablation.text.print_columns`."""
    text.print_columns(console(), rows)


@contextlib.contextmanager
def sentences_for_warnings() -> Iterator[None]:
    """A scope in which warnings are printed as sentences, without the code that raised them.

    Each sentence once: a command makes a task to check its options, and again to train on it.
    """
    said = set()

    def show(message, category, filename, lineno, file=None, line=None):
        sentence = readable(f"Warning: {message}")
        if sentence not in said:
            said.add(sentence)
            typer.echo(sentence, err=True)

    class Handler(logging.Handler):
        def emit(self, record):
            typer.echo(readable(f"Warning: {record.getMessage()}"), err=True)

    # Only kbptt's: what the libraries below log means nothing to the user of a command.
    logger, handler = logging.getLogger("kbptt"), Handler(logging.WARNING)
    quiet = {name: logging.getLogger(name) for name in ("tensorflow", "absl", "distributed")}
    levels = {name: one.level for name, one in quiet.items()}
    propagate, logger.propagate = logger.propagate, False
    logger.addHandler(handler)
    for one in quiet.values():
        one.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.showwarning = show
            yield
    finally:
        logger.removeHandler(handler)
        logger.propagate = propagate
        for name, one in quiet.items():
            one.setLevel(levels[name])


def handle_interrupts() -> None:
    """Makes the first Ctrl-C a `KeyboardInterrupt`; any later one ends the process at once.

    Cleaning up after the first one may take long.
    """
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, _interrupt)
        # Registered first, so it runs last: from then on Python would let Ctrl-C kill the process
        # and change its exit code.
        atexit.register(signal.signal, signal.SIGINT, signal.SIG_IGN)


def interrupted() -> bool:
    """Whether Ctrl-C was pressed; libraries may turn it into any exception."""
    return signal.getsignal(signal.SIGINT) is _end


@contextlib.contextmanager
def interrupts_held() -> Iterator[None]:
    """A scope in which the first Ctrl-C waits: it is raised at the end."""
    global _held
    _held = True
    try:
        yield
    finally:
        _held = False
    if interrupted():
        raise KeyboardInterrupt


def _interrupt(*_: Any) -> None:
    signal.signal(signal.SIGINT, _end)
    if not _held:
        raise KeyboardInterrupt


def _end(*_: Any) -> None:
    if sys.stdout is not None and sys.stdout.isatty():
        os.write(1, b"\x1b[?25h")  # a progress bar hides the cursor
    os.write(2, b"Interrupted.\n")
    os._exit(130)


@contextlib.contextmanager
def directory(path: Path) -> Iterator[Path]:
    """Yields a directory to write to, or raises `ValueError`; removes a new one left empty."""
    import tempfile

    try:
        new = not path.exists()
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise ValueError(f"Cannot write to the directory {path}: {error.strerror}.") from error
    try:
        yield path
    finally:
        if new:
            with contextlib.suppress(OSError):
                path.rmdir()
