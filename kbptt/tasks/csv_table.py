"""Reads the columns of a CSV file as numbers, or raises an error with line and column."""

import codecs
import contextlib
import csv
import functools
import io
import itertools
import math
import operator
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from kbptt.tasks.files import read_text

# Rows held as text at a time, so that a file needs little more memory than its numbers.
ROWS = 10_000
# From this many characters on, pandas saves more time than its import takes.
PANDAS_FROM = 2_000_000
SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "vertical bars", " ": "spaces"}
# Lines at the end of a file from which its separator is guessed.
HINT_ROWS = 20
MISSING = {"", "-", ".", "?", "na", "n/a", "nan", "null", "none"}
# Numbers as spreadsheets and scripts write them and `float` does not read: thousands separators,
# a decimal comma, percent and currency signs, parentheses for a minus, truth values.
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
    """One column: its numbers, and the first fields that are none.

    Attributes:
        name: String.
        position: Integer, from 0.
        named: Boolean, whether the file names the column.
        values: Float64, `(rows,)`; NaN where there is no number.
        has_numbers: Boolean, whether any field is a finite number.
        fault: Row and text of the first field that is not a finite number, or `None`.
        foreign: Row and text of the first field that is a number in a foreign notation
            (`FOREIGN_NUMBER`), or `None`; also `None` if any field is something else, a word or a
            date.
    """

    def __init__(self, name: str, position: int, named: bool = True):
        self.name = name
        self.position = position
        self.named = named
        self.has_numbers: bool = False
        self.fault: tuple[int, str] | None = None
        self._has_words = False
        self._foreign: tuple[int, str] | None = None
        self._rows, self._parts = 0, []

    @property
    def values(self) -> np.ndarray:
        return np.concatenate(self._parts)

    @property
    def foreign(self) -> tuple[int, str] | None:
        return None if self._has_words else self._foreign

    def add(self, fields: Sequence[str]) -> None:
        """Appends the fields of further rows."""
        try:
            part = np.fromiter(map(float, fields), np.float64, len(fields))
        except ValueError:
            part = np.array([float(field) if is_number(field) else math.nan for field in fields])
        finite = np.isfinite(part)
        if not finite.all():
            self._add_faults([(row, fields[row]) for row in np.flatnonzero(~finite).tolist()])
        self.add_numbers(part, finite)

    def add_numbers(self, part: np.ndarray, finite: np.ndarray | bool = True) -> None:
        """Appends rows that are already float64."""
        self.has_numbers = self.has_numbers or bool(np.any(finite))
        self._parts.append(part)
        self._rows += len(part)

    def _add_faults(self, faults: Sequence[tuple[int, str]]) -> None:
        row, field = faults[0]
        self.fault = self.fault or (self._rows + row, field)
        for row, field in faults:
            if self._has_words:
                return
            if is_foreign_number(field):
                self._foreign = self._foreign or (self._rows + row, field)
            elif not is_missing(field):
                self._has_words = True


