"""Which rule, or which twin, removed a document: asked of the evidence."""

import csv
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from data.evidence import EVIDENCE, REJECTS, read_decisions

_LEAST_PREFIX = 6


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


def why(folder: Path, name: str) -> list[Explanation]:
    """What became of the document that `name` names: an id (as read, as scored or as kept), its beginning, or a path.

    More than one where the same text was read more than once. ValueError if there is none.
    """
    decisions = read_decisions(folder)
    found = [row for row in decisions if _is_named(row, name)]
    if not found:
        if rejected := _rejected(folder, name):
            raise ValueError(f"{name} was never a document: {rejected}")
        raise ValueError(
            f"no document of {folder} is named {name!r}: give an id, or at least {_LEAST_PREFIX} characters of one, or "
            "the path it was read from"
        )
    # A twin is named as it was scored, or as it was kept where two became equal by what was cut out of them.
    kept = [row for row in decisions if row["kept"]]
    twins = {row["final_id"]: row for row in kept} | {row["id"]: row for row in kept}
    return [_explain(row, twins.get(row["twin"])) for row in found]


def _is_named(row: dict[str, Any], name: str) -> bool:
    ids = [each for each in (row["id"], row["final_id"], row["raw_id"]) if each is not None]
    prefix = len(name) >= _LEAST_PREFIX and any(each.startswith(name) for each in ids)
    return prefix or row["path"] == name


def _explain(row: dict[str, Any], twin: dict[str, Any] | None) -> Explanation:
    fields = {name: row[name] for name in Explanation.model_fields if name in row}
    if twin is not None:
        fields |= {"twin_source": twin["source"], "twin_path": twin["path"]}
    return Explanation(**fields)


def _rejected(folder: Path, name: str) -> str | None:
    """Why the file or line of this path was rejected, if it was; a path with a line is `path:line`."""
    table = folder / EVIDENCE / REJECTS
    if not table.is_file():
        return None
    with table.open(encoding="utf-8", newline="") as lines:
        for row in csv.DictReader(lines):
            if name in {row["path"], f"{row['path']}:{row['line']}"}:
                return row["reason"]
    return None
