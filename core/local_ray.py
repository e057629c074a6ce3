"""A Ray cluster of one's own on this machine: started with retries, watched, and removed whole.

It lives in a process of its own, `core/ray_process.py`. So a start that fails, hangs or crashes is one session of
processes to end, and the next attempt begins in a fresh process.
"""

import json
import logging
import os
import select
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NotYet
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path

from sluice.core.failure import Failure
from sluice.core.out_of_memory import count_oom_kills, describe_exit
from sluice.core.ray_process import end_session

ATTEMPTS = 4
"""Ray gives its own processes 15 to 30 s to start, which a busy machine may exceed."""
ATTEMPT_S = 150.0
START_S = ATTEMPTS * ATTEMPT_S
"""The longest that a start takes."""
_END_S = 10.0
_MAX_SOCKET_PATH = 107
_PREFIX = "sluice-ray-"
_LONGEST_SOCKET = f"{_PREFIX}12345678/session_2026-01-01_00-00-00_000000_1234567/sockets/plasma_store"


class RayFailed(Failure):
    """Ray did not start, or died."""


class LocalRay:
    """A cluster of `cpus` (all). It ends with this process, in whatever way that ends; `stop` ends it now.

    What Ray prints goes to `log`, or to standard error.
    """

    def __init__(self, cpus: int | None = None, *, dashboard: bool = False, log: Path | None = None) -> None:
        self.address = ""
        """Known once it has started."""
        self._options = [*([] if cpus is None else ["--cpus", str(cpus)]), *(["--dashboard"] if dashboard else [])]
        self._log = log
        self._process: subprocess.Popen[str] | None = None
        self._folder = Path()
        self._oom_kills = count_oom_kills()
        self._lock = threading.Lock()
        self._is_stopping = False
        self._end: Future[str] = Future()

    def start(self, *, attempt_s: float = ATTEMPT_S, tell: Callable[[str], None] | None = None) -> "LocalRay":
        """Return once Ray is up. What a failed attempt left is removed.

        `tell` gets a line for every further attempt; without it, the line goes to standard error.
        Raises ValueError where the temporary folder's name is too long, and RayFailed after the last attempt.
        """
        if fault := socket_path_fault(tempfile.gettempdir()):
            raise ValueError(fault)
        why = ""
        for attempt in range(1, ATTEMPTS + 1):
            if attempt > 1:
                line = f"Ray did not start: {why}; attempt {attempt} of {ATTEMPTS}"
                print(line, file=sys.stderr, flush=True) if tell is None else tell(line)
            try:
                process = self._launch()
                found = _read_line(process, attempt_s)
            except BaseException:
                self.stop()
                raise
            if "address" in found:
                self.address = found["address"]
                threading.Thread(target=self._watch, args=(process,), name="local_ray", daemon=True).start()
                return self
            self._remove()
            if self._is_stopping:
                break
            why = found.get("ended") or self._describe_end(process)
        if self._is_stopping:
            raise RayFailed("Ray was stopped while it started")
        raise RayFailed(
            f"Ray did not start in {ATTEMPTS} attempts: {why}; the load of this machine is {os.getloadavg()[0]:.1f} on "
            f"{os.cpu_count()} cores: try again when it is less busy"
        )

    def why_ended(self, timeout_s: float | None = None) -> str | None:
        """Wait for Ray to die, other than by `stop`, and return why; None if it is still up after `timeout_s`."""
        try:
            return self._end.result(timeout_s)
        except NotYet:
            return None

    def stop(self) -> None:
        """Kill Ray's processes and remove its files, from any thread; a start that is going fails."""
        self._is_stopping = True
        self._remove()

    def _launch(self) -> subprocess.Popen[str]:
        with self._lock, self._log.open("ab") if self._log is not None else nullcontext() as errors:
            if self._is_stopping:
                raise RayFailed("Ray was stopped while it started")
            self._folder = Path(tempfile.mkdtemp(prefix=_PREFIX))
            try:
                self._process = subprocess.Popen(
                    [sys.executable, "-m", "sluice.core.ray_process", "--folder", str(self._folder), *self._options],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=errors,
                    text=True,
                    start_new_session=True,
                )
            except BaseException:
                self._folder.rmdir()
                raise
            return self._process

    def _watch(self, process: subprocess.Popen[str]) -> None:
        why = _read_line(process).get("ended") or self._describe_end(process)
        if not self._is_stopping:
            self._end.set_result(f"Ray died: {why}")

    def _describe_end(self, process: subprocess.Popen[str]) -> str:
        return f"its process {describe_exit(process.wait(), self._oom_kills, count_oom_kills())}"

    def _remove(self) -> None:
        with self._lock:
            process, self._process = self._process, None
            if process is None:
                return
            assert process.stdin is not None
            process.stdin.close()
            with suppress(subprocess.TimeoutExpired):
                process.wait(_END_S)
            # What it could not end itself, because it was killed or hangs.
            end_session(process.pid, self._folder)
            process.wait()


def connect(address: str) -> None:
    """Connect this process to a cluster of its own. Ray prints nothing of its death here, which the caller reports."""
    import ray

    # Ray's C++ would print every call that is cut off. It announces the variable where it first reads it.
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    with _without_stderr():
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    # And its Python the last lines of the raylet's log.
    ray._private.worker.print_to_stdstream = lambda *_, **__: None


@contextmanager
def _without_stderr() -> Iterator[None]:
    """Drop what is written to file descriptor 2, by C++ too."""
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def socket_path_fault(temporary: str) -> str | None:
    """Why Ray cannot keep its sockets below this temporary folder, or None."""
    length = len(os.fsencode(Path(temporary) / _LONGEST_SOCKET))
    if length <= _MAX_SOCKET_PATH:
        return None
    most = _MAX_SOCKET_PATH - len(_LONGEST_SOCKET) - 1
    return (
        f"the temporary folder {temporary} is too long for Ray: the paths of its sockets there have {length} bytes, "
        f"and the system allows {_MAX_SOCKET_PATH}; set TMPDIR to a folder of at most {most} bytes, such as /tmp"
    )


def _read_line(process: subprocess.Popen[str], timeout_s: float | None = None) -> dict[str, str]:
    """The next line of the process, or that none came in time; empty if the process ended without one."""
    assert process.stdout is not None
    if not select.select([process.stdout], [], [], timeout_s)[0]:
        return {"ended": f"it was not up within {timeout_s:g} s"}
    line = process.stdout.readline()
    found: dict[str, str] = json.loads(line) if line else {}
    return found
