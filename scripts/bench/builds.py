"""The C++ loops compiled with other sizes of blocks."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

# Sizes of blocks that differ from those of ``blocks.hpp``.
OTHER_BLOCKS = {
    "GROUP": (48, 192),
    "GROUP_BYTES": (2**17, 2**19),
    "LEAST_FORWARD": (32, 96),
    "LEAST_BACKWARD": (24, 96),
    "BATCHED": (192, 768),
    "BATCHED_BYTES": (3 * 2**16, 3 * 2**18),
    "DEPTH": (128, 512),
    "NEAR": (0, 2**30),
}


def build(folder: Path, macro: str = "") -> Path | None:
    """Compiles this checkout's loops; returns the library, or None where they cannot be built.

    Args:
        folder: Where it is built.
        macro: One of ``blocks.hpp`` and its value, such as ``"KBPTT_GROUP=48"``; empty: as it is.
    """
    options = ["--build-lib", folder / "lib", "--build-temp", folder / "temp"]
    command = [sys.executable, "setup.py", "--quiet", "build_ext", *options]
    define = f" -D{macro}" if macro else ""
    flags = {name: os.environ.get(name, "") + define for name in ("CFLAGS", "CXXFLAGS")}
    subprocess.run(command, cwd=ROOT, env=os.environ | flags, capture_output=True)
    return next((folder / "lib").rglob("_loops*.so"), None)
