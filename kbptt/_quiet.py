"""Suppresses TensorFlow's start-up messages, which mean nothing to the user of a command."""

import contextlib
import os
import sys
from collections.abc import Iterator


@contextlib.contextmanager
def quiet_start() -> Iterator[None]:
    """Suppresses what TensorFlow's C++ code writes to stderr while it is imported.

    Its logging ignores the log level until it is initialized, so stderr is redirected. Afterwards
    the level applies: only fatal messages, unless the user set `TF_CPP_MIN_LOG_LEVEL`. Errors still
    reach Python as exceptions.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        with open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
