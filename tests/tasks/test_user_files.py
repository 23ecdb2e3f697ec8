"""Tasks over the user's own text and CSV files."""

import math
import re

import numpy as np
import pytest

from kbptt import tasks

TEXT = "Quick brown foxes — señor Čapek's robots — jump.\nOver 7 lazy dogs!\n" * 40


@pytest.fixture
def text_file(tmp_path):
    path = tmp_path / "book.txt"
    path.write_text(TEXT, encoding="utf-8")
    return path


def test_text_windows_are_the_text_and_the_next_characters(text_file):
    task = tasks.get("text", path=text_file, length=30)
    data = task.data(0)
    assert task.vocabulary == len(set(TEXT)) == task.outputs.units
    everything = np.concatenate([data.train[0], data.validation[0], data.test[0]])
    assert task.decode(everything.ravel()) == TEXT[: everything.size]
    answers = np.concatenate([data.train[1], data.validation[1], data.test[1]])
    assert task.decode(answers.ravel()) == TEXT[1 : everything.size + 1]
    windows = (len(TEXT) - 1) // 30
    assert len(data.test[0]) == len(data.validation[0]) == round(windows / 10)
    assert len(everything) == windows


def test_text_baseline_is_the_frequencies_of_the_training_part(text_file):
    task = tasks.get("text", path=text_file, length=30)
    data = task.data(0)
    seen = task.decode(data.train[1].ravel())
    bits = [
        -math.log2((seen.count(c) + 1) / (len(seen) + task.vocabulary))
        for c in task.decode(data.test[1].ravel())
    ]
    assert task.baseline == pytest.approx(np.mean(bits))


def test_text_sizes_take_the_beginning_of_each_part(text_file):
    whole = tasks.get("text", path=text_file, length=30).data(0)
    part = tasks.get("text", path=text_file, length=30, sizes=(5, 2, 10_000)).data(0)
    np.testing.assert_array_equal(part.train[0], whole.train[0][:5])
    np.testing.assert_array_equal(part.validation[0], whole.validation[0][:2])
    np.testing.assert_array_equal(part.test[0], whole.test[0])


@pytest.mark.parametrize("characters", [31, 32, 40, 41, 101])
def test_text_needs_three_windows_and_no_more(tmp_path, characters):
    path = tmp_path / "short.txt"
    path.write_text("ab" * 1000 if characters > 1000 else ("ab" * 100)[:characters])
    task = tasks.get("text", path=path, length=10)
    assert all(size >= 1 for size in task.sizes)
    assert len(task.data(0).test[0]) >= 1


def test_text_errors_are_one_sentence(tmp_path):
    def error(content=None, **options):
        path = tmp_path / "file.txt"
        path.unlink(missing_ok=True)
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(ValueError) as caught:
            tasks.get("text", path=path, **options)
        return str(caught.value)

    assert "Cannot read" in error() and "No such file" in error()
    assert "is empty" in error(b"") and "is empty" in error(b"\xef\xbb\xbf")
    assert "not UTF-8" in error(b"abc\xff\xfe") and "byte 3" in error(b"abc\xff\xfe")
    assert re.search(r"too short: it has 20 characters.*needs 385", error(b"ab" * 10))
    assert "needs 31" in error(b"a" * 30, length=10)
    assert "`length`" in error(b"a" * 300, length=0)
    assert "Is a directory" in _directory_error(tmp_path)


def _directory_error(directory):
    with pytest.raises(ValueError) as caught:
        tasks.get("text", path=directory)
    return str(caught.value)


def test_text_refuses_a_prompt_with_an_unknown_character(text_file):
    with pytest.raises(ValueError, match="'#' does not occur"):
        tasks.get("text", path=text_file).encode("fox#")


@pytest.fixture
def csv_file(tmp_path):
    path = tmp_path / "series.csv"
    t = np.arange(400)
    rows = [f"2020-{i},{math.sin(i / 9)},{i * 0.5}" for i in t]
    path.write_text("date,wave,level\n" + "\n".join(rows) + "\n")
    return path


