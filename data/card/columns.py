"""The columns of decisions.parquet that `diff` compares, as arrays of fixed width."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sluice.data.card.folder import rows

_WIDTH = "S32"
"""Width of an id in hex."""


@dataclass(frozen=True)
class DecisionColumns:
    """The documents of one folder, [documents] each."""

    ids: np.ndarray
    """Ids of the scored texts."""
    final_ids: np.ndarray
    """Ids of the kept texts; empty where dropped."""
    places: np.ndarray
    """Hash of source and path."""
    sources: np.ndarray
    """Index in the list of sources that both folders share."""
    kept: np.ndarray
    rules: np.ndarray
    """Index in `rule_names` of the rule that dropped the document; -1 where kept."""
    rule_names: list[str]

    def kept_texts(self) -> tuple[np.ndarray, np.ndarray]:
        """Sorted distinct ids of kept texts, and the source of each."""
        finals, where = np.unique(self.final_ids[self.kept], return_index=True)
        return finals, self.sources[self.kept][where]

    def kept_ids(self) -> set[bytes]:
        """Scored ids of the kept texts."""
        return set(self.ids[self.kept].tolist())

    def dropped_by(self) -> dict[bytes, str]:
        """Return scored id -> rule of the dropped texts. A text with a kept copy is not dropped; one without belongs to
        the rule that dropped its first copy."""
        kept = self.kept_ids()
        found: dict[bytes, str] = {}
        for row in np.flatnonzero(~self.kept).tolist():
            name, rule = bytes(self.ids[row]), self.rule_names[self.rules[row]]
            if name not in kept and found.get(name, "exact_duplicate") == "exact_duplicate":
                found[name] = rule
        return found


def read_decision_columns(decisions: Path, sources: dict[str, int]) -> DecisionColumns:
    """Read the columns batch by batch, adding new sources to `sources`."""
    names: dict[str, int] = {}
    parts: list[tuple[np.ndarray, ...]] = []
    for batch in rows(decisions, ["id", "final_id", "source", "path", "kept", "rule"]):
        name, final, source, path, is_kept, rule = (column.to_pylist() for column in batch.columns)
        parts.append(
            (
                np.array(name, _WIDTH),
                np.array([each or "" for each in final], _WIDTH),
                np.array([place_hash(*each) for each in zip(source, path, strict=True)], _WIDTH),
                np.array([sources.setdefault(each, len(sources)) for each in source], np.int32),
                np.array(is_kept, np.bool_),
                np.array([names.setdefault(each, len(names)) if each else -1 for each in rule], np.int32),
            )
        )
    kinds: tuple[str | type[np.generic], ...] = (_WIDTH, _WIDTH, _WIDTH, np.int32, np.bool_, np.int32)
    ids, finals, places, of, kept, rules = (
        np.concatenate([np.empty(0, np.dtype(kind)), *(part[column] for part in parts)])
        for column, kind in enumerate(kinds)
    )
    return DecisionColumns(ids, finals, places, of, kept, rules, list(names))


def read_places(decisions: Path, wanted: list[int]) -> list[tuple[str, str]]:
    """Return source and path of the wanted rows, in their order."""
    found: dict[int, tuple[str, str]] = {}
    start = 0
    for batch in rows(decisions, ["source", "path"]) if wanted else ():
        for row in wanted:
            if start <= row < start + batch.num_rows:
                found[row] = (batch.column(0)[row - start].as_py(), batch.column(1)[row - start].as_py())
        start += batch.num_rows
    return [found[row] for row in wanted]


def place_hash(source: str, path: str) -> str:
    """Hash source and path of a document."""
    return hashlib.sha256(f"{source}\0{path}".encode("utf-8", "surrogatepass")).hexdigest()[:32]
