"""TensorFlow without its start-up messages, which are no news to the user of a command."""

import contextlib
import os
import sys
from collections.abc import Iterator


@contextlib.contextmanager
def quiet_start() -> Iterator[None]:
    """Silences what TensorFlow's C++ code writes to stderr while it is imported.

    Its logging ignores the log level until it is initialized, so the stream itself is set aside.
    Afterwards the level holds: unless the user chose another in `TF_CPP_MIN_LOG_LEVEL`, only fatal
    messages are written. An error still reaches Python as an exception.
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
