"""Makes text from outside (exceptions, names, option values) safe to show, and shows it."""

import unicodedata
from collections.abc import Iterable, Sequence
from typing import Any


def visible(text: str) -> str:
    """`text` with every character that is not displayed as such replaced by its Python escape.

    Control characters (ESC starts terminal commands), bidirectional and other format characters
    (which reorder or hide their surroundings), surrogates and unassigned code points become escapes
    such as `\\x1b` and `\\u202e`. Line feeds and spaces of any width stay.
    """
    if text.isprintable():
        return text
    return "".join(c if _shows(c) else c.encode("unicode_escape").decode("ascii") for c in text)


def one_line(text: str) -> str:
    """`visible(text)` with every run of white space as one space."""
    return visible(" ".join(text.split()))


def shown(value: Any, limit: int = 80) -> str:
    """`repr(value)` in one line of at most `limit` characters; its type if that fails."""
    try:
        text = one_line(repr(value))
    except Exception:
        return f"an object of type {type(value).__name__}"
    return text if len(text) <= limit else text[: limit - 3] + "..."


def described(error: BaseException, limit: int = 2000) -> str:
    """Type and text of an exception in one line."""
    try:
        text = one_line(str(error))
    except Exception:  # `__str__` may be the user's
        text = "(its text cannot be read)"
    name = type(error).__name__
    return f"{name}: {text}"[:limit] if text else name


def count(number: int, noun: str) -> str:
    """A number with its noun, which takes a plural "s": "1 trial", "2 trials"."""
    return f"{number} {noun}" + ("" if number == 1 else "s")


def duration(seconds: float) -> str:
    """Seconds as one would say it: "2 h 5 min", "1 min 30 s", "0.5 s", to hundredths at most."""
    if seconds < 1:
        return f"{max(0, round(seconds, 2)):g} s"
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {seconds} s" if minutes else f"{seconds} s"


def _shows(character: str) -> bool:
    return character.isprintable() or character == "\n" or unicodedata.category(character) == "Zs"


def console(**options: Any) -> Any:
    """Standard output; in a notebook plain lines, of each of which rich would make an HTML output.

    Args:
        **options: Arguments of `rich.console.Console`.
    """
    from rich.console import Console

    # A notebook's standard output claims to be a terminal, and shows what would move a cursor.
    plain = {"force_jupyter": False, "force_terminal": False} if in_a_notebook() else {}
    return Console(**plain, **options)


def in_a_notebook() -> bool:
    """Whether the value of the last line is shown, a report as HTML."""
    from rich.console import Console

    return Console().is_jupyter


def literal(text: str) -> Any:
    """Text of rich that shows `text` as it is: without markup and a user's escape sequences."""
    from rich.text import Text

    return Text(visible(text))


def print_table(console: Any, header: Sequence[str], lines: Iterable[Sequence[str]]) -> None:
    """Prints a table of a report; the names of tasks and methods are folded, numbers are not.

    Args:
        console: A console of rich.
        header: The names of the columns.
        lines: Cells, a text for each column.
    """
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD)
    for name in header:
        if name in ("task", "method"):
            table.add_column(literal(name), overflow="fold")
        else:
            table.add_column(literal(name), justify="right", no_wrap=True)
    for line in lines:
        table.add_row(*map(literal, line))
    console.print(table)


def print_columns(console: Any, rows: Iterable[Sequence[str]]) -> None:
    """Prints names and texts, wrapped beside them in a terminal, elsewhere a line for each row.

    Args:
        console: A console of rich.
        rows: Texts of each row, the same number in all; the first one is a name.
    """
    from rich.table import Table
    from rich.text import Text

    lines = [tuple(map(visible, row)) for row in rows]
    if not console.is_terminal:
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        for row in lines:
            padded = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
            console.print(Text("  ".join(padded).rstrip()), soft_wrap=True)
        return
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    for first, *others in lines:
        table.add_row(Text(first, "bold", no_wrap=True), *map(Text, others))
    console.print(table)
