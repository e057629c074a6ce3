"""Read the sources of the settings one after the other, each with the reader for its URI."""

from dataclasses import dataclass, field
from pathlib import Path

from sluice.core.manifest import file_hash
from sluice.core.progress import Progress
from sluice.data.config import IngestConfig, Source
from sluice.data.document import Document
from sluice.data.sources.archive import IndexUnreachable, Pin, fetch
from sluice.data.sources.code_files import names_suffix
from sluice.data.sources.files import FoundFile, Seen, chooser, find
from sluice.data.sources.formats import SUFFIXES, UNSUPPORTED, read_file
from sluice.data.sources.globs import Choice
from sluice.data.sources.installed import installed_documents
from sluice.data.sources.limits import Limits
from sluice.data.sources.location import (
    HubDataset,
    Installed,
    LocalFiles,
    Location,
    Release,
    RemoteFiles,
    StandardInput,
    locate,
)
from sluice.data.sources.origin import Origin, Read, Reject
from sluice.data.sources.packages import read_distribution
from sluice.data.sources.row_fields import FieldChoice
from sluice.data.sources.standard_input import is_pipe, read_input, spool_input


@dataclass(frozen=True)
class SourceReader:
    """Reads the listed sources."""

    config: IngestConfig
    cache: Path
    spool: Path
    """Folder for copies of what is piped in."""
    digests: dict[str, str] = field(default_factory=dict)
    """Source -> sha256 of its one file, where it was checked."""
    seen: Seen = field(default_factory=set)
    """Local files that an earlier source contained."""

    def read(self, progress: Progress) -> Read:
        """Read every source. Raises ValueError for a source that does not exist or has no document."""
        # All are located first, to report a mistake in the last before the first is read.
        located = [(source, locate(source)) for source in self.config.given]
        for done, (source, location) in enumerate(located, start=1):
            documents = rejects = 0
            first: Reject | None = None
            for each in self._of_source(source, location, alone=len(located) == 1):
                if isinstance(each, Document):
                    documents += 1
                elif isinstance(each, Reject):
                    rejects += 1
                    first = first or each
                yield each
            if not documents:
                raise ValueError(f"data.sources: {location.name} has no document ({why_none(first, rejects)})")
            progress(done, len(located), f"read {documents} documents from {location.name}")

    def _of_source(self, source: Source, location: Location, alone: bool) -> Read:
        name = "local" if alone and isinstance(location, LocalFiles) else location.name
        name = "stdin" if isinstance(location, StandardInput) else name
        origin = self._origin(name, source)
        choice, limits = Choice(tuple(source.include), tuple(source.exclude)), Limits.of(self.config)
        match location:
            case LocalFiles():
                if source.sha256:
                    if not location.top.is_file():
                        raise ValueError(f"data.sources: {location.name} is not one file; sha256 pins one file")
                    sha256 = file_hash(location.top)
                    if sha256 != source.sha256:
                        raise ValueError(
                            f"data.sources: {location.name} has sha256 {sha256}, the source pins {source.sha256}; "
                            "do not use it, or correct the pin"
                        )
                    self.digests[origin.source] = source.sha256
                if not location.top.is_dir() and is_pipe(location.top):
                    copy = spool_input(location.top, self.spool, limits.file_bytes)
                    yield from read_input(copy, location.top.name, origin, limits)
                    return
                chosen = chooser(location, source.include)
                for found in find(location, choice, origin, self.seen):
                    if isinstance(found, FoundFile):
                        yield from read_file(found.path, found.shown, origin, limits, chosen=chosen(found.shown))
                    else:
                        yield found
            case StandardInput():
                copy = spool_input(None, self.spool, limits.file_bytes)
                yield from read_input(copy, "stdin", origin, limits)
            case RemoteFiles():
                from sluice.data.sources.remote import Remote

                remote = Remote(location, self.cache, self.config.attempts, self.config.max_file_bytes)
                for shown, copy in remote.files(choice, source.sha256):
                    named = any(names_suffix(glob, shown) for glob in source.include)
                    yield from read_file(copy, shown, origin, limits, chosen=named)
                if source.sha256:
                    self.digests[location.name] = source.sha256
            case Release(project, version):
                pin = Pin(project, version, source.sha256, "data.sources")
                try:
                    path, sha256 = fetch(pin, self.cache, self.config.attempts)
                except IndexUnreachable as error:
                    raise ValueError(f"data.sources: pypi:{project}=={version} cannot be read: {error}") from error
                self.digests[f"{project}=={version}"] = sha256
                yield from read_distribution(path, choice, origin, limits)
            case HubDataset():
                from sluice.data.sources.dataset import read_dataset

                yield from read_dataset(location, source.split, source.revision, origin, limits)
            case Installed():
                yield from installed_documents(self.config.fallback_bytes)

    def _origin(self, name: str, source: Source) -> Origin:
        common = self.config
        fields = source.fields if source.fields is not None else common.fields
        return Origin(
            name,
            source.licence,
            source.text_field or common.text_field,
            source.markup,
            source.encoding or common.encoding,
            source.format or common.format,
            FieldChoice(None if fields is None else tuple(fields), source.id_field or common.id_field),
            common.markup,
        )


def why_none(first: Reject | None, rejects: int) -> str:
    """Explain why a source has no document, with its first reject."""
    if first is None:
        return "it is empty"
    where = f"{first.path}:{first.line}" if first.line else first.path
    known = f"; files of {', '.join(SUFFIXES)} are read" if first.reason.startswith(UNSUPPORTED) else ""
    return f"{rejects} rejected, first {where}: {first.reason}{known}"
