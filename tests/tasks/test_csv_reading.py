"""Reading CSV files: compared with the csv module and `float`, and with pandas."""

import csv
import io
import itertools
import math
import sys
import warnings
from unittest import mock

import numpy as np
import pytest
from csv_files import NUMERIC, WAVE, lines
from hypothesis import example, given, settings, strategies as st

from kbptt import tasks
from kbptt.tasks import csv_table

NUMBERS = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
    st.integers(-(10**40), 10**40).map(str),
    st.sampled_from(["1_000", " 7 ", "+.5e-3", "0012", "１２", "-0", "1e-400", "3.", "5e-324"]),
)
OTHERS = st.sampled_from(
    ["", "x", "nan", "inf", "1e999", "True", "1,5", "a\nb", '"', "1 2", "\ufeff"]
)


def tables(fields):
    """Tables whose rows have as many fields as columns, mostly."""
    return st.integers(1, 4).flatmap(
        lambda width: st.lists(st.lists(fields, min_size=width, max_size=width), min_size=1)
    )


def written(rows, quoting, newline):
    file = io.StringIO(newline="")
    csv.writer(file, quoting=quoting, lineterminator=newline).writerows(rows)
    return file.getvalue()


def oracle(text):
    """The csv module and `float`: the numbers, or `None` if there is no table of numbers."""
    names, *rows = csv.reader(io.StringIO(text, newline=""))
    try:
        numbers = np.array([list(map(float, row)) for row in rows])
    except ValueError:
        return None
    return numbers if numbers.shape[1:] == (len(names),) and np.isfinite(numbers).all() else None


@given(
    tables(NUMBERS) | tables(NUMBERS | OTHERS) | st.lists(st.lists(NUMBERS, max_size=3)),
    st.sampled_from([csv.QUOTE_ALL, csv.QUOTE_MINIMAL]),
    st.sampled_from(["\n", "\r\n", "\r"]),
)
@settings(deadline=None, max_examples=300)
@example([["1", "2"], [], ["3", "4"]], csv.QUOTE_MINIMAL, "\n")
def test_reads_what_the_csv_module_and_float_read(tmp_path_factory, rows, quoting, newline):
    names = [f"c {i}" for i in range(len(rows[0]) or 1)] if rows else ["c"]
    text = written([names, *rows], quoting, newline)
    path = tmp_path_factory.getbasetemp() / "oracle.csv"
    path.write_bytes(text.rstrip().encode())
    expected = oracle(text.rstrip())
    try:
        columns = csv_table.Table(path).read()
    except ValueError as error:
        assert expected is None, error
        return
    assert [column.name for column in columns] == names
    if any(column.fault for column in columns):
        assert expected is None
    else:
        np.testing.assert_array_equal(np.stack([c.values for c in columns], axis=1), expected)


SCRAPS = [
    b"a,b\n",
    b"1,2\n",
    b"3,4\n" * 9,
    b"5,x\n",
    b"\n",
    b"\r",
    b'"',
    b",",
    b";",
    b"\0",
    b"\xff",
]


@given(st.lists(st.sampled_from(SCRAPS) | st.binary(max_size=4), max_size=12).map(b"".join))
@settings(deadline=None, max_examples=300)
@example(b"\xed\xa0\x80" * 99)  # a surrogate
@example(b"a,b\n" + b"1,2\n" * 30)
def test_any_bytes_are_read_or_refused_in_a_sentence(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "any bytes"
    path.write_bytes(content)
    for name, options in itertools.product(("csv", "text"), ({}, {"header": False})):
        if name == "text" and options:
            continue
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*any bytes: columns left out", UserWarning)
            try:
                task = tasks.get(name, path=path, length=2, **options)
            except ValueError as error:
                assert str(error).startswith(("Cannot read", str(path))) and str(error)[-1] == "."
                continue
        data = task.data(0)
        assert np.isfinite(task.baseline)
        assert all(np.isfinite(part).all() for part in (*data.train, *data.validation, *data.test))


@given(tables(NUMBERS), tables(NUMBERS | OTHERS), st.booleans())
@settings(deadline=None, max_examples=50)
@example([["9223372036854775808"]], [["-1e5"], ["1e"], ["0x10"]], True)
@example([["-0"], ["0012"], [" 1"]], [["x"], ["True"]], False)
@example([["123456789.123456789"]], [["True"], ["False"]], False)
@example([["1"]], [["", "1"], ["x", "2"], ["NA", "3"]], False)
@example([["1"]], [["1"], ["\ufeff1"]], True)
def test_pandas_changes_nothing(tmp_path_factory, plain, mixed, header):
    pytest.importorskip("pandas", minversion="3.1")
    path = tmp_path_factory.getbasetemp() / "pandas.csv"

    def read(pandas_from):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(csv_table, "PANDAS_FROM", pandas_from)
            try:
                columns = csv_table.Table(path, header).read()
            except ValueError as error:
                return str(error), []
        verdicts = [(c.name, c.fault, c.foreign, c.has_numbers) for c in columns]
        return verdicts, [c.values for c in columns]

    for rows in (plain, mixed, [["a", "day"], *([row[0], "2020-01-01"] for row in plain)]):
        path.write_text(written(rows, csv.QUOTE_MINIMAL, "\n"), encoding="utf-8")
        (fast, fast_values), (slow, slow_values) = read(0), read(math.inf)
        assert fast == slow
        np.testing.assert_array_equal(fast_values, slow_values)


def test_a_large_file_of_plain_numbers_goes_to_pandas(load, monkeypatch):
    pandas = pytest.importorskip("pandas", minversion="3.1")
    monkeypatch.setattr(csv_table, "PANDAS_FROM", 0)
    with mock.patch("pandas.read_csv", wraps=pandas.read_csv) as read:
        task = load(WAVE, columns=NUMERIC)
    assert read.call_count == 1
    assert task.data(0).train[0][0, 0, 0] == pytest.approx(-0.1, abs=0.2)


@pytest.mark.parametrize("rows", [1, 7, 20, 39, 40, 41])
@pytest.mark.parametrize("quote", ["", '"'])
def test_pieces_are_joined(load, monkeypatch, rows, quote):
    monkeypatch.setattr(csv_table, "ROWS", rows)
    monkeypatch.setitem(sys.modules, "pandas", None)
    monkeypatch.setattr(csv_table, "PANDAS_FROM", 0)
    x = load("a\n" + lines(lambda i: f"{quote}{i}{quote}"), length=4).data(0).train[0]
    np.testing.assert_allclose(np.diff(x[0, :, 0]), 1 / np.arange(24).std(), rtol=1e-5)
    with pytest.raises(ValueError, match="line 32, column 'a': expected a number, found '-'"):
        load("a\n" + lines(lambda i: f"{quote}{'-' if i == 30 else i}{quote}"))
