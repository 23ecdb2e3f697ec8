"""The task over the user's own CSV file."""

import numpy as np
import pytest
from csv_files import NUMERIC, WAVE, lines
from hypothesis import given, settings, strategies as st

from kbptt.tasks.csv_series import standardize


def test_answers_with_the_target_some_rows_ahead(load):
    task = load(WAVE, target="wave", columns=NUMERIC, horizon=3, length=20)
    assert task.columns == NUMERIC and task.features == 2
    wave = np.sin(np.arange(400) / 9)
    training = wave[: 400 - 2 * 80]
    wave = (wave - training.mean()) / training.std()
    data = task.data(0)
    x, y = data.train
    np.testing.assert_allclose(x[0, :, 0], wave[:20], atol=1e-5)
    np.testing.assert_allclose(y[0, :, 0], wave[3:23], atol=1e-5)
    np.testing.assert_allclose(x[1, :, 0], wave[5:25], atol=1e-5)
    np.testing.assert_allclose(data.test[0][0, :, 0], wave[320:340], atol=1e-5)
    assert x.shape[1:] == (20, 2) and y.shape[1:] == (20, 1)


def test_baseline_is_persistence(load):
    task = load(WAVE, target="wave", columns=NUMERIC, length=20)
    x, y = task.data(0).test
    assert task.baseline == pytest.approx(np.mean((x[:, :, 0] - y[:, :, 0]) ** 2))
    assert 0 < task.baseline < 0.05


def test_chooses_columns(load):
    assert load(WAVE, columns=NUMERIC).target == "level"
    assert load(WAVE, columns="wave", target="level").columns == NUMERIC
    assert load(WAVE, columns=["wave"]).columns == ["wave"]


def test_describes_what_it_forecasts_and_the_unit_of_its_score(load):
    text = load(WAVE, columns=NUMERIC, horizon=2).describe()
    assert "'level', 2 rows ahead, from wave, level." in text
    assert f"standard deviation in the training part, {np.std(np.arange(240) / 2):.4g}." in text
    assert "constant in the training part" in load("a\n" + lines(lambda i: 3)).describe()


def test_warns_of_columns_left_out(load):
    """Words, dates, nothing at all, no name: any of them may be what the user meant."""
    content = "day,a,,note,b,\n" + lines(lambda i: f"2020-01-{i:02},{i},{i},sun {i},{i % 3},")
    with pytest.warns(UserWarning) as caught:
        task = load(content)
    (message,) = (str(warning.message) for warning in caught)
    for part in (
        "'day' (line 2: '2020-01-00')",
        "'column 3' (no name in line 1)",
        "'note' (line 2: 'sun 0')",
        "'column 6' (no name",
        "Inputs: a, b; target: 'b'",
    ):
        assert part in message
    assert task.columns == ["a", "b"] and caught[0].filename.endswith(
        "conftest.py"
    )  # which asked for the task
    assert load(content, columns=["a", "column 3"]).target == "column 3"


