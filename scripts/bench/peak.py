"""The time of a step's floating-point work at the peak of the machine."""

import concurrent.futures
import ctypes
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

from .cores import cores
from .sizes import Size, operations

SOURCE = Path(__file__).with_name("peak.c")


def compiler() -> str | None:
    """The C compiler of this machine."""
    names = (os.environ.get("CC", ""), "cc", "gcc", "clang")
    return next((path for name in names if name and (path := shutil.which(name))), None)


def load() -> ctypes.CDLL:
    """Compiles `peak.c` for this processor; ctypes calls it without the interpreter's lock."""
    program = compiler()
    if program is None:
        raise SystemExit("The peak of the machine needs a C compiler: cc, gcc, clang or $CC.")
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder) / "peak.so"
        options = ["-O3", "-march=native", "-ffp-contract=fast", "-shared", "-fPIC"]
        subprocess.run([program, *options, SOURCE, "-o", library], check=True)
        loaded = ctypes.CDLL(str(library))
    loaded.run.argtypes, loaded.run.restype = [ctypes.c_longlong], ctypes.c_float
    return loaded


def make(options: dict[str, str], cell: str, size: Size) -> Callable[[], object]:
    """As many multiply-adds as the matrix products of a step with full BPTT have, on all cores."""
    library, threads = load(), cores()
    iterations = round(operations(cell, size) / library.operations() / threads)
    pool = concurrent.futures.ThreadPoolExecutor(threads)

    def step():
        list(pool.map(library.run, [iterations] * threads))

    step()
    return step
