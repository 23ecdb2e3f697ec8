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
    """A scope in which layers do not use the compiled loops."""
    with using(native=False):
        yield


def is_usable() -> bool:
    """Whether the compiled loops can run where the code is being traced."""
    return (
        settings().native
        and os.environ.get("KBPTT_NATIVE", "1") != "0"
        and library() is not None
        and not is_being_exported()
        and not is_being_compiled()
        and not tf.config.get_visible_devices("GPU")
    )
