"""The cores that this process may use."""

import os


def cores() -> int:
    """Number of CPUs in the affinity mask of this process."""
    affinity = getattr(os, "sched_getaffinity", None)  # macOS and Windows have none
    return len(affinity(0)) if affinity else os.cpu_count() or 1
