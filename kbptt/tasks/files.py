"""Reading the user's files."""

import codecs
import os
from pathlib import Path


def read_text(path: str | Path) -> str:
    """Returns the text of a UTF-8 file, without its byte-order mark if it has one.

    Args:
        path: The file.

    Raises:
        ValueError: in one sentence, for an invalid path, and for a file that cannot be read, is
            empty, is not UTF-8 or contains a NUL byte (as UTF-16 and binary files do).
    """
    if not isinstance(path, str | os.PathLike) or not str(path) or "\0" in str(path):
        raise ValueError(
            "Invalid value for argument `path`. Expected the path of a file. "
            f"Received: path={path!r} (of type {type(path).__name__})."
        )
    try:
        content = Path(os.path.expanduser(path)).read_bytes()
    except OSError as error:
        raise ValueError(f"Cannot read {path}: {error.strerror}.") from error
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        # `error.start` does not count a byte-order mark.
        start = error.start + len(content) - len(error.object)
        line = content.count(b"\n", 0, start) + 1
        utf_16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        raise ValueError(
            f"{path} is not UTF-8 text: byte {start} is {content[start]:#04x}. "
            + ("It begins like UTF-16. " if utf_16 else f"It is in line {line}. ")
            + "Convert the file to UTF-8 first."
        ) from error
    if not text:
        raise ValueError(f"{path} is empty.")
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise ValueError(
            f"{path}, line {line}: expected text, found a NUL byte. Convert the file to UTF-8 "
            "first if it is UTF-16; a binary file cannot be used."
        )
    return text


def too_few(count: int, what: str, enough: int, instead: str) -> str | None:
    """Returns a sentence if a file has too little to learn from, else None.

    Args:
        count: Integer, what there is to train on.
        what: What is counted, in the plural.
        enough: Integer, the fewest that are not worth a warning.
        instead: What a model then learns.
    """
    if count >= enough:
        return None
    return (
        f"There are only {count:,} {what} to train on, too few to learn from: expect "
        f"{instead}. Use at least {enough:,}."
    )
