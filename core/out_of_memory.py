"""Kills of processes for want of memory, by the kernel's own counters."""

import re
import signal
from pathlib import Path

_CGROUPS = Path("/sys/fs/cgroup")
_OWN_CGROUP = Path("/proc/self/cgroup")
_VMSTAT = Path("/proc/vmstat")
_OOM_KILL = re.compile(r"^oom_kill (\d+)$", re.MULTILINE)


def count_oom_kills() -> int | None:
    """Count the kills for want of memory so far, in this process's cgroup or else on this machine; None if unknown."""
    for path in (*_counters(), _VMSTAT):
        try:
            found = _OOM_KILL.search(path.read_text())
        except OSError:
            continue
        if found:
            return int(found[1])
    return None


def describe_exit(code: int, before: int | None, after: int | None) -> str:
    """Describe how a process ended by its exit code and the number of out-of-memory kills before it started and after.

    As in `was killed by SIGKILL: memory ran out (1 process killed by the kernel)`.
    """
    # A shell reports a signal as a status.
    code = 128 - code if 128 < code < 192 else code
    if code >= 0:
        return f"ended with status {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    if code != -signal.SIGKILL:
        return f"was ended by {name}"
    if before is None or after is None:
        return f"was killed by {name}, as the system does when memory runs out (it does not say so here)"
    if kills := describe_kills(before, after):
        return f"was killed by {name}: {kills}"
    return f"was killed by {name}, though the kernel counts no kill for want of memory"


def describe_kills(before: int | None, after: int | None) -> str | None:
    """Say that memory ran out if the kernel killed processes for it meanwhile; None if not, or if nobody knows."""
    if before is None or after is None or after <= before:
        return None
    processes = "1 process" if after == before + 1 else f"{after - before} processes"
    return f"memory ran out ({processes} killed by the kernel)"


def _counters() -> list[Path]:
    """Files with the counter of this process's cgroup: version 2, then version 1."""
    try:
        lines = _OWN_CGROUP.read_text().splitlines()
    except OSError:
        return []
    paths = []
    for line in lines:
        _, controllers, group = line.split(":", 2)
        if not controllers:
            # In a container the path may be that of the host, and the files those of the root.
            paths += [_CGROUPS / group.lstrip("/") / "memory.events", _CGROUPS / "memory.events"]
        elif "memory" in controllers.split(","):
            top = _CGROUPS / "memory"
            paths += [top / group.lstrip("/") / "memory.oom_control", top / "memory.oom_control"]
    return paths
