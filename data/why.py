"""Which rule, or which twin, removed a document: asked of the evidence."""

import csv
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from data.asked_path import rows_at
from data.evidence import REJECTS, read_decisions
from data.manifest import EVIDENCE, MANIFEST, read_manifest

_LEAST_PREFIX = 6
_SHOWN = 5


class Explanation(BaseModel):
    """The fate of one document."""

    id: str
    final_id: str | None
    """Id of what was kept of it; None where it was dropped."""
    source: str
    path: str
    title: str
    kept: bool
    rule: str | None
    comparison: str | None
    twin: str | None
    twin_source: str | None = None
    twin_path: str | None = None
    jaccard: float | None
    cut_characters: int

    def __str__(self) -> str:
        where = f"{self.id} ({self.source}, {self.path})"
        if self.kept:
            cut = f"; {self.cut_characters:,} characters were cut out, what is left is {self.final_id}"
            return f"{where}: kept{cut if self.cut_characters else ''}"
        if self.twin is None:
            return f"{where}: dropped by {self.rule}: {self.comparison}"
        twin = self.twin if self.twin_source is None else f"{self.twin} ({self.twin_source}, {self.twin_path})"
        return f"{where}: dropped by {self.rule}: Jaccard {self.jaccard:.4g} with {twin}"


def why(folder: Path, name: str, here: Path | None = None) -> list[Explanation]:
    """What became of the document that `name` names: an id (as read, as scored or as kept), its beginning, or a path.

    A path is absolute, from `here` (unless it is given, the current folder), or below the source. More than one where
    the same text was read more than once. ValueError if there is none, or a path could be one of several.
    """
    decisions = read_decisions(folder)
    found = [row for row in decisions if _has_id(row, name)]
    if not found:
        find = partial(rows_at, name=name, uris=_sources(folder), here=here or Path.cwd())
        found = find(decisions)
        _refuse_several(found, name)
    if not found:
        if rejected := find(_rejects(folder)):
            raise ValueError(f"{name} was never a document: {rejected[0]['reason']}")
        raise ValueError(
            f"no document of {folder} is named {name!r}: give an id, or at least {_LEAST_PREFIX} characters of one, or "
            "the path it was read from"
        )
    # A twin is named as it was scored, or as it was kept where two became equal by what was cut out of them.
    kept = [row for row in decisions if row["kept"]]
    twins = {row["final_id"]: row for row in kept} | {row["id"]: row for row in kept}
    return [_explain(row, twins.get(row["twin"])) for row in found]


def _has_id(row: dict[str, Any], name: str) -> bool:
    ids = [each for each in (row["id"], row["final_id"], row["raw_id"]) if each is not None]
    return len(name) >= _LEAST_PREFIX and any(each.startswith(name) for each in ids)


def _sources(folder: Path) -> list[str]:
    """The sources as the build was given them; none for packages, and for a step's artifact."""
    if not (folder / MANIFEST).is_file():
        return []
    sources = read_manifest(folder).get("parameters", {}).get("data", {}).get("sources")
    listed = [sources] if isinstance(sources, str) else sources or []
    return [each if isinstance(each, str) else each["uri"] for each in listed]


def _explain(row: dict[str, Any], twin: dict[str, Any] | None) -> Explanation:
    fields = {name: row[name] for name in Explanation.model_fields if name in row}
    if twin is not None:
        fields |= {"twin_source": twin["source"], "twin_path": twin["path"]}
    return Explanation(**fields)


def _refuse_several(found: list[dict[str, Any]], name: str) -> None:
    if len({(row["source"], row["path"]) for row in found}) > 1:
        listed = ", ".join(f"{row['id'][:12]} ({row['source']}, {row['path']})" for row in found[:_SHOWN])
        more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
        raise ValueError(f"{name} names {len(found)} documents: give the id of one, {listed}{more}")


def _rejects(folder: Path) -> list[dict[str, Any]]:
    """Files and lines that never became documents; a path with a line is `path:line`."""
    table = folder / EVIDENCE / REJECTS
    if not table.is_file():
        return []
    with table.open(encoding="utf-8", newline="") as lines:
        rows = list(csv.DictReader(lines))
    return [{**row, "path": f"{row['path']}:{row['line']}" if row["line"] else row["path"]} for row in rows]
