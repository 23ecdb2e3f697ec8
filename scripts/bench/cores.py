"""The cores that this process may use; not by kbptt, of which a worker imports a given checkout."""

import os


def cores() -> int:
    affinity = getattr(os, "sched_getaffinity", None)  # macOS and Windows have none
    return len(affinity(0)) if affinity else os.cpu_count() or 1
