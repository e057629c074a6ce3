"""The units that a source is read in, such as a file; each can be read in any process, and in any order."""

from dataclasses import dataclass, field, replace
from pathlib import Path

from sluice.data.privacy import mask
from sluice.data.sources.formats import ranges_of, read_file
from sluice.data.sources.globs import Choice
from sluice.data.sources.installed import installed_documents
from sluice.data.sources.limits import Limits
from sluice.data.sources.location import HubDataset
from sluice.data.sources.origin import Noted, Origin, Read, Reject
from sluice.data.sources.packages import read_distribution
from sluice.data.sources.ranges import FileRange


@dataclass(frozen=True, slots=True)
class FileUnit:
    """A file, or a range of one."""

    path: str
    shown: str
    """Its name in documents and rejects."""
    origin: Origin
    chosen: bool
    """Whether the settings name its suffix."""
    size_bytes: int
    version: str | None
    """Equal versions, equal documents; None: not known before the unit is read."""
    link: str | None = None
    """The link that led to it out of the source's folder; in a range, only in the first."""
    part: FileRange | None = None
    state: str = field(default="", repr=False)
    """`_state` of the file where it may change; the version has more, such as the time of its last link."""

    @classmethod
    def of(cls, path: Path, shown: str, origin: Origin, chosen: bool, link: str | None = None) -> "FileUnit":
        """Return the unit of the file as it is now: one that is written later has another version."""
        try:
            status = path.stat()
        except OSError:
            return cls(str(path.absolute()), shown, origin, chosen, 0, "missing", link)
        version = f"{status.st_size} {status.st_mtime_ns} {status.st_ctime_ns} {status.st_ino}"
        return cls(str(path.absolute()), shown, origin, chosen, status.st_size, version, link, state=_state(path))

    def read(self, limits: Limits) -> Read:
        """Read the file. If it is changed or replaced meanwhile, the last row, which may be half of one, is a reject;
        so is a range of a file that has changed since it was cut into ranges.
        """
        if self.link is not None:
            yield Noted(f"file outside of the source's folder, through the link {mask(self.link)[0]}")
        path, last = Path(self.path), None
        expected = self.state if self.part is not None and self.state else _state(path)
        if _state(path) == expected:
            for each in read_file(path, self.shown, self.origin, limits, self.part, chosen=self.chosen):
                if last is not None:
                    yield last
                last = each
        state = _state(path)
        if not state and isinstance(last, Reject):
            yield last  # It says why the file could not be read.
        elif state != expected:
            yield self.origin.reject(self.shown, "changed while it was read")
        elif last is not None:
            yield last

    def split(self, limits: Limits, size_bytes: int) -> "list[FileUnit]":
        """Return ranges of about this size that give the same when read in order; the file itself if it has none."""
        ranges = ranges_of(Path(self.path), self.shown, self.origin, limits, size_bytes, chosen=self.chosen)
        if len(ranges) < 2:
            return [self]
        units = [replace(self, part=each, size_bytes=each.size_bytes, link=None) for each in ranges]
        return [replace(units[0], link=self.link), *units[1:]]


def _state(path: Path) -> str:
    """Size, time of the last change and inode of a file; empty if there is none."""
    try:
        status = path.stat()
    except OSError:
        return ""
    return f"{status.st_size} {status.st_mtime_ns} {status.st_ino}"


@dataclass(frozen=True)
class DistributionUnit:
    """The chosen files of a source distribution."""

    archive: Path
    choice: Choice
    origin: Origin
    size_bytes: int
    version: str | None

    @property
    def shown(self) -> str:
        return self.origin.source

    def read(self, limits: Limits) -> Read:
        return read_distribution(self.archive, self.choice, self.origin, limits)


@dataclass(frozen=True)
class DatasetUnit:
    """A split of a data set of the hub."""

    location: HubDataset
    split: str
    revision: str | None
    origin: Origin
    size_bytes: int = 0
    version: str | None = None

    @property
    def shown(self) -> str:
        return self.location.name

    def read(self, limits: Limits) -> Read:
        from sluice.data.sources.dataset import read_dataset

        return read_dataset(self.location, self.split, self.revision, self.origin, limits)


@dataclass(frozen=True)
class InstalledUnit:
    """The documentation of the packages in this environment."""

    max_bytes: int
    size_bytes: int = 0
    version: str | None = None
    shown: str = "installed:"

    def read(self, _limits: Limits) -> Read:
        return installed_documents(self.max_bytes)


@dataclass(frozen=True)
class RejectUnit:
    """An item that is known to be a reject before it is read, such as a link that leads to a folder above it."""

    reject: Reject
    size_bytes: int = 0
    version: str | None = ""

    @property
    def shown(self) -> str:
        return self.reject.path

    def read(self, _limits: Limits) -> Read:
        yield self.reject


Unit = FileUnit | DistributionUnit | DatasetUnit | InstalledUnit | RejectUnit
