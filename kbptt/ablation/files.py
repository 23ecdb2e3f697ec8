"""Files of a trial in the log directory: whole or absent, and never outside it."""

import pathlib
import shutil
import tempfile
from collections.abc import Mapping

from kbptt.ablation.ledger import LedgerError, disk_full, is_disk_full

SCRATCH = ".writing-"


def write_files(logdir: pathlib.Path, directory: str, files: Mapping[str, bytes]) -> None:
    """Puts the files of a trial in place all at once: written beside, then renamed."""
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
            f"Cannot write {str(target)!r}: {error.strerror or error}. Every result so far is safe."
        ) from error


def inside(parent: pathlib.Path, name: str) -> pathlib.Path:
    """`parent / name`, refused if it leads outside."""
    path = (parent / name).resolve()
    if path == parent.resolve() or not path.is_relative_to(parent.resolve()):
        raise LedgerError(f"{name!r} leads outside {str(parent)!r}.")
    return path