def test_csv_answers_with_the_target_some_rows_ahead(csv_file):
    task = tasks.get("csv", path=csv_file, target="wave", horizon=3, length=20)
    assert task.columns == ["wave", "level"] and task.features == 2
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


def test_csv_baseline_is_persistence(csv_file):
    task = tasks.get("csv", path=csv_file, target="wave", length=20)
    x, y = task.data(0).test
    assert task.baseline == pytest.approx(np.mean((x[:, :, 0] - y[:, :, 0]) ** 2))
    assert 0 < task.baseline < 0.05


def test_csv_chooses_columns(csv_file):
    assert tasks.get("csv", path=csv_file).target == "level"
    task = tasks.get("csv", path=csv_file, columns="wave", target="level")
    assert task.columns == ["wave", "level"]
    assert tasks.get("csv", path=csv_file, columns=["wave"]).columns == ["wave"]


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        ("a,b\n", {}, "no rows"),
        ("a,b\n1,2\n3\n", {}, "line 3: 2 columns expected, 1 found"),
        ("a,b\nx,y\n", {}, "no column of numbers"),
        ("a;b\n1;2\n", {}, "no column of numbers"),
        ("a,b\n1,2\n", {"target": "c"}, r"no column 'c'. It has: a, b"),
        ("a,b\n1,2\n1,\n", {}, "line 3, column 'b': expected a number, found ''.*`columns`"),
        ("a,b\n1,2\n\n1,nan\n", {}, "line 4, column 'b'"),
        ("a,b\n,1\n2,1\n", {}, "line 2, column 'a': expected a number, found ''"),
        ("a,a\n1,2\n", {}, "2 columns named 'a'"),
        ("a,b\n" + "x" * 200_000 + ",1\n", {}, "line 2: field larger than field limit"),
        ("a,b\n1,2\n", {"columns": 3}, "`columns`"),
        ("a,b\n1,2\n", {"columns": []}, "no column of numbers"),
        ("a,b\n1,2\n", {"target": ""}, "no column ''"),
        ("a\n" + "1\n" * 50, {"stride": 0}, "`stride`"),
        ("a\n" + "1\n" * 50, {}, "too short: it has 50 rows"),
        ("a\n" + "1\n" * 50, {"horizon": 0}, "`horizon`"),
        ("a\n" + "1\n" * 50, {"held_out": 0.5}, "`held_out`"),
    ],
)
def test_csv_errors_are_one_sentence(tmp_path, content, options, message):
    path = tmp_path / "series.csv"
    path.write_text(content)
    with pytest.raises(ValueError, match=message):
        tasks.get("csv", path=path, **options)


def test_csv_with_a_constant_column_stays_finite(tmp_path):
    path = tmp_path / "series.csv"
    path.write_text("a,b\n" + "\n".join(f"5,{i % 7}" for i in range(200)))
    x, y = tasks.get("csv", path=path, length=10).data(0).train
    assert np.isfinite(x).all() and np.isfinite(y).all()


@pytest.mark.parametrize("path", [3, None, "", [1]])
@pytest.mark.parametrize("name", ["text", "csv"])
def test_a_path_is_no_number(name, path):
    with pytest.raises(ValueError, match="`path`"):
        tasks.get(name, path=path)


def test_csv_from_a_spreadsheet(tmp_path):
    """Byte-order mark, CRLF, quoted fields with line breaks and Unicode's line separator."""
    path = tmp_path / "series.csv"
    rows = "".join(f'"first\nsecond\u2028 no. {i}",{i}\r\n' for i in range(100))
    path.write_bytes(("\ufeffnote,wave\r\n" + rows).encode())
    task = tasks.get("csv", path=path, length=5, horizon=1)
    assert task.columns == ["wave"]
    x, y = task.data(0).train
    step = 1 / np.arange(60).std()
    np.testing.assert_allclose(y - x, step, rtol=1e-4)
