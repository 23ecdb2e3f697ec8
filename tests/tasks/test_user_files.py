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
            path.write_bytes(content.encode() if isinstance(content, str) else content)
        with pytest.raises(ValueError) as caught:
            tasks.get("text", path=path, **options)
        return str(caught.value)

    assert "Cannot read" in error() and "No such file" in error()
    assert "is empty" in error(b"") and "is empty" in error(b"\xef\xbb\xbf")
    assert "not UTF-8" in error(b"abc\xff\xfe") and "byte 3" in error(b"abc\xff\xfe")
    assert re.search(r"too short: it has 20 characters.*needs 385", error(b"ab" * 10))
    assert "needs 31" in error(b"a" * 30, length=10)
    assert "`length`" in error(b"a" * 300, length=0)
    assert "too short" in error(b"ab" * 300, length=10**30)
    # Nothing to predict.
    assert "one distinct character, 'a': there is nothing to predict" in error(b"a" * 5000)
    assert "one distinct character, '\\n'" in error(b"\n" * 5000)
    assert "one distinct character, 'é'" in error("\ufeff" + "é" * 5000)
    # No text: binary, UTF-16 with and without its mark, surrogates, half a character.
    assert "line 2: expected text, found a NUL byte" in error(b"ab\nc\0" * 300)
    assert "begins like UTF-16" in error(("ab" * 300).encode("utf-16"))
    assert "found a NUL byte" in error(("ab" * 300).encode("utf-16-le"))
    assert "byte 3 is 0xed. It is in line 2." in error(b"ab\n\xed\xa0\x80")
    assert "byte 7 is 0xc3" in error(b"\xef\xbb\xbfab\nd\xc3")
    assert "Is a directory" in _directory_error(tmp_path)


def _directory_error(directory):
    with pytest.raises(ValueError) as caught:
        tasks.get("text", path=directory)
    return str(caught.value)


def test_text_refuses_a_prompt_with_an_unknown_character(text_file):
    task = tasks.get("text", path=text_file)
    # Between the known characters, just beyond and far, above the first plane, half of one.
    beyond = chr(ord("—") + 2 + ord("f"))
    for prompt in ("fox#", f"fox{beyond}", "fox\u2603", "fox🦊", "fox\ud800"):
        with pytest.raises(ValueError, match=re.escape(f"{prompt[3]!r} does not occur")):
            task.encode(prompt)
    assert task.encode("").shape == (0,)
    assert task.decode(task.encode("fox č".replace("č", "Č"))) == "fox Č"


def test_text_with_characters_of_every_width(tmp_path):
    path = tmp_path / "wide.txt"
    text = "aé€🦊\U0010ffff" * 50 + "\r\n"
    path.write_bytes(text.encode())
    task = tasks.get("text", path=path, length=2)
    assert task.characters == sorted(set(text))
    tokens = task.encode(text)
    assert tokens.dtype == np.int32 and task.decode(tokens) == text
    np.testing.assert_array_equal(task.data(0).train[0][:2], tokens[:4].reshape(2, 2))


@pytest.mark.parametrize("path", [3, None, "", [1], "a\0b"])
@pytest.mark.parametrize("name", ["text", "csv"])
def test_a_path_that_is_a_number_is_refused(name, path):
    with pytest.raises(ValueError, match="`path`"):
        tasks.get(name, path=path)
