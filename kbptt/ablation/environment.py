"""What trials run with: versions, commit, machine."""

import functools
import os
import pathlib
import platform
import subprocess
from typing import Any


def git_commit(directory: str | os.PathLike[str] = ".", file: str | None = None) -> str | None:
    """The commit of a directory's repository, with "+" if there are uncommitted changes.

    Args:
        directory: The directory.
        file: A file in it that the repository must track, or `None`: an installed package may lie
            in an ignored folder of an unrelated repository.
    """
    commands = [["rev-parse", "HEAD"], ["status", "--porcelain", "--untracked-files=no"]]
    if file is not None:
        commands.append(["ls-files", "--error-unmatch", file])
    try:
        commit, changes, *_ = (
            subprocess.run(
                ["git", "-C", os.fspath(directory), *command],
                capture_output=True,
                text=True,
                timeout=10,
                check=True,
            ).stdout.strip()
            for command in commands
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return commit + ("+" if changes else "")


def describe(threads: int) -> dict[str, Any]:
    """Machine and versions that a trial in this process runs with, in JSON types.

    Args:
        threads: Number of threads that it computes with.
    """
    import keras
    import numpy as np
    import tensorflow as tf

    import kbptt
    from kbptt.engine import native

    commit = _commit_of_kbptt()
    devices = []
    for device in tf.config.list_physical_devices():
        details = tf.config.experimental.get_device_details(device)
        devices.append(details.get("device_name") or device.device_type)
    return {
        "kbptt": kbptt.__version__ + (f" at commit {commit}" if commit else ""),
        "keras": keras.__version__,
        "tensorflow": tf.__version__,
        "numpy": np.__version__,
        **machine(),
        "devices": devices,
        "threads": threads,
        "compiled_loops": native.is_usable(),
        "deterministic_ops": True,
    }


def machine() -> dict[str, Any]:
    """Python and the machine, in JSON types."""
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": _processor(),
    }


@functools.cache
def _commit_of_kbptt() -> str | None:
    import kbptt

    return git_commit(pathlib.Path(kbptt.__file__).parent, "__init__.py")


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor()
