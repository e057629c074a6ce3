"""How many cores this process may use."""

import os


def available_cores() -> int:
    """Cores that this process may run on: those it is bound to (taskset, a cpuset), not all that the machine has."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
