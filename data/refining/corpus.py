"""The scored corpus, opened: its columns in canonical order, and where its texts lie."""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
from pyarrow import compute

from sluice.core.arrow import numbers, table_of
from sluice.data.refining.decide import Corpus, parse_contamination
from sluice.data.refining.tables import IDENTITY, read_columns, score_columns

_ORDER = ("id", "source", "path", "raw_id")


@dataclass(frozen=True)
class ScoredCorpus:
    """Scores parts as one corpus. A document's row counts in canonical order: by id, then by where it came from."""

    parts: list[Path]
    columns: Corpus
    identity: pa.Table
    """Of every document, in canonical order."""
    part_rows: np.ndarray
    """[documents] int64: the row in canonical order of each document as the parts hold them, one after another."""
    part_starts: np.ndarray
    """[parts + 1] int64: the number of each part's first document, counted along the parts."""

    @classmethod
    def open(cls, parts: Sequence[Path]) -> "ScoredCorpus":
        """Reads every column but the texts."""
        # A part without a document has no score either.
        parts = [path for path in parts if score_columns(path)]
        names = score_columns(parts[0]) if parts else []
        tables = [read_columns(path, [*IDENTITY.names, "contamination", *names]) for path in parts]
        empty = pa.schema([*IDENTITY, ("contamination", pa.string())])
        table = pa.concat_tables(tables or [table_of([], empty)])
        order = compute.sort_indices(table, sort_keys=[(name, "ascending") for name in _ORDER])
        table = table.take(order)
        ranks = np.empty(len(table), np.int64)
        ranks[np.frombuffer(order.buffers()[1], np.uint64, len(table)).astype(np.int64)] = np.arange(len(table))
        columns = Corpus(
            ids=table["id"].to_pylist(),
            languages=[sys.intern(name) for name in table["language"].to_pylist()],
            characters=numbers(table["characters"]),
            scores={name: numbers(table[name]) for name in (*names, "characters")},
            contamination=parse_contamination(table["contamination"].to_pylist()),
        )
        return cls(parts, columns, table.select(IDENTITY.names), ranks, np.cumsum([0, *map(len, tables)]))

    def __len__(self) -> int:
        return len(self.columns.ids)

    def distinct_index(self) -> np.ndarray:
        """[documents] int64: which of the distinct ids, in order, each row has."""
        first = np.zeros(len(self), np.int64)
        first[self.columns.first_rows()] = 1
        return np.cumsum(first) - 1

    def by_part(self, documents: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
        """Parts and the places in them of some documents, whose ascending numbers [n] go along the parts."""
        edges = np.searchsorted(documents, self.part_starts)
        for part, (first, end) in enumerate(pairwise(edges.tolist())):
            if end > first:
                yield part, documents[first:end] - self.part_starts[part]

    def documents_of(self, rows: np.ndarray) -> np.ndarray:
        """Numbers along the parts of the documents at these rows, [n] int64."""
        places = np.empty(len(self), np.int64)
        places[self.part_rows] = np.arange(len(self))
        return places[rows]
