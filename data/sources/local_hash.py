"""Hash the content of the local sources, to detect changed files."""

import hashlib
import json
import stat

from sluice.core.manifest import file_hash
from sluice.data.config import IngestConfig
from sluice.data.sources.files import FoundFile, cannot_be_read, chooser, find
from sluice.data.sources.formats import format_of
from sluice.data.sources.globs import Choice
from sluice.data.sources.location import LocalFiles, StandardInput, locate
from sluice.data.sources.origin import Origin


def contents_sha256(config: IngestConfig) -> str | None:
    """Hash names and contents of the files of local sources; None where no source is local.

    Neither times nor absolute paths count. Relative paths start in the current folder. A source that does not exist
    counts as empty; reading it raises the error.
    """
    contents: list[tuple[str, list[tuple[str, str]]]] = []
    for source in config.given:
        # (path, sha256 or the reason why it is not read) of each file of the source
        listed: list[tuple[str, str]] = []
        try:
            location = locate(source)
        except ValueError:
            contents.append((source.uri, listed))
            continue
        if isinstance(location, StandardInput):
            raise ValueError("data.sources: - is standard input, which only `sluice data build` reads: name a file")
        if not isinstance(location, LocalFiles):
            continue
        choice, chosen = Choice(tuple(source.include), tuple(source.exclude)), chooser(location, source.include)
        origin = Origin(location.name, markup=source.markup, format=source.format or config.format)
        for each in find(location, choice, origin):
            if not isinstance(each, FoundFile):
                listed.append((each.path, each.reason))
            elif format_of(each.shown, origin, chosen=chosen(each.shown)) is None:
                # The content of a file that is rejected for its suffix or type is not read.
                listed.append((each.shown, "unsupported"))
            else:
                try:
                    is_regular = stat.S_ISREG(each.path.stat().st_mode)
                    listed.append((each.shown, file_hash(each.path) if is_regular else "not a regular file"))
                except OSError as error:
                    listed.append((each.shown, cannot_be_read(error)))
        contents.append((source.uri, listed))
    return hashlib.sha256(json.dumps(contents).encode()).hexdigest() if contents else None


def refuse_changed(config: IngestConfig) -> None:
    """Raise ValueError if the files are not those that the settings were composed with."""
    if config.sources_sha256 is not None and contents_sha256(config) != config.sources_sha256:
        raise ValueError("data.sources: files were changed after the settings were composed: start `sluice run` again")
