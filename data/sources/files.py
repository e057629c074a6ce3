"""Files of a directory or glob: in name order, without hidden ones, every file once, whatever links there are."""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

from sluice.data.document import printable
from sluice.data.report import is_finished_build
from sluice.data.sources.code_files import names_suffix
from sluice.data.sources.globs import Choice, at_or_below
from sluice.data.sources.location import LocalFiles
from sluice.data.sources.origin import Origin, Reject

DOCUMENTS = "documents-*.jsonl"
_SEEN = "already read by another name"


@dataclass(frozen=True)
class FoundFile:
    """A file to read, and its path relative to the source, with `/`."""

    path: Path
    shown: str
    link: str | None = None
    """The link through which it was found, if that leads out of the source's folder."""


Seen = set[tuple[int, int]]
"""Device and inode of files that were read."""


def find(
    location: LocalFiles, choice: Choice, origin: Origin, seen: Seen | None = None
) -> Iterator[FoundFile | Reject]:
    """Yield the source's files: those of a folder before those of its sub-folders, each in name order.

    A folder or file that a link leads to again is rejected, and so are files in `seen`, to which found files are added,
    and what cannot be listed. Links out of the source's folder are followed, and each file there names the link. In the
    folder of a finished build only its documents are found.
    """
    files: Seen = set() if seen is None else seen
    if location.glob is None and not location.top.is_dir():
        shown = printable(location.top.name)
        yield FoundFile(location.top, shown) if _first_time(location.top, files) else origin.reject(shown, _SEEN)
    else:
        yield from _Walk(location, choice, origin, files).run()


@dataclass
class _Walk:
    location: LocalFiles
    choice: Choice
    origin: Origin
    files: Seen
    folders: Seen = field(default_factory=set)

    def run(self) -> Iterator[FoundFile | Reject]:
        top = self.location.top
        _first_time(top, self.folders)
        real_top = top.resolve()
        pending: list[tuple[Path, str, str | None]] = [(top, "", None)]
        while pending:
            folder, shown, link = pending.pop()
            try:
                with os.scandir(folder) as listing:
                    entries = sorted(listing, key=lambda entry: entry.name)
            except OSError as error:
                yield self.origin.reject(printable(shown or folder.name), cannot_be_read(error))
                continue
            if is_finished_build(folder):
                entries = [entry for entry in entries if fnmatchcase(entry.name, DOCUMENTS)]
            folders: list[tuple[Path, str, str | None]] = []
            for entry in entries:
                below = shown + entry.name
                if entry.name.startswith("."):
                    continue
                try:
                    is_folder = entry.is_dir()
                    if not self._wanted(below, is_folder):
                        continue
                    fresh = _first_time(Path(entry.path), self.folders if is_folder else self.files)
                except OSError as error:
                    yield self.origin.reject(printable(below), cannot_be_read(error))
                    continue
                if not fresh:
                    loop = is_folder and Path(folder).resolve().is_relative_to(Path(entry.path).resolve())
                    yield self.origin.reject(printable(below), "directory loop" if loop else _SEEN)
                    continue
                path, out = Path(entry.path), link
                if link is None and entry.is_symlink() and not path.resolve().is_relative_to(real_top):
                    out = printable(below)
                if is_folder:
                    folders.append((path, f"{below}/", out))
                else:
                    yield FoundFile(path, printable(below), out)
            pending += reversed(folders)

    def _wanted(self, shown: str, is_folder: bool) -> bool:
        glob = self.location.glob
        if not is_folder:
            return self.choice(shown) and (glob is None or at_or_below(glob).fullmatch(shown) is not None)
        if glob is None:
            return True
        # Skip a folder that no path of the glob leads through.
        parts = glob.split("/")
        return all(
            "**" in parts[:depth] or depth >= len(parts) or "**" in parts[depth] or fnmatchcase(name, parts[depth])
            for depth, name in enumerate(shown.split("/"))
        )


def _first_time(path: Path, seen: Seen) -> bool:
    status = path.stat()
    identity = (status.st_dev, status.st_ino)
    fresh = identity not in seen
    seen.add(identity)
    return fresh


def chooser(location: LocalFiles, include: Sequence[str]) -> Callable[[str], bool]:
    """Return a function that tells whether the settings choose a file by its name or suffix, not only by its folder."""
    if location.glob is None and not location.top.is_dir():
        return lambda _shown: True
    globs = [*include, *([location.glob] if location.glob else [])]
    return lambda shown: any(names_suffix(glob, shown) for glob in globs)


def cannot_be_read(error: OSError) -> str:
    return f"cannot be read ({error.strerror or type(error).__name__})"
