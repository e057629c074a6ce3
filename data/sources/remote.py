"""Remote files with fsspec: downloaded completely before they are read, with retries and a check of the hash."""

import errno
import hashlib
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar
from urllib.parse import unquote, urlsplit

from fsspec import AbstractFileSystem
from fsspec.callbacks import Callback

from sluice.core.files import atomic_write
from sluice.core.manifest import file_hash
from sluice.data.config import without_secrets
from sluice.data.sources.globs import Choice, is_glob
from sluice.data.sources.limits import too_large
from sluice.data.sources.location import RemoteFiles

Result = TypeVar("Result")

FIRST_PAUSE_S = 0.5
_CONNECT_S, _READ_S = 10.0, 60.0
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_VERSION = (
    *("ETag", "etag", "Content-MD5", "md5Hash", "mtime"),
    *("LastModified", "Last-Modified", "last_modified", "updated", "created"),
)
"""Names that file systems use for the version of a file."""


@dataclass(frozen=True)
class Remote:
    """Downloads the files of a remote source."""

    location: RemoteFiles
    cache: Path
    attempts: int
    max_bytes: int
    pause: Callable[[float], None] = time.sleep

    def files(self, choice: Choice, sha256: str | None = None) -> Iterator[tuple[str, Path]]:
        """Yield (path below the source, local copy) of each file, in name order, downloading one at a time.

        A cached copy is used if it has the pinned hash, or if the remote file still has its version. Raises ValueError
        naming the URI for a file that is unavailable or does not have the pinned `sha256`.
        """
        for below, system, path, name, is_one in self._listed(choice):
            if sha256 and not is_one:
                raise ValueError(f"data.sources: {self.location.name} is a directory; sha256 pins one file")
            yield below, self._fetch(system, path, name, sha256)

    def versions(self, choice: Choice) -> list[tuple[str, str]]:
        """(path below the source, version) of each file, in name order. Nothing is downloaded.

        A version has what the file system knows of it, such as ETag and size. Raises ValueError as `files` does.
        """
        return [
            (below, self._version(system, path, name) or "unknown")
            for below, system, path, name, _ in self._listed(choice)
        ]

    def _listed(self, choice: Choice) -> Iterator[tuple[str, AbstractFileSystem, str, str, bool]]:
        """Yield (path below the source, file system, path in it, name in messages, whether it is the source itself)."""
        name = self.location.name
        system, path = self._retried(self._open, name)

        def list_files() -> list[str] | None:
            if self._is_web:
                return None  # a web server has no directories
            system.invalidate_cache()
            if is_glob(path):
                return [each for each in system.glob(path) if not system.isdir(each)]
            return list(system.find(path)) if system.isdir(path) else None

        listed = self._retried(list_files, name)
        if listed is None:
            yield self._shown(path), system, path, name, True
            return
        parts = path.split("/")
        # The folders before the first one with a wildcard.
        base = "/".join(parts[: next((number for number, part in enumerate(parts) if is_glob(part)), len(parts))])
        for each in sorted(listed):
            below = each.removeprefix(base).lstrip("/")
            if choice(below) and not any(part.startswith(".") for part in below.split("/")):
                yield below, system, each, without_secrets(system.unstrip_protocol(each)), False

    def _open(self) -> tuple[AbstractFileSystem, str]:
        from fsspec.core import url_to_fs

        options: dict[str, Any] = {}
        if self._is_web:
            import aiohttp

            options["client_kwargs"] = {
                "timeout": aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_S, sock_read=_READ_S)
            }
        system, path = url_to_fs(self.location.uri, **options)
        return system, str(path)

    @property
    def _is_web(self) -> bool:
        return self.location.protocol in ("http", "https")

    def _shown(self, path: str) -> str:
        return unquote(PurePosixPath(urlsplit(path).path if self._is_web else path).name) or "index"

    def _fetch(self, system: AbstractFileSystem, path: str, name: str, sha256: str | None = None) -> Path:
        # The versions of web servers are not reliable: without a pin the file is downloaded again.
        version = sha256 or ""
        if not version and not self._is_web:
            version = self._version(system, path, name)
        key = hashlib.sha256(f"{self.location.protocol} {path} {version}".encode()).hexdigest()[:16]
        copy = self.cache / f"{key}-{self._shown(path)[-100:]}"
        if version and copy.is_file() and (not sha256 or file_hash(copy) == sha256):
            return copy
        self.cache.mkdir(parents=True, exist_ok=True)
        with atomic_write(copy) as partial:
            self._retried(lambda: system.get_file(path, str(partial), callback=_AtMost(self.max_bytes)), name)
            if sha256 and (found := file_hash(partial)) != sha256:
                raise ValueError(
                    f"data.sources: {name} has sha256 {found}, the source pins {sha256}; "
                    "do not use it, or correct the pin"
                )
        return copy

    def _version(self, system: AbstractFileSystem, path: str, name: str) -> str:
        """Version and size of a file; empty where the file system keeps no versions."""
        info = self._retried(lambda: system.info(path), name)
        known = {key: str(info[key]) for key in _VERSION if info.get(key)}
        return json.dumps(known | {"size": info.get("size")}, sort_keys=True) if known else ""

    def _retried(self, action: Callable[[], Result], name: str) -> Result:
        """Return the action's result; transport and server errors are retried, others are final."""
        for attempt in range(1, self.attempts + 1):
            try:
                return action()
            except FileNotFoundError as error:
                raise ValueError(f"data.sources: {name} does not exist; correct the URI") from error
            except PermissionError as error:
                raise ValueError(f"data.sources: {name} may not be read; check the credentials") from error
            except ImportError as error:
                raise ValueError(f"data.sources: {name} needs a package that is not installed: {error}") from error
            except Exception as error:  # every file system has its own errors
                if isinstance(error, OSError) and error.errno in _DISK_FULL:
                    raise OSError(error.errno, error.strerror, str(self.cache)) from error
                status = getattr(error, "status", None)
                reason = f"HTTP {status}" if status else type(error).__name__
                if isinstance(error, ValueError) or (status and status < 500 and status not in (408, 429)):
                    message = str(error).partition("\n")[0] if isinstance(error, ValueError) else ""
                    raise ValueError(f"data.sources: {name} cannot be read ({message or reason})") from error
            if attempt < self.attempts:
                self.pause(FIRST_PAUSE_S * 2 ** (attempt - 1))
        raise ValueError(
            f"data.sources: {name} cannot be read ({reason}, {self.attempts} attempts); "
            "check the address and the connection, then run again"
        )


class _AtMost(Callback):
    """Stops a transfer that exceeds the limit."""

    def __init__(self, max_bytes: int) -> None:
        super().__init__()
        self.max_bytes = max_bytes

    def call(self, hook_name: str | None = None, **kwargs: Any) -> None:
        if self.value > self.max_bytes:
            raise ValueError(too_large(self.max_bytes))
