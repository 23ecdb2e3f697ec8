"""A trial: a pure function from its configuration to its result."""

import threading
from typing import Any

from kbptt import methods

# The seeds of Keras and NumPy belong to the process: trials take turns in it.
_one_at_a_time = threading.Lock()


def execute(config: dict[str, Any]) -> dict[str, Any]:
    """Runs the trial function that a configuration names. This is what a worker is sent."""
    with _one_at_a_time:
        for module in config.get("imports", ()):
            __import__(module)
        return methods.find(config["trial"])(config)
