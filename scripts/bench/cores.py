"""The cores that this process may use; without kbptt: workers import a specific checkout of it."""

import os


def cores() -> int:
    affinity = getattr(os, "sched_getaffinity", None)  # macOS and Windows have none
    return len(affinity(0)) if affinity else os.cpu_count() or 1
