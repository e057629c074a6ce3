"""What the local sources hold now, as one hash: a source whose files have changed is another source."""

import hashlib
import json
import stat
from pathlib import Path

from sluice.core.manifest import file_hash
from sluice.data.config import IngestConfig, Source
from sluice.data.sources.files import Found, cannot_be_read, find
from sluice.data.sources.formats import SUFFIXES, kind
from sluice.data.sources.globs import Choice
from sluice.data.sources.location import LocalFiles, locate
from sluice.data.sources.origin import Origin


def contents_sha256(config: IngestConfig) -> str | None:
    """Over names and contents of the files that are read of local sources; None where no source is local.

    Neither time nor place counts. Relative paths are from the current folder. A source that does not exist holds
    nothing yet; reading it says so.
    """
    contents = [[source.uri, held] for source in config.given if (held := _held(source)) is not None]
    return hashlib.sha256(json.dumps(contents).encode()).hexdigest() if contents else None


def refuse_changed(config: IngestConfig) -> None:
    """ValueError where the files are not those that the settings were composed with."""
    if config.sources_sha256 is not None and contents_sha256(config) != config.sources_sha256:
        raise ValueError(
            "data.sources: files were changed after the settings were composed: `sluice run` takes them as they are now"
        )


def _held(source: Source) -> list[tuple[str, str]] | None:
    """Name below the source, and sha256 or why the file is not read, of each of its files; None if it is not local."""
    try:
        location = locate(source)
    except ValueError:
        return []
    if not isinstance(location, LocalFiles):
        return None
    choice = Choice(tuple(source.include), tuple(source.exclude))
    return [
        (each.shown, _content(each, source)) if isinstance(each, Found) else (each.path, each.reason)
        for each in find(location, choice, Origin(location.name))
    ]


def _content(found: Found, source: Source) -> str:
    # Of a file that is rejected for its name or kind the content is not read either.
    if kind(found.shown)[0] not in SUFFIXES and source.markup is None:
        return "unsupported"
    try:
        return file_hash(found.path) if _is_regular(found.path) else "not a regular file"
    except OSError as error:
        return cannot_be_read(error)


def _is_regular(path: Path) -> bool:
    return stat.S_ISREG(path.stat().st_mode)
