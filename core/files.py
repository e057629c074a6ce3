"""Files and folders that appear complete or not at all, locks, and disk errors that name their file."""

import errno
import fcntl
import hashlib
import json
import os
import platform
import re
import secrets
import shlex
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import IO, Any

_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
_ON = ", on the file system "
_WITHOUT_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS)
"""Errors of network file systems that have no locks."""
_WRITER = re.compile(r"(?P<pid_space>[0-9a-f]{6})-(?P<pid>\d{1,7})-[0-9a-f]{6}")
"""End of a partial write's name."""
_ABANDONED_S = 24 * 3600.0


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Add `path` to an OSError of the block that names no file, be it the system's, numpy's or Arrow's."""
    try:
        yield
    except OSError as error:
        named = error if error.filename else OSError(error.errno or errno.EIO, error.strerror or str(error), str(path))
        named = with_file_system(named)
        if named is error:
            raise
        raise named from error


def with_file_system(error: OSError) -> OSError:
    """The error of a full disk with the name of its file system and what is missing there; others as they are.

    To be called before anything is removed, because the removal makes room.
    """
    # Of a copy, the second name is the file that was written.
    name = error.filename2 or error.filename
    if error.errno not in _DISK_FULL or not isinstance(name, str) or _ON in str(error.strerror):
        return error
    path = Path(name).absolute()
    place = next(each for each in (path, *path.parents) if each.exists())
    mount = next(each for each in (place, *place.parents) if each.is_mount())
    status = os.statvfs(mount)
    free, size = (blocks * status.f_frsize / 1e6 for blocks in (status.f_bavail, status.f_blocks))
    files = f" and {status.f_favail:,} of {status.f_files:,} files" if status.f_files else ""
    left = f"{free:,.1f} of {size:,.1f} MB{files} were left; make room there, or write to another one"
    return OSError(error.errno, f"{error.strerror}{_ON}{mount}: {left}", name)


@contextmanager
def atomic_write(path: Path, *, fsync: bool = False) -> Iterator[Path]:
    """Yield a hidden sibling of `path`, not yet there, to write a file or a folder to; rename it to `path` on success.

    An earlier file or folder of that name is replaced. If the block fails, `path` stays as it was and the sibling is
    removed; a sibling that a killed process left is removed by the next write of the same path. With `fsync`, the
    content is on disk before it gets its name, and the name before this returns: a crash of the machine leaves the
    earlier content or the new one. An OSError, such as a full disk's, names `path`.
    """
    for stale in stale_partials(path):
        remove(stale)
    partial = path.with_name(f".{path.name}.{_pid_space()}-{os.getpid()}-{secrets.token_hex(3)}")
    try:
        with naming(path):
            yield partial
            if fsync:
                for each in [*partial.rglob("*"), partial] if partial.is_dir() else [partial]:
                    _fsync(each)
            if partial.is_dir():
                remove(path)
            partial.replace(path)
            if fsync:
                _fsync(path.parent)
    finally:
        remove(partial)


def stale_partials(path: Path) -> list[Path]:
    """Partial writes of `path` that nobody will finish."""
    hidden = f".{path.name}."
    try:
        # Of names, because a path for each of many files takes several times as long.
        partials = [name for name in os.listdir(path.parent) if name.startswith(hidden)]  # noqa: PTH208
    except OSError:
        return []
    return [path.with_name(name) for name in partials if _is_abandoned(path.with_name(name), name.removeprefix(hidden))]


def _is_abandoned(partial: Path, writer: str) -> bool:
    """Return whether the process that `writer` names is gone; where its processes are not seen, whether it wrote
    nothing for a day.
    """
    if (named := _WRITER.fullmatch(writer)) is None:
        return False
    try:
        if named["pid_space"] != _pid_space():
            times = [each.lstat().st_mtime for each in (partial, *partial.rglob("*"))]
            return time.time() - max(times) > _ABANDONED_S
    except OSError:
        return False  # a writer that has just finished
    import psutil  # here, because it takes time and partial writes are rarely left

    return not psutil.pid_exists(int(named["pid"]))


@cache
def _pid_space() -> str:
    """Short hash of this boot of the machine and this container, within which a process id names one process."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii")
        place = f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        place = platform.node()
    return hashlib.sha256(place.encode()).hexdigest()[:6]


def write_json(path: Path, value: Any) -> None:
    """Write a value as sorted, indented JSON, atomically; missing parent folders are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as partial:
        partial.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def create_private(path: Path, content: bytes) -> None:
    """Write a file that its owner alone can read, unless there is one. It appears complete; the first writer wins."""
    fresh = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    try:
        # Unlike a rename, a link fails if another process was faster.
        os.link(fresh, path)
    except FileExistsError:
        pass
    finally:
        fresh.unlink()


def read_private(path: Path) -> bytes:
    """Return the content of a file that its owner alone can read; ValueError names another user who owns it."""
    try:
        return path.read_bytes()
    except PermissionError:
        try:
            owner = path.owner()
        except (KeyError, OSError):
            owner = "another user"
        raise ValueError(
            f"{path} cannot be read, as it belongs to {owner}: run the command as that user, or give it to this one "
            f"(chown {os.getuid()} {shlex.quote(str(path))})"
        ) from None


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def copy_tree(source: Path, target: Path, copy: Callable[[Path, Path], object] = shutil.copyfile) -> None:
    """Copy the files below a folder into a new one. It stops at the first error, which names a file."""
    target.mkdir(parents=True)
    for path in sorted(source.iterdir()):
        if path.is_dir():
            copy_tree(path, target / path.name, copy)
        else:
            copy(path, target / path.name)


def link_or_copy(source: Path, target: Path) -> None:
    """Hard-link a file that is written once; copy it where the file system has no links."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def expand_home(path: str) -> Path:
    """Return the path with the home folder for a leading `~`. `~x` where there is no user x is a file of that name."""
    return Path(os.path.expanduser(path))  # noqa: PTH111  Path.expanduser raises there.


def remove(path: Path) -> None:
    """Remove a file or a folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


@contextmanager
def holding_lock(path: Path, holder: str) -> Iterator[bool]:
    """Hold the lock of a file, in which `holder` is then written; yields False if another process holds it."""
    with path.open("a+") as file:
        if held := try_lock(file):
            file.truncate(0)
            file.write(holder)
            file.flush()
        yield held


def lock_holder(path: Path) -> str | None:
    """Return what the holder of a file's lock wrote there, or `unknown`; None if nobody holds it."""
    if not path.is_file():
        return None
    with path.open() as file:
        return None if try_lock(file) else file.read().strip() or "unknown"


def try_lock(file: IO[str] | int) -> bool:
    """Lock an open file or folder; False if another process has it. The system releases the lock when its holder ends.

    On a file system without locks, always True.
    """
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in _WITHOUT_LOCKS:
            raise
    return True
