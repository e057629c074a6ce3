"""Run an untrusted Python program without network, in bounded time and memory, or not at all.

A program gets a file system of its own in new user, mount, process and network namespaces: the system's libraries and
the interpreter, read-only, and an empty /tmp. It runs as nobody and without this process's environment. Where the
system permits such namespaces only to bubblewrap, that builds them. Where neither works, `run` raises: nothing here
runs a program that is not isolated.
"""

import json
import os
import selectors
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import IO, Any, Literal

from sluice.model import sandbox_guard

Backend = Literal["namespaces", "bubblewrap"]

_LIBRARIES = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/share/zoneinfo", "/etc/ld.so.cache", "/etc/localtime")
_DEVICES = ("/dev/null", "/dev/zero", "/dev/random", "/dev/urandom")
_ENVIRONMENT = {"PATH": "/usr/bin:/bin", "HOME": "/tmp", "LANG": "C.UTF-8", "PYTHONHASHSEED": "0"}  # noqa: S108
_OPTIONS = ("-B", "-s", "-S", "-P", "-X", "utf8")
"""No site-packages: a program has the standard library."""
_GRACE_S = 10.0
"""For the set-up on a busy machine: the guard inside counts the program's own time."""
_PROBE = "import os; print(*sorted(os.listdir('/')))"


class SandboxUnavailable(RuntimeError):
    """No program can be isolated on this machine; the message says why."""


@dataclass(frozen=True)
class SandboxLimits:
    """Limits of a program."""

    wall_s: float = 5.0
    cpu_s: int = 5
    memory_bytes: int = 256 << 20
    """Address space of each process."""
    processes: int = 1
    """Processes and threads at once. With 1 the program can start none, and `memory_bytes` is all that it gets."""
    tmp_bytes: int = 16 << 20
    """Size of /tmp, the only place that can be written."""
    output_bytes: int = 64 << 10
    """Limit of standard output and of standard error each. A program that writes more is killed."""


@dataclass(frozen=True)
class Outcome:
    """How a program ended."""

    ended: Literal["exited", "killed", "timeout", "output"]
    """`killed` by a signal, for more time or for more output than the limit."""
    status: int
    """Exit status, or the signal's number where it was killed by one."""
    stdout: str
    stderr: str

    @property
    def succeeded(self) -> bool:
        """Whether the program exited with status 0. A program can do that before it reaches its end."""
        return self.ended == "exited" and self.status == 0


def run(source: str, limits: SandboxLimits = SandboxLimits(), *, backend: Backend | None = None) -> Outcome:
    """Run a program to its end or to a limit. None of its processes is left afterwards.

    Raises SandboxUnavailable where it cannot be isolated; `backend` chooses one of those that work.
    """
    return _run(source, limits, backend or available_backend())


@cache
def available_backend() -> Backend:
    """Return the first backend that isolates a program on this machine. Raises SandboxUnavailable without one."""
    reasons = []
    for backend in ("namespaces", "bubblewrap"):
        if not (reason := why_not(backend)):
            return backend
        reasons.append(f"{backend}: {reason}")
    raise SandboxUnavailable(
        f"no program can be isolated on this machine ({'; '.join(reasons)}); allow unprivileged user namespaces "
        "(sysctl user.max_user_namespaces) or install bubblewrap. Code is never run without isolation"
    )


@cache
def why_not(backend: Backend) -> str:
    """Return why the backend does not isolate programs here; empty where it does."""
    if not sys.platform.startswith("linux"):
        return "needs Linux"
    if os.uname().machine not in sandbox_guard.ARCHITECTURES:
        return f"has no filter of system calls for {os.uname().machine}"
    if backend == "bubblewrap" and not shutil.which("bwrap"):
        return "bwrap is not installed"
    try:
        seen = _run(_PROBE, SandboxLimits(), backend)
    except SandboxUnavailable as error:
        return str(error)
    # What the program sees is the proof: a set-up that silently did nothing would show the machine's own folders.
    expected = {Path(path).parts[1] for path in (*_shown(), "/tmp")}  # noqa: S108
    if not seen.succeeded or not set(seen.stdout.split()) <= expected:
        return f"the program saw {seen.stdout.strip() or seen.stderr.strip() or seen.ended}"
    return ""


def _shown() -> list[str]:
    """Paths that a program may read: system libraries, devices, and the interpreter, which is the only program."""
    paths = [*_LIBRARIES, *_DEVICES, _interpreter()]
    if sys.base_prefix != "/usr":
        paths.append(str(Path(sys.base_prefix).resolve() / "lib"))
    return paths


def _interpreter() -> str:
    """The interpreter itself, rather than the virtual environment's link to it."""
    return str(Path(getattr(sys, "_base_executable", sys.executable)).resolve())


