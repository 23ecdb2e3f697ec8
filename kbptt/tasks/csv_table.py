"""Reading the columns of a CSV file as numbers, or refusing it with line and column."""

import contextlib
import csv
import io
import itertools
import math
import operator
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from kbptt.tasks.files import read_text

# Rows held as text at a time, so that a file takes little more memory than its numbers.
ROWS = 10_000
# From this many characters on, importing pandas takes less time than its reader saves.
PANDAS_FROM = 2_000_000
SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "vertical bars", " ": "spaces"}
MISSING = {"", "-", ".", "?", "na", "n/a", "nan", "null", "none"}
# What a spreadsheet or a script writes for a number and `float` does not read: separators of
# thousands, a decimal comma, percent and currency signs, parentheses for a minus, truth values.
FOREIGN_NUMBER = re.compile(
    r"""
    true | false |
    [(+\-\u2212]* [\s$\u00a2-\u00a5\u20a0-\u20cf]* [+\-\u2212]?
    (?: \d{1,3} (?: [,.'’\s]\d{3} )+ | \d+ | (?=[.,]\d) ) (?: [.,]\d* )? (?: e[+-]?\d+ )?
    [\s%‰$\u00a2-\u00a5\u20a0-\u20cf]* \)?
    """,
    re.VERBOSE | re.IGNORECASE,
)


class Column:
    """One column: its numbers, or where they are missing.

    Attributes:
        name: String.
        position: Integer, from 0.
        named: Boolean, whether the file names the column.
        values: Float64, `(rows,)`; NaN where there is no number.
        has_numbers: Boolean, whether any field is a finite number.
        fault: Row and text of the first field that is not a finite number, or `None`.
        foreign: Row and text of the first field that is a number in a notation of its own
            (`FOREIGN_NUMBER`), or `None`; also `None` if any field is anything else, a word or a
            date.
    """

    def __init__(self, name: str, position: int, named: bool = True):
        self.name, self.position, self.named = name, position, named
        self.has_numbers, self.has_words = False, False
        self.fault: tuple[int, str] | None = None
        self._foreign: tuple[int, str] | None = None
        self._rows, self._parts = 0, []

    @property
    def values(self) -> np.ndarray:
        return np.concatenate(self._parts)

    @property
    def foreign(self) -> tuple[int, str] | None:
        return None if self.has_words else self._foreign

    def add(self, fields: Sequence[str]) -> None:
        """Appends the fields of further rows."""
        try:
            part = np.array(list(map(float, fields)))
        except ValueError:
            part = np.array([float(field) if is_number(field) else math.nan for field in fields])
        finite = np.isfinite(part)
        if not finite.all():
            self.fault = self.fault or self._first(fields, np.flatnonzero(~finite))
            if not self.has_words:
                self._tell_words_from_foreign(fields, np.flatnonzero(~finite))
        self.add_numbers(part, finite)

    def add_numbers(self, part: np.ndarray, finite: np.ndarray | bool = True) -> None:
        """Appends rows that are float64 already."""
        self.has_numbers = self.has_numbers or bool(np.any(finite))
        self._parts.append(part)
        self._rows += len(part)

    def _tell_words_from_foreign(self, fields, rows):
        texts = [(row, fields[row].strip()) for row in rows]
        texts = [(row, text) for row, text in texts if text.lower() not in MISSING]
        self.has_words = not all(FOREIGN_NUMBER.fullmatch(text) for _, text in texts)
        if texts and self._foreign is None:
            self._foreign = self._first(fields, [texts[0][0]])

    def _first(self, fields, rows) -> tuple[int, str]:
        return self._rows + int(rows[0]), fields[rows[0]]


