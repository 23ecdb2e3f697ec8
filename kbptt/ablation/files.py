"""Files of a trial in the log directory: complete or absent, and never outside it."""

import contextlib
import os
import pathlib
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from typing import Any

from kbptt.ablation.ledger import LedgerError, disk_full, is_disk_full
from kbptt.ablation.text import shown, visible

SCRATCH = ".writing-"
LONGEST = 255  # bytes of a name: the limit of common file systems
LONGEST_PATH = 1000  # bytes of a path below the trial's directory


def check_names(files: Any) -> dict[str, bytes]:
    """Returns the files of a trial if each of them can be written below its directory.

    Args:
        files: Mapping from relative paths, with "/" between their parts, to bytes.

    Raises:
        ValueError: for a path that leads outside or that no file system accepts, for a file with
            the path of another file's folder, and for content that is not bytes.
    """
    if not isinstance(files, Mapping):
        raise ValueError(
            f"`files` of a trial: expected a dict from paths to bytes. Received: {shown(files)}."
        )
    checked, folders = {}, set()
    for name, content in files.items():
        if not _is_relative(name):
            raise ValueError(
                "`files` of a trial: expected relative paths that stay in the trial's folder, such "
                f"as 'train/events'. Received: {shown(name)}, which leads outside or is not a path."
            )
        if not isinstance(content, bytes | bytearray):
            raise ValueError(
                f"`files` of a trial: expected bytes as the content of {shown(name)}. "
                f"Received: {shown(content)} (of type {type(content).__name__})."
            )
        path = pathlib.PurePosixPath(name)
        folders.update(path.parents)
        checked[path] = bytes(content)
    for path in checked:
        if path in folders:
            raise ValueError(f"`files` of a trial: {shown(str(path))} is a file and a folder.")
    return {str(path): content for path, content in checked.items()}


def _is_relative(name: Any) -> bool:
    if not isinstance(name, str) or not name or "\0" in name:
        return False
    path = pathlib.PurePosixPath(name)
    try:
        sizes = [len(part.encode()) for part in path.parts]
    except UnicodeEncodeError:  # a lone surrogate
        return False
    return (
        not path.is_absolute()
        and bool(sizes)
        and ".." not in path.parts
        and max(sizes) <= LONGEST
        and sum(sizes) + len(sizes) <= LONGEST_PATH
    )


def write_files(logdir: pathlib.Path, directory: str, files: Mapping[str, bytes]) -> None:
    """Writes the files of a trial atomically: into a scratch folder that is then renamed.

    Args:
        logdir: The log directory.
        directory: The trial's directory, relative to the log directory.
        files: As `check_names` returns them.
    """
    target = inside(logdir, directory)
    try:
        scratch = pathlib.Path(tempfile.mkdtemp(prefix=SCRATCH, dir=logdir))
        try:
            for name, content in files.items():
                path = inside(scratch, name)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
            if target.exists():
                shutil.rmtree(target)
            if files:
                scratch.chmod(0o755)
                target.parent.mkdir(parents=True, exist_ok=True)
                scratch.rename(target)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    except OSError as error:
        if is_disk_full(error):
            raise disk_full(logdir) from error
        raise LedgerError(
            f"Cannot write {visible(repr(str(target)))}: {error.strerror or error}. "
            "Every result so far is safe."
        ) from error


@contextlib.contextmanager
def atomically(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """Yields a temporary path that afterwards replaces `path`, which is never incomplete."""
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.partial{path.suffix}")
    try:
        yield temporary
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def inside(parent: pathlib.Path, name: str) -> pathlib.Path:
    """`parent / name`, or `ValueError` if it leads outside (through a link as well)."""
    path = (parent / name).resolve()
    if path == parent.resolve() or not path.is_relative_to(parent.resolve()):
        raise ValueError(f"{shown(name)} leads outside {str(parent)!r}.")
    return path
