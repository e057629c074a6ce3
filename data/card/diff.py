"""Compare two refined folders: documents added, removed and changed, and settings that differ."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel

from sluice.data.card.columns import DecisionColumns, read_decision_columns, read_places
from sluice.data.card.folder import RefinedFolder, open_folder, read_json

EXAMPLES = 5


class SourceDiff(BaseModel):
    """Kept documents by the id of their text. A text in both counts for its source in B."""

    only_a: int = 0
    only_b: int = 0
    both: int = 0


class Changed(BaseModel):
    """A document whose text differs in B."""

    source: str
    path: str
    id_a: str
    id_b: str


class Moved(BaseModel):
    """Documents that both runs read and only one kept, by the rule that dropped them."""

    rules: dict[str, int] = {}
    examples: list[str] = []
    """The first ids."""

    @property
    def documents(self) -> int:
        return sum(self.rules.values())


class Side(BaseModel):
    """One of the two folders."""

    folder: str
    content_sha256: str
    documents_in: int
    documents_kept: int
    bytes_kept: int
    tokens: int | None = None
    """Set if a packed folder was given."""


class DataDiff(BaseModel):
    """The differences between two refined folders."""

    a: Side
    b: Side
    only_a: int = 0
    """Kept in A and not in B, by the id of the text."""
    only_b: int = 0
    both: int = 0
    by_source: dict[str, SourceDiff] = {}
    changed: int = 0
    """Documents of the same source and path, read by both, with different texts."""
    changed_examples: list[Changed] = []
    kept_to_dropped: Moved = Moved()
    dropped_to_kept: Moved = Moved()
    dropped: dict[str, tuple[int, int]] = {}
    """Rule -> documents dropped in A and in B."""
    parameters: dict[str, tuple[Any, Any]] = {}
    """Dotted key -> different values in A and in B; `absent` where a folder has no such setting."""

    @property
    def same(self) -> bool:
        """Return whether both keep the same documents."""
        return not self.only_a and not self.only_b


def diff(a: Path, b: Path, *, packed_a: Path | None = None, packed_b: Path | None = None) -> DataDiff:
    """Compare two refined folders. Reads ids, not texts: memory is a few hundred bytes a document.

    `packed_a` and `packed_b` are their packed shards, to count tokens. Raises ValueError for a folder that is not what
    it should be.
    """
    first, second = open_folder(a), open_folder(b)
    sources: dict[str, int] = {}
    rows_a, rows_b = read_decision_columns(first.decisions, sources), read_decision_columns(second.decisions, sources)
    shared, by_source = _kept(rows_a, rows_b, list(sources))
    pairs = changed_pairs(rows_a, rows_b)
    shown = pairs[:EXAMPLES]
    places = read_places(first.decisions, [row for row, _ in shown])
    examples = [
        Changed(source=source, path=path, id_a=rows_a.ids[row].decode(), id_b=rows_b.ids[other].decode())
        for (row, other), (source, path) in zip(shown, places, strict=True)
    ]
    rules = sorted({*first.report.dropped, *second.report.dropped})
    return DataDiff(
        a=_side(first, packed_a),
        b=_side(second, packed_b),
        only_a=shared.only_a,
        only_b=shared.only_b,
        both=shared.both,
        by_source=by_source,
        changed=len(pairs),
        changed_examples=examples,
        kept_to_dropped=_moved(rows_a, rows_b),
        dropped_to_kept=_moved(rows_b, rows_a),
        dropped={rule: (first.report.dropped.get(rule, 0), second.report.dropped.get(rule, 0)) for rule in rules},
        parameters=differing(first.parameters, second.parameters),
    )


def differing(a: Mapping[str, Any], b: Mapping[str, Any], prefix: str = "") -> dict[str, tuple[Any, Any]]:
    """Return the settings that differ by dotted key."""
    found: dict[str, tuple[Any, Any]] = {}
    for key in sorted({*a, *b}):
        left, right = a.get(key, "absent"), b.get(key, "absent")
        if isinstance(left, Mapping) and isinstance(right, Mapping):
            found |= differing(left, right, f"{prefix}{key}.")
        elif left != right:
            found[f"{prefix}{key}"] = (left, right)
    return found


def changed_pairs(a: DecisionColumns, b: DecisionColumns) -> list[tuple[int, int]]:
    """Return pairs of rows of A and B with the same source and path and different texts, in the order of ids in A.

    Where several documents have one path, those with equal texts are ignored and the others paired by id.
    """
    texts_a, texts_b = (np.char.add(each.places, each.ids) for each in (a, b))
    left = np.flatnonzero(np.isin(a.places, b.places) & ~np.isin(texts_a, texts_b))
    right = np.flatnonzero(np.isin(b.places, a.places) & ~np.isin(texts_b, texts_a))
    waiting: dict[bytes, list[int]] = {}
    for row in sorted(right.tolist(), key=lambda row: b.ids[row], reverse=True):
        waiting.setdefault(bytes(b.places[row]), []).append(row)
    ordered = sorted(left.tolist(), key=lambda row: a.ids[row])
    return [(row, there.pop()) for row in ordered if (there := waiting.get(bytes(a.places[row])))]


def _kept(a: DecisionColumns, b: DecisionColumns, sources: list[str]) -> tuple[SourceDiff, dict[str, SourceDiff]]:
    """Count the kept texts of both folders, in total and by source."""
    ids_a, of_a = a.kept_texts()
    ids_b, of_b = b.kept_texts()
    here, there = np.isin(ids_a, ids_b), np.isin(ids_b, ids_a)
    counts = {
        "only_a": np.bincount(of_a[~here], minlength=len(sources)),
        "only_b": np.bincount(of_b[~there], minlength=len(sources)),
        "both": np.bincount(of_b[there], minlength=len(sources)),
    }
    total = SourceDiff(**{name: int(amounts.sum()) for name, amounts in counts.items()})
    by_source = {
        name: SourceDiff(**{kind: int(amounts[code]) for kind, amounts in counts.items()})
        for code, name in enumerate(sources)
    }
    return total, dict(sorted((name, each) for name, each in by_source.items() if each != SourceDiff()))


def _moved(kept: DecisionColumns, dropped: DecisionColumns) -> Moved:
    """Return the texts that the first folder kept and the second read and dropped."""
    rule_of = dropped.dropped_by()
    lost = sorted(name for name in kept.kept_ids() if rule_of.get(name))
    rules = Counter(rule_of[name] for name in lost)
    return Moved(rules=dict(sorted(rules.items())), examples=[name.decode() for name in lost[:EXAMPLES]])


def _side(folder: RefinedFolder, packed: Path | None) -> Side:
    index = read_json(packed / "index.json") if packed else None
    if packed and index is None:
        raise ValueError(f"{packed} has no index.json: run the pack step first")
    return Side(
        folder=str(folder.path),
        content_sha256=folder.content_sha256,
        documents_in=folder.report.documents_in,
        documents_kept=folder.report.documents_kept,
        bytes_kept=folder.report.bytes_kept,
        tokens=sum(split["tokens"] for split in index["splits"].values()) if index else None,
    )
