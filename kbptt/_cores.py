"""The cores that this process may use."""

import os


def cores() -> int:
    """How many there are: of the machine, those that the process is not kept from."""
    affinity = getattr(os, "sched_getaffinity", None)  # macOS and Windows have none
    return len(affinity(0)) if affinity else os.cpu_count() or 1
