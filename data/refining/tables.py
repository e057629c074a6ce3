"""What a refined folder keeps beside its documents: every document's scores, and what was decided about it.

Parquet, because a threshold is cut again, a histogram drawn and a question answered from a few columns of many rows.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from sluice.core.arrow import table_of
from sluice.core.files import atomic_write
from sluice.core.manifest import EVIDENCE

DECISIONS = "decisions.parquet"
PAIRS = "pairs.parquet"
"""Documents of this run that resemble each other."""
EARLIER = "earlier.parquet"
"""Documents that resemble one of an earlier run."""
SKETCHES = "sketches-{:04d}"
REPORT = "report.json"
INGEST, REJECTS = "ingest.json", "rejects.csv"
"""What came in, and what did not."""
ROWS_A_GROUP = 64
"""Few, so that single texts are read without the rest of a part."""
DECISIONS_A_GROUP = 4096

IDENTITY = pa.schema(
    [
        ("id", pa.string()),
        ("raw_id", pa.string()),
        ("source", pa.string()),
        ("path", pa.string()),
        ("licence", pa.string()),
        ("title", pa.string()),
        ("language", pa.string()),
        ("characters", pa.int64()),
        ("bytes", pa.int64()),
    ]
)
"""Columns that every row about a document begins with."""

_DECIDED = pa.schema(
    [
        ("final_id", pa.string()),
        ("kept", pa.bool_()),
        ("rule", pa.string()),
        ("comparison", pa.string()),
        ("twin", pa.string()),
        ("jaccard", pa.float64()),
        ("cut_characters", pa.int64()),
    ]
)
DECISION = pa.schema([*IDENTITY, *_DECIDED])

_TEXT = pa.schema([("text", pa.string()), ("contamination", pa.string())])
"""`contamination` is JSON: spans of words shared with evaluation sets."""


def score_schema(scores: Sequence[str]) -> pa.Schema:
    """Schema of a scores part: identity, text, and a float column a score that is not identity already."""
    return pa.schema([*IDENTITY, *_TEXT, *((name, pa.float32()) for name in scores if name not in IDENTITY.names)])


def write_rows(rows: Sequence[dict[str, Any]], schema: pa.Schema, path: Path) -> None:
    """Write rows as one Parquet file, whole or absent; equal rows give equal bytes."""
    table = table_of(rows, schema)
    with atomic_write(path) as partial:
        pq.write_table(table, partial, compression="zstd", row_group_size=ROWS_A_GROUP)


_TWINS = pa.schema([("id", pa.string()), ("twin", pa.string()), ("jaccard", pa.float64())])


def write_twins(twins: Sequence[tuple[str, str, float]], path: Path) -> None:
    """Write (id, twin, Jaccard) rows in order."""
    rows = [{"id": one, "twin": other, "jaccard": similarity} for one, other, similarity in sorted(twins)]
    write_rows(rows, _TWINS, path)


def read_twins(path: Path) -> list[tuple[str, str, float]]:
    table = read_columns(path, _TWINS.names)
    return list(zip(*(table[name].to_pylist() for name in _TWINS.names), strict=True))


def score_parts(folder: Path) -> list[Path]:
    """The scores parts of an evidence folder, in name order. ValueError if there is none."""
    parts = sorted(folder.glob("scores-*.parquet"))
    if not parts:
        raise ValueError(f"{folder} holds no scores-*.parquet: it is not the evidence of a refined folder")
    return parts


def write_decisions(tables: Iterable[pa.Table], path: Path) -> None:
    """Write tables of DECISION, a row group each; the file appears when all are in it."""
    with atomic_write(path) as partial, pq.ParquetWriter(partial, DECISION, compression="zstd") as writer:
        for table in tables:
            # Pages end where chunks do, and how a column came to be in chunks must not show.
            writer.write_table(table.combine_chunks(), row_group_size=DECISIONS_A_GROUP)


def read_columns(path: Path, columns: Sequence[str]) -> pa.Table:
    """Some columns of one part."""
    with pq.ParquetFile(path) as file:
        return file.read(columns=list(columns))


def score_columns(path: Path) -> list[str]:
    """Names of the score columns of a part."""
    fixed = {*IDENTITY.names, *_TEXT.names}
    return [name for name in pq.read_schema(path).names if name not in fixed]


def read_places(path: Path, places: Iterable[int], columns: Sequence[str]) -> Iterator[dict[str, Any]]:
    """The rows at these ascending places of one part, a row group in memory at a time, and no other group read."""
    with pq.ParquetFile(path) as file:
        size = file.metadata.row_group(0).num_rows if file.num_row_groups else 1
        for group, chosen in groupby(places, key=lambda place: place // size):
            table = file.read_row_group(group, columns=list(columns))
            for place in chosen:
                yield table.slice(place % size, 1).to_pylist()[0]


def read_decisions(folder: Path) -> list[dict[str, Any]]:
    """The decisions of a refined folder. ValueError if it is none."""
    path = folder / EVIDENCE / DECISIONS
    if not path.is_file():
        raise ValueError(f"{folder} is not a refined folder: {path} does not exist")
    return read_columns(path, DECISION.names).to_pylist()
