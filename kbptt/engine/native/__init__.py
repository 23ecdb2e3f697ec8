"""The loops compiled from C, and what Python needs to call them: `kbptt.engine.cpu` does.

* `library`: the shared library, found, checked and loaded;
* `buffers`: memory for the arrays that the loops fill;
* the sources themselves.
"""

import contextlib
import os
from collections.abc import Iterator

import tensorflow as tf

from kbptt._tensorflow import is_being_compiled, is_being_exported
from kbptt.engine.native.library import library as library
from kbptt.engine.settings import settings, using


@contextlib.contextmanager
def disabled() -> Iterator[None]:
    """Inside this `with` block, layers do not use the compiled loops."""
    with using(native=False):
        yield


def is_usable() -> bool:
    """Whether the compiled loops can run where the code is being traced."""
    return why_not_usable() is None


def why_not_usable() -> str | None:
    """Why the compiled loops cannot run where the code is being traced; None if they can."""
    if not settings().native or os.environ.get("KBPTT_NATIVE", "1") == "0":
        return "the C++ loops are disabled (`kbptt.engine.native.disabled()`, `KBPTT_NATIVE=0`)"
    if library() is None:
        return "kbptt was installed without its C++ loops: they need a C++ compiler"
    if is_being_exported():
        return "an exported model cannot call into this process"
    if is_being_compiled():
        return "XLA compiles the graph as a whole (`jit_compile=True`)"
    if tf.config.get_visible_devices("GPU"):
        return "TensorFlow sees a GPU"
    return None
