"""Files of a directory or glob: in name order, hidden ones left out, every file once, whatever the links say."""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

from data.sources.globs import Choice, at_or_below
from data.sources.location import LocalFiles
from data.sources.records import Origin, Reject

_SEEN = "already read by another name"


@dataclass(frozen=True)
class Found:
    """A file to read, and the path it is shown under: below the source, with `/`."""

    path: Path
    shown: str


def find(location: LocalFiles, choice: Choice, origin: Origin) -> Iterator[Found | Reject]:
    """The source's files: those of a folder before those of its folders, each in name order.

    A folder or file met again by a link is a reject, and so is what cannot be listed.
    """
    if location.glob is None and not location.top.is_dir():
        yield Found(location.top, printable(location.top.name))
    else:
        yield from _Walk(location, choice, origin).run()


def printable(path: str) -> str:
    """A file name that is not UTF-8 shows its other bytes as escapes."""
    return path.encode("utf-8", "backslashreplace").decode()


@dataclass
class _Walk:
    location: LocalFiles
    choice: Choice
    origin: Origin
    seen: set[tuple[int, int]] = field(default_factory=set)
    """Device and inode of what was read."""

    def run(self) -> Iterator[Found | Reject]:
        top = self.location.top
        self._first_time(top)
        pending: list[tuple[Path, str]] = [(top, "")]
        while pending:
            folder, shown = pending.pop()
            try:
                with os.scandir(folder) as listing:
                    entries = sorted(listing, key=lambda entry: entry.name)
            except OSError as error:
                yield self.origin.reject(printable(shown or folder.name), cannot_be_read(error))
                continue
            folders: list[tuple[Path, str]] = []
            for entry in entries:
                below = shown + entry.name
                if entry.name.startswith("."):
                    continue
                try:
                    is_folder = entry.is_dir()
                    if not self._wanted(below, is_folder):
                        continue
                    fresh = self._first_time(Path(entry.path))
                except OSError as error:
                    yield self.origin.reject(printable(below), cannot_be_read(error))
                    continue
                if not fresh:
                    loop = is_folder and Path(folder).resolve().is_relative_to(Path(entry.path).resolve())
                    yield self.origin.reject(printable(below), "directory loop" if loop else _SEEN)
                elif is_folder:
                    folders.append((Path(entry.path), f"{below}/"))
                else:
                    yield Found(Path(entry.path), printable(below))
            pending += reversed(folders)

    def _first_time(self, path: Path) -> bool:
        status = path.stat()
        identity = (status.st_dev, status.st_ino)
        fresh = identity not in self.seen
        self.seen.add(identity)
        return fresh

    def _wanted(self, shown: str, is_folder: bool) -> bool:
        glob = self.location.glob
        if not is_folder:
            return self.choice(shown) and (glob is None or at_or_below(glob).fullmatch(shown) is not None)
        if glob is None:
            return True
        # A folder that no path of the glob leads through is not walked.
        parts = glob.split("/")
        return all(
            "**" in parts[:depth] or depth >= len(parts) or "**" in parts[depth] or fnmatchcase(name, parts[depth])
            for depth, name in enumerate(shown.split("/"))
        )


def cannot_be_read(error: OSError) -> str:
    return f"cannot be read ({error.strerror or type(error).__name__})"
