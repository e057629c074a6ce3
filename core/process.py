"""Processes of this machine."""

import os


def is_running(pid: int) -> bool:
    """Return whether a process has this number now, whoever owns it."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