class Table:
    """A comma-separated file whose rows all have the same number of fields.

    Args:
        path: The file, UTF-8. A byte-order mark, any line endings and quoted fields are allowed;
            blank lines only at the end.
        header: Boolean. Whether the first line names the columns. Otherwise columns are named by
            position, "1", "2", ... Defaults to `True`.

    Attributes:
        names: The columns' names, without spaces around them; "column 3" for an empty third one.

    Raises:
        ValueError: in one sentence, with the line.
    """

    def __init__(self, path: str | Path, header: bool = True):
        self.path = path
        self.header = header
        text = read_text(path)
        if "\r" in text:
            text = text.replace("\r\n", "\n").replace("\r", "\n")
        # Blank lines at the end are harmless; anywhere else they mean a missing row.
        self._text = text.rstrip(" \t\n")
        line = self._text.partition("\n")[0]
        whole = line.count('"') % 2 == 0  # no quoted field continues in the next line
        first = self._take(_reader(line if whole else self._text), 1)
        if not first or not any(field.strip() for field in first[0]):
            what = "the names of the columns" if header else "numbers"
            raise ValueError(f"{path}, line 1: expected {what}, found a blank line.")
        self.names: list[str] = [str(i) for i in range(1, len(first[0]) + 1)]
        self._named = [not header or bool(name.strip()) for name in first[0]]
        if header:
            named = zip(first[0], self.names, strict=True)
            self.names = [name.strip() or f"column {position}" for name, position in named]

    def read(self, positions: Iterable[int] | None = None) -> list[Column]:
        """Returns the columns at these positions (default: all), and checks every row."""
        positions = range(len(self.names)) if positions is None else positions
        columns = [Column(self.names[i], i, self._named[i]) for i in positions]
        plain = self._plain_rows()
        if plain is None:
            self._read_records(columns)
        elif len(plain[0]) < PANDAS_FROM or not self._read_with_pandas(columns, plain[0]):
            self._split(columns, *plain)
        return columns

    def line(self, row: int) -> int:
        """Returns the line on which row `row` (from 0) begins."""
        reader = _reader(self._text)
        self._take(reader, row + self.header)
        return reader.line_num + 1

    def separator_hint(self) -> str:
        """Returns a sentence if the data seem to be separated by something other than commas.

        Judged by the last lines: the first one may contain words, with commas in them.
        """
        text = self._text if self.header else "\n" + self._text
        lines = text.rsplit("\n", HINT_ROWS)[1:]
        rest = functools.partial(_rest, lines)
        other = min(",;\t|", key=rest)
        counts = {len(line.split()) for line in (self._text.partition("\n")[0], *lines)}
        if other == "," and len(counts) == 1:  # last, because fields may contain spaces
            other = min(", ", key=rest)
        if other == ",":
            return ""
        return (
            f" The fields seem to be separated by {SEPARATORS[other]}: save the file with commas "
            "between fields and decimal points."
        )

    def _take(self, reader, count: int) -> list[list[str]]:
        try:
            return list(itertools.islice(reader, count))
        except csv.Error as error:
            reason = "a quoted field has no end" if "end of data" in str(error) else error
            raise ValueError(f"{self.path}, line {self._faulty_line()}: {reason}.") from error

    def _faulty_line(self) -> int:
        """Returns the line on which the malformed record begins."""
        reader, line = _reader(self._text), 1
        with contextlib.suppress(csv.Error):
            for _ in reader:
                line = reader.line_num + 1
        return line

    def _plain_rows(self) -> tuple[bytes, np.ndarray] | None:
        """Returns the rows as bytes and the end of each line, or `None` if they are not plain.

        Rows are plain if nothing is quoted and every line has as many fields as there are columns,
        so that they can be split at commas and line breaks. `_read_records` reads all others, or
        refuses them.
        """
        body = (self._text.partition("\n")[2] if self.header else self._text).encode()
        if not body or b'"' in body:
            return None
        characters = np.frombuffer(body, np.uint8)
        ends = np.append(np.flatnonzero(characters == ord("\n")), len(body))
        commas = np.flatnonzero(characters == ord(","))
        lengths = np.diff(ends, prepend=-1) - 1
        if lengths.min() == 0 or lengths.max() > csv.field_size_limit():
            return None
        if len(commas) != len(ends) * (len(self.names) - 1):
            return None
        commas = commas.reshape(len(ends), -1)
        if (commas[:, -1:] > ends[:, None]).any() or (commas[1:, :1] < ends[:-1, None]).any():
            return None
        return body, ends

    def _split(self, columns: Sequence[Column], body: bytes, ends: np.ndarray) -> None:
        start = 0
        for stop in dict.fromkeys([*ends[ROWS - 1 :: ROWS].tolist(), len(body)]):
            fields = body[start:stop].decode().replace("\n", ",").split(",")
            for column in columns:
                column.add(fields[column.position :: len(self.names)])
            start = stop + 1

    def _read_records(self, columns: Sequence[Column]) -> None:
        reader = _reader(self._text)
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
            raise ValueError(f"{self.path} has no rows below the column names.")

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

    def _read_with_pandas(self, columns: Sequence[Column], body: bytes) -> bool:
        """Reads plain rows faster, with the same result, or returns `False`."""
        if (pandas := _exact_pandas()) is None:
            return False
        if body.startswith(codecs.BOM_UTF8):  # part of the first field; pandas would drop it
            return False
        frame = pandas.read_csv(
            io.BytesIO(body),
            header=None,
            names=range(len(self.names)),
            usecols=[column.position for column in columns],
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


def _reader(text: str):
    return csv.reader(io.StringIO(text, newline=""), strict=True)


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


def is_foreign_number(field: str) -> bool:
    """Returns whether the field is a number as people or spreadsheets write it."""
    return FOREIGN_NUMBER.fullmatch(field.strip()) is not None


def is_missing(field: str) -> bool:
    """Returns whether the field marks a missing value."""
    return field.strip().lower() in MISSING


def is_data(field: str) -> bool:
    """Returns whether a numeric column may contain the field, in any notation."""
    return is_number(field) or is_foreign_number(field) or is_missing(field)


def _rest(lines: Sequence[str], separator: str) -> float:
    """Returns how many characters belong to no number when the lines are split at the separator.

    Infinite if a line has no such separator or no number. Only commas, the default, may be absent.
    """
    rest = 0
    for line in lines:
        fields = line.split() if separator == " " else line.split(separator)
        fields = [field.strip(' "') for field in fields]
        words = [field for field in fields if not is_data(field)]
        if separator != "," and (len(fields) < 2 or len(words) == len(fields)):
            return math.inf
        rest += sum(map(len, words))
    return rest
