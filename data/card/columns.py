"""The columns of decisions.parquet that tell two runs apart, as arrays of fixed width."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sluice.data.card.folder import rows

_WIDTH = "S32"
"""Of an id, in hex."""


@dataclass(frozen=True)
class Columns:
    """One side's documents, [documents] each."""

    ids: np.ndarray
    """Of the text as it was scored."""
    final_ids: np.ndarray
    """Of the text as it was kept; empty where it was dropped."""
    places: np.ndarray
    """Hash of source and path."""
    sources: np.ndarray
    """Place in the list of sources that both sides share."""
    kept: np.ndarray
    rules: np.ndarray
    """Place in `rule_names` of the rule that dropped it; -1 where it was kept."""
    rule_names: list[str]

    def kept_texts(self) -> tuple[np.ndarray, np.ndarray]:
        """Different ids of kept texts in order, and the source of each."""
        finals, where = np.unique(self.final_ids[self.kept], return_index=True)
        return finals, self.sources[self.kept][where]

    def kept_ids(self) -> set[bytes]:
        """Ids, as scored, of texts that are kept."""
        return set(self.ids[self.kept].tolist())

    def fates(self) -> dict[bytes, str]:
        """Dropped texts -> the rule. A text that is kept once is not dropped, however many copies of it were; and one
        that is dropped whole owes it to the rule that dropped its first copy."""
        kept = self.kept_ids()
        found: dict[bytes, str] = {}
        for row in np.flatnonzero(~self.kept).tolist():
            name, rule = bytes(self.ids[row]), self.rule_names[self.rules[row]]
            if name not in kept and found.get(name, "exact_duplicate") == "exact_duplicate":
                found[name] = rule
        return found


def read_columns(decisions: Path, sources: dict[str, int]) -> Columns:
    """Reads batch by batch; `sources` gets the sources that it did not know yet."""
    names: dict[str, int] = {}
    parts: list[tuple[np.ndarray, ...]] = []
    for batch in rows(decisions, ["id", "final_id", "source", "path", "kept", "rule"]):
        name, final, source, path, is_kept, rule = (column.to_pylist() for column in batch.columns)
        parts.append(
            (
                np.array(name, _WIDTH),
                np.array([each or "" for each in final], _WIDTH),
                np.array([_place(*each) for each in zip(source, path, strict=True)], _WIDTH),
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
    return Columns(ids, finals, places, of, kept, rules, list(names))


def read_places(decisions: Path, wanted: list[int]) -> list[tuple[str, str]]:
    """Source and path of some rows, in the order asked for."""
    found: dict[int, tuple[str, str]] = {}
    start = 0
    for batch in rows(decisions, ["source", "path"]) if wanted else ():
        for row in wanted:
            if start <= row < start + batch.num_rows:
                found[row] = (batch.column(0)[row - start].as_py(), batch.column(1)[row - start].as_py())
        start += batch.num_rows
    return [found[row] for row in wanted]


def _place(source: str, path: str) -> str:
    return hashlib.sha256(f"{source}\0{path}".encode("utf-8", "surrogatepass")).hexdigest()[:32]
