"""Match a path as a user types it: absolute, relative to the current folder, or below the document's source."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from sluice.core.files import expand_home
from sluice.data.privacy import mask
from sluice.data.sources.globs import is_glob

_LOCAL = "local"
"""Name of a local source that is the only one."""

Row = dict[str, Any]


def rows_at(rows: Sequence[Row], name: str, uris: Sequence[str], here: Path) -> list[Row]:
    """Return the rows (source, path) that `name` may mean: one line, one file, or else the lines of one file.

    `uris` are the URIs of the build's sources, `here` is the current folder. A file of a local source is matched by its
    location, one of another source by the end of its path.
    """
    absolute = Path(os.path.normpath(here / expand_home(name)))
    below = _masked({name})
    tops: dict[str, Path] = {}
    for uri in uris:
        if "://" in uri and not uri.startswith("file://"):
            continue
        path = expand_home(unquote(urlsplit(uri).path) if uri.startswith("file://") else uri)
        fixed = next((number for number, part in enumerate(path.parts) if is_glob(part)), len(path.parts))
        tops[str(path)] = Path(*path.parts[:fixed])  # the file, or the folder that contains the paths of the rows
    if len(tops) == 1:
        tops[_LOCAL] = next(iter(tops.values()))
    places = {source: _masked(_below(absolute, top, here)) for source, top in tops.items()}
    ends = _masked({"/".join(absolute.parts[first:]) for first in range(1, len(absolute.parts))})

    def is_known(source: str, path: str) -> bool:
        return path in below or path in places.get(source, ())

    for form in (str, _without_line):
        if found := [row for row in rows if is_known(row["source"], form(row["path"]))]:
            return found
        found = [row for row in rows if row["source"] not in places and form(row["path"]) in ends]
        if found:
            longest = max(len(form(row["path"])) for row in found)
            return [row for row in found if len(form(row["path"])) == longest]
    return []


def _below(absolute: Path, top: Path, here: Path) -> set[str]:
    """Return a path relative to `top`; for a source that is a file itself, its name.

    A relative `top` may have been given in another folder than `here`.
    """
    bases = {Path(os.path.normpath(here / top))}
    if not top.is_absolute():
        bases |= {parent for parent in absolute.parents if parent.parts[-len(top.parts) :] == top.parts}
        bases |= {absolute} if _without_line(str(absolute)).endswith(f"/{top}") else set()
    found = {str(absolute.relative_to(base)) for base in bases if absolute.is_relative_to(base) and absolute != base}
    if any(_without_line(str(absolute)) == _without_line(str(base)) for base in bases):
        found.add(absolute.name)
    return found


def _masked(names: set[str]) -> set[str]:
    """Add the names as the evidence has them, with placeholders for personal data."""
    return names | {mask(name)[0] for name in names}


def _without_line(path: str) -> str:
    file, _, line = path.rpartition(":")
    return file if line.isdecimal() else path
