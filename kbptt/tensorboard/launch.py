"""The TensorBoard command for a log directory, to copy from a terminal."""

import os
import shlex
import shutil
import sys
from pathlib import Path


def command(log_dir: str | os.PathLike[str]) -> str:
    """The command that starts TensorBoard on a log directory.

    Args:
        log_dir: The log directory.

    Returns:
        ``tensorboard --logdir …``, with the program's path if the shell would not find it (an
        environment that is not activated).
    """
    program = "tensorboard"
    installed = Path(sys.executable).with_name(program)
    if shutil.which(program) is None and installed.exists():
        inside = installed.is_relative_to(Path.cwd())
        program = os.path.relpath(installed) if inside else str(installed)
    return f"{shlex.quote(program)} --logdir {shlex.quote(os.fspath(log_dir))}"
