"""SIGTERM while Ray starts: a real start, which takes the signal for itself, ends as any interrupted run does."""

import sys
import time
from pathlib import Path

import pytest
from training_fixtures import run

_ASKED_WHILE_RAY_STARTS = """
import os, signal
import ray._private.node as node
from sluice.model.training.errors import TrainingInterrupted
from sluice.model.training.launch import joined_ray

def ours(*_):
    raise KeyboardInterrupt

signal.signal(signal.SIGTERM, ours)
start = node.Node.start_head_processes

def ended_on_the_way(self):
    start(self)
    print(" ".join(str(process.process.pid) for kind in self.all_processes.values() for process in kind), flush=True)
    # Ray's own handler, which ends the process without a word.
    assert signal.getsignal(signal.SIGTERM) is not ours
    os.kill(os.getpid(), signal.SIGTERM)

node.Node.start_head_processes = ended_on_the_way
try:
    with joined_ray(1):
        raise AssertionError("Ray is up")
except TrainingInterrupted as interrupted:
    print(interrupted)
assert signal.getsignal(signal.SIGTERM) is ours
"""


@pytest.mark.process
def test_sigterm_while_ray_starts_is_an_interruption_that_leaves_nothing_behind() -> None:
    done = run([sys.executable, "-c", _ASKED_WHILE_RAY_STARTS])
    pids, said = done.stdout.splitlines()
    assert said == "stop requested while Ray was starting"
    assert "Traceback" not in done.stderr
    assert pids
    # They were killed, and nobody waited for them.
    deadline = time.monotonic() + 120
    while left := [pid for pid in pids.split() if _is_alive(int(pid))]:
        assert time.monotonic() < deadline, left
        time.sleep(0.02)


def _is_alive(pid: int) -> bool:
    """A process that ended and that nobody has asked after is not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False
