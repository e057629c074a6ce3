"""The scored corpus: its columns in canonical order, and where its texts lie on disk."""

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
from pyarrow import compute

from sluice.core.arrow import numbers, table_of
from sluice.data.decontamination.spans import SharedSpan
from sluice.data.refining.tables import IDENTITY, read_columns, score_columns

_ORDER = ("id", "source", "path", "raw_id")


@dataclass(frozen=True)
class Corpus:
    """All scored documents as columns. The texts stay on disk, in the parts that scoring wrote.

    A *row* counts documents in canonical order: by id, then by where they came from. A *slot* counts them as they are
    stored, one part after another.
    """

    ids: list[str]
    """[rows]; equal texts have equal ids and follow one another."""
    languages: list[str]
    characters: np.ndarray
    """[rows] int64."""
    scores: Mapping[str, np.ndarray]
    """[rows] float32 each."""
    contamination: Mapping[int, list[SharedSpan]]
    """Row -> spans shared with evaluation sets, of the documents that have any."""
    identity: pa.Table
    """The columns of IDENTITY, [rows]."""
    parts: list[Path]
    """The scores files."""
    part_rows: np.ndarray
    """Row of each slot, [slots] int64."""
    part_starts: np.ndarray
    """First slot of each part, [parts + 1] int64."""

    @classmethod
    def open(cls, parts: Sequence[Path]) -> "Corpus":
        """Read every column but the texts."""
        # A part without a document has no score either.
        parts = [path for path in parts if score_columns(path)]
        names = score_columns(parts[0]) if parts else []
        tables = [read_columns(path, [*IDENTITY.names, "contamination", *names]) for path in parts]
        empty = pa.schema([*IDENTITY, ("contamination", pa.string())])
        table = pa.concat_tables(tables or [table_of([], empty)])
        order = compute.sort_indices(table, sort_keys=[(name, "ascending") for name in _ORDER])
        table = table.take(order)
        part_rows = np.empty(len(table), np.int64)
        part_rows[np.frombuffer(order.buffers()[1], np.uint64, len(table)).astype(np.int64)] = np.arange(len(table))
        return cls(
            ids=table["id"].to_pylist(),
            languages=[sys.intern(name) for name in table["language"].to_pylist()],
            characters=numbers(table["characters"]),
            scores={name: numbers(table[name]) for name in (*names, "characters")},
            contamination=parse_contamination(table["contamination"].to_pylist()),
            identity=table.select(IDENTITY.names),
            parts=parts,
            part_rows=part_rows,
            part_starts=np.cumsum([0, *map(len, tables)]),
        )

    def __len__(self) -> int:
        return len(self.ids)

    def first_rows(self) -> np.ndarray:
        """Row of the first document of each distinct id, [distinct ids], in the order of the ids."""
        return np.array([row for row, name in enumerate(self.ids) if not row or self.ids[row - 1] != name], np.int64)

    def is_first(self) -> np.ndarray:
        """Return whether each slot holds the first document of its id, [slots] bool."""
        first = np.zeros(len(self), dtype=bool)
        first[self.first_rows()] = True
        return first[self.part_rows]

    def distinct_index(self) -> np.ndarray:
        """Index among the distinct ids of each row's id, [rows] int64."""
        first = np.zeros(len(self), np.int64)
        first[self.first_rows()] = 1
        return np.cumsum(first) - 1

    def slot_ids(self) -> list[str]:
        """Ids in the order of the slots."""
        return [self.ids[row] for row in self.part_rows]

    def slots_of(self, rows: np.ndarray) -> np.ndarray:
        """Slots of the documents at these rows, [n] int64."""
        slots = np.empty(len(self), np.int64)
        slots[self.part_rows] = np.arange(len(self))
        return slots[rows]

    def by_part(self, slots: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
        """Yield (part, row indices in its file) of ascending slots [n], without the parts that hold none of them."""
        edges = np.searchsorted(slots, self.part_starts)
        for part, (first, end) in enumerate(pairwise(edges.tolist())):
            if end > first:
                yield part, slots[first:end] - self.part_starts[part]


def parse_contamination(column: Sequence[str]) -> dict[int, list[SharedSpan]]:
    """Parse a `contamination` column into row -> spans, of the rows that have any."""
    return {row: [SharedSpan(**span) for span in json.loads(text)] for row, text in enumerate(column) if text != "[]"}