@pytest.mark.parametrize(
    "field",
    ['"1,234"', "12%", "$5", "5 €", "-£1.50", "(3.00)", '"1,5"', "1 000", "True", "FALSE", "1'000"],
)
def test_numbers_in_another_notation_are_refused_and_not_left_out(load, field):
    content = "a,b\n" + lines(lambda i: f"{i},{field if i else 'n/a'}")
    with pytest.raises(ValueError, match=r"line 3, column 'b': expected a number, found .*`col"):
        load(content)
    assert load(content, columns="a").columns == ["a"]


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        ("a,b\n", {}, "no rows"),
        ("a,b\n1,2\n3\n", {}, "line 3: 2 columns expected, 1 found"),
        ("a,b\n1,2\n3,4,\n", {}, "line 3: 2 columns expected, 3 found"),
        ("a,b\n1\n2,3,4\n", {}, "line 2: 2 columns expected, 1 found"),
        ("a,b\n1,2,3\n4\n", {}, "line 2: 2 columns expected, 3 found"),
        ("a,b\nx,y\n", {}, "no column of numbers"),
        ("a,b\n1,2\n", {"target": "c"}, r"no column 'c'. Its columns are: a, b"),
        ("a,b\n1,2\n", {"target": ["b"]}, r"no column \['b'\]"),
        ("a,b\n1,2\n1,\n", {}, "line 3, column 'b': expected a number, found ''.*`columns`"),
        ("a,b\n1,2\n1,nan\n", {}, "line 3, column 'b': expected a number, found 'nan'"),
        ("a,b\n1,2\n1,-Infinity\n", {}, "line 3, column 'b'"),
        ("a,b\n1,2\n1,1e400\n", {}, "line 3, column 'b': expected a number, found '1e400'"),
        ("a,b\n,1\n2,1\n", {}, "line 2, column 'a': expected a number, found ''"),
        ("a,a\n1,2\n", {}, "line 1: 2 columns named 'a'"),
        ("a,b\n" + "x" * 200_000 + ",1\n", {}, "line 2: field larger than field limit"),
        ("a,b\n1,2\n", {"columns": 3}, "`columns`"),
        ("a,b\n1,2\n", {"columns": []}, "no column of numbers"),
        ("a,b\n1,2\n", {"columns": [["b"]]}, r"no column \['b'\]"),
        ("a,b\n1,2\n", {"target": ""}, "no column ''"),
        ("a,b\n1,2\n", {"header": "no"}, "`header`"),
        ("a\n" + "1\n" * 50, {"stride": 0}, "`stride`"),
        ("a\n" + "1\n" * 50, {"length": 64}, "too short: it has 50 rows"),
        ("a\n" + "1\n" * 50, {"horizon": 0}, "`horizon`"),
        ("a\n" + "1\n" * 50, {"held_out": 0.5}, "`held_out`"),
        # Blank lines: time would close over the gap.
        ("a\n1\n2\n\n4\n", {}, "line 4: expected a row, found a blank line"),
        ("a,b\n1,2\n\n1,nan\n", {}, "line 3: expected a row, found a blank line"),
        ("a,b\n\n1,2\n", {}, "line 2: expected a row, found a blank line"),
        ("\na,b\n1,2\n", {}, "line 1: expected the names of the columns, found a blank line"),
        ("\n\n", {}, "line 1: expected the names"),
        ("a\r1\r\r2\r", {}, "line 3: expected a row, found a blank line"),
        # Other separators.
        ("a;b\n1;2\n", {}, "no column of numbers.*semicolons: save the file with commas"),
        ("a;b\n1,5;2,5\n", {}, "line 2: 1 columns expected, 3 found.*semicolons"),
        ("a\tb\n1\t2\n", {}, "no column of numbers.*tabs"),
        ("a|b\n1|2\n", {"target": "b"}, "no column 'b'.*vertical bars"),
        # Quotes that would swallow or change fields.
        ('a,b\n1,2\n"3,4\n5,6\n', {}, "line 3: a quoted field has no end"),
        ('a,b\n"x\ny",2\n"1"2,3\n', {}, "line 4: ',' expected after"),
        # No text.
        ("a,b\n1,2\n3,\0\n", {}, "line 3: expected text, found a NUL byte"),
        ("a,b\n1,2\n".encode("utf-16"), {}, "byte 0 is 0xff. It begins like UTF-16"),
        ("a,b\n1,2\n".encode("utf-16-be"), {}, "line 1: .* NUL byte"),
        ("a,b\n1,é\n".encode("latin-1"), {}, "byte 6 is 0xe9. It is in line 2"),
        ("\ufeffa,b\n1,".encode() + b"\xe9", {}, "byte 9 is 0xe9. It is in line 2"),
        # A first line of data.
        (
            "0,1\n2,3\n",
            {},
            "line 1: expected the names .* values '0', '1'.*`header=False`.*header=True",
        ),
        ("2020-01-01,1.5\n2020-01-02,2\n", {}, "line 1: expected the names .* values '1.5'"),
        (",0,1\n0,3,4\n", {}, "line 1: expected the names .* values '0', '1'"),
    ],
)
def test_errors_are_one_sentence_with_the_line(load, content, options, message):
    with pytest.raises(ValueError, match=message):
        load(content, **options)


def test_a_file_without_names(load):
    content = lines(lambda i: f"{i},{i % 3}")
    task = load(content, header=False)
    assert (task.columns, task.target) == (["1", "2"], "2")
    # The first line is data.
    np.testing.assert_allclose(
        task.data(0).train[0][0, :, 1] * np.sqrt(2 / 3) + 1, [0, 1, 2], atol=1e-6
    )
    assert load(content, header=False, target=1).target == "1"
    years = "2019,2020\n" + content
    assert load(years, header=True).columns == ["2019", "2020"]
    assert load(years, columns=[2020]).columns == load(years, columns="2020").columns == ["2020"]
    assert load(years, target="2019").target == "2019"


def test_a_name_with_a_line_break(load):
    task = load('"wave\n(m)",b\n' + lines(lambda i: f"{i},{i % 3}"))
    assert task.columns == ["wave\n(m)", "b"]
    with pytest.raises(ValueError, match="line 3, column 'b'"):
        load('"wave\n(m)",b\n1,-\n2,3\n')


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("end", ["", "\n", "\n\n  \n"])
def test_a_file_from_a_spreadsheet(load, newline, end):
    """Byte-order mark, line endings, quoted fields with line breaks and Unicode's separator."""
    rows = "".join(f'"first\nsecond\u2028 no. {i}",{i}\n' for i in range(100))
    content = ("\ufeffnote,wave\n" + rows.rstrip("\n") + end).replace("\n", newline)
    task = load(content, length=5, columns="wave")
    x, y = task.data(0).train
    np.testing.assert_allclose(y - x, 1 / np.arange(60).std(), rtol=1e-4)
    with pytest.raises(ValueError, match="line 2, column 'note'"):
        load(content, length=5, columns="note,wave")
    with pytest.raises(ValueError, match="line 202, column 'wave': expected a number, found '-'"):
        load(content.rstrip() + newline + "x,-", length=5, columns="wave")


