"""Distributions of the package index: downloaded once, checked by hash, read as a stream. Nothing in them is run or
unpacked.
"""

import os
import tarfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal, NamedTuple, TypeVar

import requests
from pypi_simple import PYPI_SIMPLE_ENDPOINT, DistributionPackage, NoSuchProjectError, PyPISimple

from sluice.core.files import atomic_write
from sluice.core.manifest import file_hash
from sluice.data.sources.compression import Damaged, open_stream
from sluice.data.sources.limits import Limits

Result = TypeVar("Result")

_FIRST_PAUSE_S = 0.5
_TIMEOUT_S = (10.0, 60.0)
"""To connect, and between two reads."""


class IndexUnreachable(RuntimeError):
    """The package index cannot be reached or does not answer properly; the message names the reason."""


def index_url() -> str:
    """Return the package index that pip or uv is configured with, or else the public one."""
    names = ("PIP_INDEX_URL", "UV_DEFAULT_INDEX", "UV_INDEX_URL")
    return next((os.environ[name] for name in names if os.environ.get(name)), PYPI_SIMPLE_ENDPOINT)


@dataclass(frozen=True)
class Pin:
    """A distribution; without a hash, the package index provides it."""

    name: str
    version: str
    sha256: str | None = None
    setting: str = "data.packages"
    """Setting that contains the pin, for messages."""
    kind: Literal["sdist", "wheel"] = "sdist"

    @property
    def suffix(self) -> str:
        """End of the file's name; a wheel is one for every machine, and for Python 3 among others."""
        return ".tar.gz" if self.kind == "sdist" else "-none-any.whl"


def fetch(pin: Pin, cache: Path, attempts: int, *, pause: Callable[[float], None] = time.sleep) -> tuple[Path, str]:
    """Return the path of the distribution in `cache`, downloaded unless it is there, and its sha256.

    Raises IndexUnreachable if the index does not answer, ValueError if it has no such file or one with another hash.
    """
    if pin.sha256 and _is_intact(_place(pin, pin.sha256, cache), pin.sha256):
        return _place(pin, pin.sha256, cache), pin.sha256
    with PyPISimple(index_url()) as client:
        distribution = _retried(lambda: _find(client, pin), attempts, pause)
        wanted = pin.sha256 or distribution.digests.get("sha256")
        if wanted is None:
            raise ValueError(
                f"{pin.name}=={pin.version}: the package index has no sha256 of it; set the source's sha256"
            )
        path = _place(pin, wanted, cache)
        if _is_intact(path, wanted):
            return path, wanted
        cache.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as partial:
            # The library's own check is off: the hash is checked below.
            _retried(
                lambda: client.download_package(distribution, partial, verify=False, timeout=_TIMEOUT_S),
                attempts,
                pause,
            )
            found = file_hash(partial)
            if found != wanted:
                expected = f"{pin.setting} pins" if pin.sha256 else "the package index has"
                raise ValueError(
                    f"{pin.name}=={pin.version}: the downloaded file has sha256 {found}, {expected} {wanted}; "
                    "do not use it, or correct the pin"
                )
    return path, wanted


def _place(pin: Pin, sha256: str, cache: Path) -> Path:
    return cache / f"{pin.name}-{pin.version}-{sha256[:16]}{pin.suffix}"


def _is_intact(path: Path, sha256: str) -> bool:
    return path.is_file() and file_hash(path) == sha256


def _find(client: PyPISimple, pin: Pin) -> DistributionPackage:
    try:
        page = client.get_project_page(pin.name, timeout=_TIMEOUT_S)
    except NoSuchProjectError as error:
        raise ValueError(f"{pin.name}: the package index has no such project; correct {pin.setting}") from error
    for distribution in page.packages:
        if (
            distribution.package_type == pin.kind
            and distribution.version == pin.version
            and distribution.filename.endswith(pin.suffix)
        ):
            return distribution
    raise ValueError(f"{pin.name}=={pin.version}: the package index has no {pin.kind} of it that ends in {pin.suffix}")


def _retried(action: Callable[[], Result], attempts: int, pause: Callable[[float], None]) -> Result:
    """Return the action's result; transport and server errors (5xx, 429) are retried with growing pauses."""
    for attempt in range(1, attempts + 1):
        try:
            return action()
        except requests.HTTPError as error:
            status = error.response.status_code
            if status < 500 and status != 429:
                raise IndexUnreachable(f"the package index answered HTTP {status}") from error
            reason = f"HTTP {status}"
        except (requests.exceptions.InvalidURL, requests.exceptions.InvalidSchema, requests.exceptions.MissingSchema):
            raise ValueError(
                f"the package index {index_url()!r} is no URL: correct PIP_INDEX_URL or UV_INDEX_URL"
            ) from None
        except requests.RequestException as error:
            reason = type(error).__name__
        if attempt < attempts:
            pause(_FIRST_PAUSE_S * 2 ** (attempt - 1))
    raise IndexUnreachable(f"the package index cannot be reached ({reason}, {attempts} attempts)")


class Member(NamedTuple):
    """A chosen file of an archive, and the position of its content in the spool."""

    path: str
    """Below the archive's top folder."""
    start: int
    size_bytes: int | None
    """None for a file larger than a document may be, which is not in the spool."""


def spool_members(archive: Path, choice: Callable[[str], bool], limits: Limits, spool: IO[bytes]) -> list[Member]:
    """Copy the chosen regular files into `spool`, in the archive's order, with one in memory at a time.

    A compressed stream can only be read from front to back, and the documents are needed in another order. Raises
    Damaged for an archive that is truncated or a bomb.
    """
    found: list[Member] = []
    try:
        with open_stream(archive, limits, "gzip") as stream, tarfile.open(fileobj=stream, mode="r|") as members:
            for member in members:
                path = member.name.partition("/")[2]
                if not member.isfile() or not choice(path):
                    continue
                if member.size > limits.document_bytes:
                    found.append(Member(path, spool.tell(), None))
                    continue
                file = members.extractfile(member)
                assert file is not None
                found.append(Member(path, spool.tell(), member.size))
                spool.write(file.read())
    except tarfile.TarError as error:
        raise Damaged("damaged archive") from error
    return found
