"""Find the documents of a build that a user names: by an id or its prefix, by a path, or by a unique file name."""

import csv
from functools import partial
from pathlib import Path
from typing import Any

from sluice.core.manifest import MANIFEST, read_manifest
from sluice.data.document import printable
from sluice.data.explain.paths import Row, rows_at
from sluice.data.report import EVIDENCE, REJECTS

_LEAST_PREFIX = 6
_SHOWN = 5


def find_documents(folder: Path, decisions: list[Row], name: str, here: Path) -> list[Row]:
    """Return the rows of `decisions` for an id (as read, scored or kept), a prefix of one, or a path.

    A path is absolute, relative to `here`, or below the source. Returns several where the same text was read several
    times. Raises ValueError if there is none, or a path is ambiguous.
    """
    name = printable(name)
    ids = ("id", "final_id", "raw_id")
    found = [row for row in decisions if any(row[kind] is not None and row[kind].startswith(name) for kind in ids)]
    return found if found and len(name) >= _LEAST_PREFIX else _at_path(folder, decisions, name, here)


def _at_path(folder: Path, decisions: list[Row], name: str, here: Path) -> list[Row]:
    """Return the document read from this path, or the only one whose path ends with it; ValueError for none or more."""
    # Packages, and a step's artifact, have no sources.
    listed: list[Any] = []
    if (folder / MANIFEST).is_file():
        sources = read_manifest(folder).get("parameters", {}).get("data", {}).get("sources")
        listed = [sources] if isinstance(sources, str) else sources or []
    uris = [each if isinstance(each, str) else each["uri"] for each in listed]
    at = partial(rows_at, name=name, uris=uris, here=here)
    rejects: list[Row] = []
    table = folder / EVIDENCE / REJECTS
    if table.is_file():
        with table.open(encoding="utf-8", newline="") as lines:
            rejects = list(csv.DictReader(lines))
        # Like a document, a rejected line has the path `path:line`.
        rejects = [
            {**row, "file": row["path"], "path": f"{row['path']}:{row['line']}" if row["line"] else row["path"]}
            for row in rejects
        ]

    def is_ending(row: Row) -> bool:
        """Return whether the path of a row, with or without its line number, ends with the name."""
        path = f"/{row['path']}"
        return any(each.endswith(f"/{name}") for each in (path, path.rpartition(":")[0]))

    found, rejected = at(decisions), []
    if not found:
        rejected = at(rejects)
    if not found and not rejected and name and not name.startswith(("/", "~", ".")):
        found, rejected = ([row for row in rows if is_ending(row)] for rows in (decisions, rejects))
    several = [*found, *rejected]
    if len({(row["source"], row.get("file", row["path"])) for row in several}) > 1:
        shown = ", ".join(
            f"{row.get('id', 'rejected')[:12]} ({row['source']}, {row['path']})" for row in several[:_SHOWN]
        )
        more = f" and {len(several) - _SHOWN} more" if len(several) > _SHOWN else ""
        what = "files" if any("id" not in row for row in several) else "documents"
        raise ValueError(f"{name} names {len(several)} {what}: give the id of one, {shown}{more}")
    if rejected and not found:
        raise ValueError(f"{name} was never a document: {rejected[0]['reason']}")
    if not found:
        raise ValueError(
            f"no document of {folder} is named {name!r}: give an id, at least {_LEAST_PREFIX} characters of one, or "
            "the path it was read from"
        )
    return found