def _run(source: str, limits: SandboxLimits, backend: Backend) -> Outcome:
    status_read, status_write = os.pipe()
    task = sandbox_guard.Task(
        status_fd=status_write,
        builds_namespaces=backend == "namespaces",
        shown=_shown(),
        command=[_interpreter(), *_OPTIONS],
        environment=_ENVIRONMENT,
        wall_s=limits.wall_s,
        cpu_s=limits.cpu_s,
        memory_bytes=limits.memory_bytes,
        tmp_bytes=limits.tmp_bytes,
        file_bytes=min(limits.tmp_bytes, 4 << 20),
        processes=limits.processes,
    )
    guard = [_interpreter(), "-I", "-S", "-c", _guard_source(), json.dumps(task._asdict())]
    command = guard if backend == "namespaces" else [*_bubblewrap(limits), *guard]
    with os.fdopen(status_read, "rb") as status:
        try:
            process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=_ENVIRONMENT,
                cwd="/",
                pass_fds=[status_write],
                start_new_session=True,
            )
        except OSError as error:
            raise SandboxUnavailable(f"{command[0]} cannot be started: {error}") from error
        finally:
            os.close(status_write)
        with process:
            try:
                output, cut = _exchange(process, source.encode("utf-8", "surrogateescape"), limits)
            finally:
                process.kill()
        stdout, stderr = (output[name].decode(errors="replace") for name in ("stdout", "stderr"))
        if cut:
            return Outcome(cut, signal.SIGKILL, stdout, stderr)
        report: dict[str, Any] = json.loads(status.readline() or b"{}")
    if "exit" in report:
        return Outcome("exited", report["exit"], stdout, stderr)
    if "signal" in report:
        return Outcome("killed", report["signal"], stdout, stderr)
    if "timeout" in report:
        return Outcome("timeout", signal.SIGKILL, stdout, stderr)
    reason = report.get("error") or stderr.strip().rpartition("\n")[2] or "the sandbox ended without an outcome"
    raise SandboxUnavailable(reason)


@cache
def _guard_source() -> str:
    return Path(sandbox_guard.__file__).read_text(encoding="utf-8")


def _bubblewrap(limits: SandboxLimits) -> list[str]:
    """The command that builds the same namespaces and file system as `sandbox_guard.build_root`."""
    command = ["bwrap", "--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try"]
    command += ["--die-with-parent", "--new-session", "--cap-drop", "ALL"]
    if os.geteuid() == 0:
        # Root needs no user namespace, and the guard becomes nobody.
        command += ["--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"]
    else:
        command += ["--unshare-user", "--uid", str(sandbox_guard.NOBODY), "--gid", str(sandbox_guard.NOBODY)]
    for path in map(Path, _shown()):
        # Folders that it makes without being told are for their owner alone, which the program is not.
        above = [parent for parent in reversed(path.parents) if parent != Path("/")]
        command += [part for parent in above for part in ("--perms", "0755", "--dir", str(parent))]
        if path.is_symlink():
            command += ["--symlink", str(path.readlink()), str(path)]
        else:
            bind = "--dev-bind" if str(path) in _DEVICES else "--ro-bind-try"
            command += [bind, str(path), str(path)]
    command += ["--size", str(limits.tmp_bytes), "--perms", "1777", "--tmpfs", "/tmp", "--remount-ro", "/"]  # noqa: S108
    return [*command, "--chdir", "/tmp", "--"]  # noqa: S108


def _exchange(
    process: "subprocess.Popen[bytes]", source: bytes, limits: SandboxLimits
) -> tuple[dict[str, bytes], Literal["output", "timeout"] | None]:
    """Hand the program over, and read its output; also returns what limit it exceeded, if any."""
    assert process.stdin is not None and process.stdout is not None and process.stderr is not None
    output = {"stdout": b"", "stderr": b""}
    deadline = time.monotonic() + limits.wall_s + _GRACE_S
    try:
        process.stdin.write(source)
        process.stdin.close()
    except BrokenPipeError:
        pass  # the set-up failed, which the status says
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ, "stdout")
        selector.register(process.stderr, selectors.EVENT_READ, "stderr")
        while selector.get_map():
            ready = selector.select(max(0.0, deadline - time.monotonic()))
            if not ready:
                return output, "timeout"
            for key, _ in ready:
                stream: IO[bytes] = key.fileobj  # type: ignore[assignment]
                if not (read := os.read(stream.fileno(), 1 << 16)):
                    selector.unregister(stream)
                output[key.data] += read
                if len(output[key.data]) > limits.output_bytes:
                    output[key.data] = output[key.data][: limits.output_bytes]
                    return output, "output"
    return output, None
