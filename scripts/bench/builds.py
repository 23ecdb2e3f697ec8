"""The C++ loops compiled with other sizes of blocks."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def build(folder: Path, macro: str) -> Path:
    """Compiles this checkout's loops with a macro of ``blocks.hpp``; returns the library.

    Args:
        folder: Where it is built.
        macro: Name and value, such as ``"KBPTT_GROUP=48"``.
    """
    options = ["--build-lib", folder / "lib", "--build-temp", folder / "temp"]
    command = [sys.executable, "setup.py", "--quiet", "build_ext", *options]
    flags = f"{os.environ.get('CXXFLAGS', '')} -D{macro}"
    environment = os.environ | {"CFLAGS": flags, "CXXFLAGS": flags}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    libraries = list((folder / "lib").rglob("_loops*.so"))
    if done.returncode or len(libraries) != 1:
        raise SystemExit(f"The loops were not built with -D{macro}:\n{done.stderr}")
    return libraries[0]
