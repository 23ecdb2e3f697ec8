"""Which commit code comes from."""

import os
import subprocess


def git_commit(directory: str | os.PathLike = ".", file: str | None = None) -> str | None:
    """The commit of a directory's repository, with "+" if there are uncommitted changes.

    Args:
        directory: The directory.
        file: A file in it that must belong to the repository, or `None`: an installed package may
            lie in an ignored folder of another one.
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
