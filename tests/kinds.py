"""The three kinds of tests, and the rule that a unit test starts no process and no Ray.

`unit` is the default. `process` tests start processes or use Ray. `matrix` tests repeat for every combination what
`make test` checks for some, so only `make test-all` runs them; they may start processes too.
"""

import multiprocessing.util
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import PurePath
from typing import Any

import pytest

KINDS = ("unit", "process", "matrix")
FOLDERS = {"lifecycle": "process", "benchmarks": "matrix"}
"""The kind of every test below a folder of tests/."""
FIXTURES = ("ray_head", "rank_pool", "postgresql")
"""Fixtures that start processes: a test that uses one is a process test."""
STARTS = frozenset({"subprocess.Popen", "os.fork", "os.forkpty", "os.posix_spawn", "os.exec", "os.system"})
"""Audit events of Python by which a process starts; `multiprocessing` adds its own below."""
QUERIES = frozenset({"uname", "ldconfig", "lscpu", "gcc", "fc-list"})
"""Programs that libraries run once to learn about the machine (gcc: DeepSpeed, fc-list: matplotlib). Which test comes
first is chance.
"""

_running: list[list[str]] = []
"""Starts seen by the unit test that runs now: one list inside `forbid_processes`, none outside."""


class ProcessStarted(pytest.fail.Exception):
    """A unit test started a process. Not an Exception, so that the code under test does not handle it."""


def kind_of(marks: Sequence[str], folder: PurePath, fixtures: Sequence[str]) -> str:
    """Return the kind of a test with these marks, in this folder (relative to tests/), with these fixtures.

    Raises ValueError if its marks name several kinds.
    """
    own = sorted(set(marks) & set(KINDS))
    if len(own) > 1:
        raise ValueError(f"is marked {' and '.join(own)}: keep one of {', '.join(KINDS)}")
    if own:
        return own[0]
    if folder.parts and folder.parts[0] in FOLDERS:
        return FOLDERS[folder.parts[0]]
    return "process" if set(FIXTURES) & set(fixtures) else "unit"


@contextmanager
def forbid_processes() -> Iterator[None]:
    """Refuse to start a process or Ray inside, and fail at the end if the code inside hid the refusal."""
    had_ray = _ray_is_up()
    _running.append([])
    try:
        yield
    finally:
        started = _running.pop()
    if not had_ray and _ray_is_up():
        started.append("ray.init")
    if started:
        raise ProcessStarted(_message(started[0]))


def _message(start: str) -> str:
    return f"a unit test started a process ({start}): mark it `process`, or test without one"


def _ray_is_up() -> bool:
    ray = sys.modules.get("ray")
    return ray is not None and getattr(ray, "is_initialized", bool)()


def _refuse(event: str, arguments: tuple[Any, ...]) -> None:
    if _running and event in STARTS and not (event == "subprocess.Popen" and _program(arguments) in QUERIES):
        start = f"{event} {_program(arguments)}".strip()
        _running[-1].append(start)
        raise ProcessStarted(_message(start))


def _program(arguments: tuple[Any, ...]) -> str:
    """Name of the program that an audit event is about to start, "" for a fork."""
    if not arguments:
        return ""
    command = arguments[0]
    if len(arguments) > 1 and isinstance(arguments[1], list | tuple) and arguments[1]:
        command = arguments[1][0]
    return PurePath(command.decode() if isinstance(command, bytes) else str(command)).name


def _audited_spawn(path: Any, *arguments: Any) -> int:
    """`multiprocessing` starts spawned processes below the audited functions."""
    _refuse("os.exec", (path,))
    return _spawn(path, *arguments)


_spawn = multiprocessing.util.spawnv_passfds
multiprocessing.util.spawnv_passfds = _audited_spawn
sys.addaudithook(_refuse)
