"""The scored corpus, opened: its columns in canonical order, and its texts one at a time."""

import heapq
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from data.evidence import IDENTITY, ROWS_A_GROUP, read_columns, read_row_group, read_rows, score_columns
from data.keeping import Corpus, parse_contamination

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
        table = pa.concat_tables(
            tables or [IDENTITY.empty_table().append_column("contamination", pa.array([], pa.string()))]
        )
        order = (
            table.select(list(_ORDER))
            .append_column("row", pa.array(range(len(table))))
            .sort_by([(name, "ascending") for name in _ORDER])["row"]
        )
        ranks = np.empty(len(table), np.int64)
        ranks[order.to_numpy()] = np.arange(len(table))
        table = table.take(order)
        columns = Corpus(
            ids=table["id"].to_pylist(),
            languages=[sys.intern(name) for name in table["language"].to_pylist()],
            characters=table["characters"].to_numpy(),
            scores={name: table[name].to_numpy() for name in (*names, "characters")},
            contamination=parse_contamination(table["contamination"].to_pylist()),
        )
        return cls(parts, columns, table.select(IDENTITY.names), ranks, np.cumsum([0, *map(len, tables)]))

    def __len__(self) -> int:
        return len(self.columns.ids)

    def identities(self) -> Iterator[dict[str, Any]]:
        """The identity of every document in canonical order, some at a time in memory."""
        for batch in self.identity.to_batches(max_chunksize=1024):
            yield from batch.to_pylist()

    def texts(self) -> Iterator[tuple[int, str]]:
        """(row, text) of every document in canonical order, a row group of each part in memory."""
        streams = (read_rows(path, [*_ORDER, "text"]) for path in self.parts)
        merged = heapq.merge(*streams, key=lambda row: tuple(row[name] for name in _ORDER))
        for row, values in enumerate(merged):
            assert values["id"] == self.columns.ids[row], f"row {row} is {values['id']}, not {self.columns.ids[row]}"
            yield row, values["text"]

    def distinct_index(self) -> np.ndarray:
        """[documents] int64: which of the distinct ids, in order, each row has."""
        first = np.zeros(len(self), np.int64)
        first[self.columns.first_rows()] = 1
        return np.cumsum(first) - 1

    def texts_of(self, documents: Iterable[int]) -> Iterator[str]:
        """Texts of single documents, numbered as the parts hold them, one row group of each part in memory.

        Asked for in canonical order, which is also the order within each part, no group is read twice.
        """
        groups: dict[int, tuple[int, list[str]]] = {}
        for document in documents:
            part = int(np.searchsorted(self.part_starts, document, side="right")) - 1
            group, place = divmod(document - int(self.part_starts[part]), ROWS_A_GROUP)
            if part not in groups or groups[part][0] != group:
                groups[part] = group, read_row_group(self.parts[part], group, "text")
            yield groups[part][1][place]