# Rows 0 to 23 of 40 train.
@pytest.mark.parametrize("constant", [0.1, 1.1, 0.3, -1e-3, 1e9 / 3, 0.0, 5e-324])
def test_a_column_that_is_constant_in_the_training_part_is_not_scaled(load, constant):
    content = "b,c\n" + lines(lambda i: f"{i % 7},{constant if i < 24 else constant + 0.5!r}")
    task = load(content)
    data = task.data(0)
    assert (data.train[0][:, :, 1] == 0).all() and (data.train[1] == 0).all()
    np.testing.assert_allclose(data.test[0][:, :, 1], (constant + 0.5) - constant)
    assert task.baseline == 0


def test_rounding_is_no_deviation(load):
    """What arithmetic makes of 0.3: values some units in the last place apart."""
    values = [0.3, 0.1 + 0.2, 0.7 - 0.4]
    assert len(set(values)) == 3
    content = "b,c\n" + lines(lambda i: f"{i % 7},{values[i % 3] if i < 24 else 0.4!r}")
    np.testing.assert_allclose(load(content).data(0).test[0][:, :, 1], 0.1, rtol=1e-6)
    # A deviation that is more than that counts, however small.
    content = "b,c\n" + lines(lambda i: f"{i % 7},{1 + i % 3 * 1e-12!r}")
    x = load(content).data(0).train[0][0, :, 1]
    np.testing.assert_allclose(x, [-(1.5**0.5), 0, 1.5**0.5], atol=1e-3)


@pytest.mark.parametrize("scale", [1e-320, 1e-200, 1.0, 1e200, 4e307])
def test_magnitudes_do_not_matter(load, scale):
    content = "b,c\n" + lines(lambda i: f"{i % 7},{(i % 5 - 2) * scale!r}")
    one = "b,c\n" + lines(lambda i: f"{i % 7},{i % 5 - 2}")
    scaled, expected = load(content), load(one)
    tolerance = 1e-3 if scale < 1e-300 else 1e-6  # subnormal numbers have few digits
    for got, want in zip(scaled.data(0).test, expected.data(0).test, strict=True):
        np.testing.assert_allclose(got, want, rtol=tolerance, atol=tolerance)
    assert scaled.baseline == pytest.approx(expected.baseline, rel=tolerance)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (
            lambda i: i % 3 if i < 30 else 1e200,
            "line 32, column 'c': 1e.200 is more than 1,000,000",
        ),
        (lambda i: i % 3 * 1e-170 if i < 30 else 1.0, "line 32, column 'c': 1 is more than"),
        (lambda i: 0.1 * (1 + 1e-9 * (i % 2)) if i < 30 else 0.2, "line 32, column 'c': 0.2 is"),
        (lambda i: -1.7e308 if i < 30 else 1.7e308, "line 2, column 'c'.*about -1.7e.308"),
        (lambda i: 5.0 if i < 30 else -3e6, "line 32, column 'c': -3e.06 is.*units, if they are 0"),
        # Integers of which float64 makes one or two.
        (lambda i: 2**53 + i, "line 2, column 'c'.*float64 cannot represent differences of 1"),
        (lambda i: 10**300 + i, "line 2, column 'c'.*float64 cannot represent differences of 1"),
    ],
)
def test_values_without_a_finite_score_are_refused(load, value, message):
    with pytest.raises(ValueError, match=message):
        load("b,c\n" + lines(lambda i: f"{i % 7},{value(i)!r}"))


def test_large_integers_that_float64_tells_apart(load):
    """Nanoseconds since 1970, a millisecond apart."""
    content = "t,c\n" + lines(lambda i: f"{16 * 10**17 + i * 10**6},{i % 5}")
    x = load(content).data(0).train[0]
    np.testing.assert_allclose(x[0, :, 0], (np.arange(3) - 11.5) / np.arange(24).std(), rtol=1e-3)


@given(
    st.lists(st.floats(-1e3, 1e3), min_size=4, max_size=20).filter(lambda v: np.std(v) > 1e-3),
    st.integers(-900, 900),
)
@settings(deadline=None)
def test_standardizing_does_not_depend_on_the_unit(values, exponent):
    """A power of two as unit changes no digit."""
    values = np.array(values)[:, None]
    known = len(values) - 1
    with np.errstate(under="ignore"):
        scaled = np.ldexp(values, exponent)
    if not (np.ldexp(scaled, -exponent) == values).all() or np.std(values[:known]) < 1e-6:
        return
    want = (values - values[:known].mean()) / values[:known].std()
    np.testing.assert_allclose(standardize(scaled, known)[0], want, rtol=1e-6, atol=1e-9)


def test_a_stride_longer_than_the_file(load):
    task = load("a\n" + lines(str), stride=10**30)
    assert task.data(0).train[0].shape == (1, 3, 1)
