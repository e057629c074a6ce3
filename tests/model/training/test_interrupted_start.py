"""SIGTERM while Ray starts, or is joined: the run ends as any interrupted run does, and the handler is kept."""

import signal
import sys

import pytest
from training_fixtures import run

from sluice.model.training.errors import TrainingInterrupted
from sluice.model.training.launch import joined_ray

_ENDED_WHILE_RAY_STARTS = """
import os, signal
import sluice.core.local_ray as local_ray
from sluice.model.training.launch import joined_ray

def ours(*_):
    raise KeyboardInterrupt

signal.signal(signal.SIGTERM, ours)
started = []

def end_on_the_way(process, timeout_s):
    started.append(process.pid)
    os.kill(os.getpid(), signal.SIGTERM)

local_ray._read_line = end_on_the_way
try:
    with joined_ray(1):
        raise AssertionError("Ray is up")
except KeyboardInterrupt:
    print("interrupted")
assert signal.getsignal(signal.SIGTERM) is ours
try:
    os.kill(started[0], 0)
except ProcessLookupError:
    print("nothing left")
"""


@pytest.mark.process
def test_sigterm_while_ray_starts_is_an_interruption_that_leaves_nothing_behind() -> None:
    done = run([sys.executable, "-c", _ENDED_WHILE_RAY_STARTS])
    assert done.stdout.splitlines() == ["interrupted", "nothing left"], done.stderr
    assert "Traceback" not in done.stderr


def test_sigterm_while_a_cluster_is_joined_is_an_interruption(monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    def joining(**options: object) -> None:
        # As Ray does: its own handler ends the process with the signal's number.
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        raise SystemExit(signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    monkeypatch.setattr(ray, "init", joining)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    with pytest.raises(TrainingInterrupted, match="while Ray was starting"), joined_ray(1):
        pass
    assert signal.getsignal(signal.SIGTERM) is before