class Table:
    """A comma-separated file whose rows all have the same number of fields.

    Args:
        path: The file, UTF-8. A byte-order mark, any line endings and quoted fields are read; blank
            lines are refused except at the end.
        header: Boolean. Whether the first line names the columns. Otherwise they are called by
            their position, "1", "2", ... Defaults to `True`.

    Attributes:
        names: The columns' names, without spaces around them; "column 3" for an empty third one.

    Raises:
        ValueError: in one sentence, with the line.
    """

    def __init__(self, path: str | Path, header: bool = True):
        self.path, self.header = path, header
        text = read_text(path).replace("\r\n", "\n").replace("\r", "\n")
        # Blank lines at the end leave no gap; anywhere else they stand for a missing row.
        self._text = text.rstrip(" \t\n")
        first = self._take(self._reader(), 1)
        if not first or not any(field.strip() for field in first[0]):
            what = "the names of the columns" if header else "numbers"
            raise ValueError(f"{path}, line 1: expected {what}, found a blank line.")
        self.names = [str(i) for i in range(1, len(first[0]) + 1)]
        self._named = [not header or bool(name.strip()) for name in first[0]]
        if header:
            named = zip(first[0], self.names, strict=True)
            self.names = [name.strip() or f"column {position}" for name, position in named]

    def read(self, positions: Iterable[int] | None = None) -> list[Column]:
        """Returns the columns at these positions (all, for `None`), and checks every row."""
        positions = range(len(self.names)) if positions is None else positions
        columns = [Column(self.names[i], i, self._named[i]) for i in positions]
        if not self._read_with_pandas(columns):
            self._read_in_pieces(columns)
        return columns

    def line(self, row: int) -> int:
        """Returns the line on which row `row` (from 0) begins."""
        reader = self._reader()
        self._take(reader, row + self.header)
        return reader.line_num + 1

    def separator_hint(self) -> str:
        """Returns a sentence if the first line looks separated by something else than commas."""
        line = self._text.partition("\n")[0]
        other = max(SEPARATORS, key=line.count)
        if line.count(other) <= line.count(","):
            return ""
        return (
            f" The fields look separated by {SEPARATORS[other]}: save the file with commas between "
            "the fields and points in the decimals."
        )

    def _reader(self):
        return csv.reader(io.StringIO(self._text, newline=""), strict=True)

    def _take(self, reader, count: int) -> list[list[str]]:
        try:
            return list(itertools.islice(reader, count))
        except csv.Error as error:
            reason = "a quoted field has no end" if "end of data" in str(error) else error
            raise ValueError(f"{self.path}, line {self._faulty_line()}: {reason}.") from error

    def _faulty_line(self) -> int:
        """Returns the line on which the record begins that is no CSV."""
        reader, line = self._reader(), 1
        with contextlib.suppress(csv.Error):
            for _ in reader:
                line = reader.line_num + 1
        return line

    def _read_in_pieces(self, columns: Sequence[Column]) -> None:
        reader = self._reader()
        self._take(reader, int(self.header))
        rows = 0
        while piece := self._take(reader, ROWS):
            if set(map(len, piece)) != {len(self.names)}:
                self._refuse_widths(piece, rows)
            by_column = list(zip(*piece, strict=True))
            for column in columns:
                column.add(by_column[column.position])
            rows += len(piece)
        if not rows:
            raise ValueError(f"{self.path} has no rows below the line that names the columns.")

    def _refuse_widths(self, piece: Sequence[Sequence[str]], rows: int) -> None:
        index = next(i for i, fields in enumerate(piece) if len(fields) != len(self.names))
        line, found = self.line(rows + index), len(piece[index])
        if not found:
            raise ValueError(
                f"{self.path}, line {line}: expected a row, found a blank line. Delete the line if "
                "no row is missing there, or fill the gap."
            )
        raise ValueError(
            f"{self.path}, line {line}: {len(self.names)} columns expected, {found} found."
            + self.separator_hint()
        )

    def _read_with_pandas(self, columns: Sequence[Column]) -> bool:
        """Reads a large file of plain fields faster and with the same result, or returns `False`.

        Whatever is to be refused is left to `_read_in_pieces`.
        """
        body = self._text.partition("\n")[2] if self.header else self._text
        if len(body) < PANDAS_FROM or '"' in body or (pandas := _exact_pandas()) is None:
            return False
        # Lines of different lengths, which pandas would fill, cut, or take for an index.
        separators = {line.count(",") if line else -1 for line in body.split("\n")}
        if separators != {len(self.names) - 1}:
            return False
        frame = pandas.read_csv(
            io.StringIO(body),
            header=None,
            names=range(len(self.names)),
            usecols=[column.position for column in columns],
            quoting=csv.QUOTE_NONE,
            na_filter=False,
            low_memory=False,
        )
        parsed = [frame[column.position] for column in columns]
        text = [isinstance(fields.dtype, pandas.StringDtype) for fields in parsed]
        for fields in itertools.compress(parsed, map(operator.not_, text)):
            if fields.dtype.kind not in "iuf" or not np.isfinite(fields).all():
                return False
        for column, fields, is_text in zip(columns, parsed, text, strict=True):
            if is_text:
                column.add(fields.tolist())
            else:
                column.add_numbers(fields.to_numpy(np.float64))
        return True


def _exact_pandas():
    """Returns pandas if it is installed and reads every number as `float` does, or `None`."""
    try:
        import pandas
    except ImportError:
        return None
    return pandas if tuple(map(int, pandas.__version__.split(".")[:2])) >= (3, 1) else None


def is_number(field: str) -> bool:
    """Returns whether `float` reads the field."""
    try:
        float(field)
    except ValueError:
        return False
    return True
