"""The Parquet tables that a refined folder keeps beside its documents: scores, similar pairs and decisions.

Parquet, because changing a threshold, drawing a histogram or explaining a decision reads a few columns of many rows.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from sluice.core.arrow import table_of
from sluice.core.files import atomic_write
from sluice.data.report import EVIDENCE

DECISIONS = "decisions.parquet"
PAIRS = "pairs.parquet"
"""Pairs of documents of this run that resemble each other."""
EARLIER = "earlier.parquet"
"""Pairs of a document of this run and one that an earlier run kept."""
SKETCHES = "sketches-{:04d}"
ROWS_A_GROUP = 64
"""Small, so that a single text is read without the rest of its part."""
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
"""The first columns of every table of documents."""

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

_TEXT = pa.schema([("text", pa.string()), ("contamination", pa.string()), ("fields", pa.string())])
"""`contamination` is JSON: the spans of words shared with evaluation sets; so is `fields`: those of the row beside the
text.
"""


def score_schema(scores: Sequence[str]) -> pa.Schema:
    """Schema of a scores file: identity, text, and a float column for each score that is not in the identity."""
    return pa.schema([*IDENTITY, *_TEXT, *((name, pa.float32()) for name in scores if name not in IDENTITY.names)])


def write_rows(rows: Sequence[dict[str, Any]], schema: pa.Schema, path: Path) -> None:
    """Write rows as one Parquet file, atomically; equal rows give equal bytes."""
    table = table_of(rows, schema)
    with atomic_write(path) as partial:
        pq.write_table(table, partial, compression="zstd", row_group_size=ROWS_A_GROUP)


_TWINS = pa.schema([("id", pa.string()), ("twin", pa.string()), ("jaccard", pa.float64())])


def write_twins(twins: Sequence[tuple[str, str, float]], path: Path) -> None:
    """Write (id, twin, Jaccard) rows, sorted."""
    rows = [{"id": one, "twin": other, "jaccard": similarity} for one, other, similarity in sorted(twins)]
    write_rows(rows, _TWINS, path)


def read_twins(path: Path) -> list[tuple[str, str, float]]:
    """Read what `write_twins` wrote."""
    table = read_columns(path, _TWINS.names)
    return list(zip(*(table[name].to_pylist() for name in _TWINS.names), strict=True))


def score_parts(folder: Path) -> list[Path]:
    """List the scores files of an evidence folder in name order. Raises ValueError if there is none."""
    parts = sorted(folder.glob("scores-*.parquet"))
    if not parts:
        raise ValueError(f"{folder} holds no scores-*.parquet: it is not the evidence of a refined folder")
    return parts


def write_decisions(tables: Iterable[pa.Table], path: Path) -> None:
    """Write tables of DECISION, one row group each, atomically."""
    with atomic_write(path) as partial, pq.ParquetWriter(partial, DECISION, compression="zstd") as writer:
        for table in tables:
            # Pages end where chunks do, and the bytes must not depend on how a column came to be chunked.
            writer.write_table(table.combine_chunks(), row_group_size=DECISIONS_A_GROUP)


def read_columns(path: Path, columns: Sequence[str]) -> pa.Table:
    """Read some columns of one file."""
    with pq.ParquetFile(path) as file:
        return file.read(columns=list(columns))


def score_columns(path: Path) -> list[str]:
    """Names of the score columns of a scores file."""
    fixed = {*IDENTITY.names, *_TEXT.names}
    return [name for name in pq.read_schema(path).names if name not in fixed]


def has_fields(path: Path) -> bool:
    """Return whether a scores file has the fields of rows; those of builds before version 0.3 have none."""
    return "fields" in pq.read_schema(path).names


def read_rows(path: Path, indices: Iterable[int], columns: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Yield the rows at these ascending indices of one file. Only their row groups are read, one at a time."""
    with pq.ParquetFile(path) as file:
        size = file.metadata.row_group(0).num_rows if file.num_row_groups else 1
        for group, chosen in groupby(indices, key=lambda index: index // size):
            table = file.read_row_group(group, columns=list(columns))
            for index in chosen:
                yield table.slice(index % size, 1).to_pylist()[0]


def read_decisions(folder: Path) -> list[dict[str, Any]]:
    """Read the decisions of a refined folder. Raises ValueError if it is not one."""
    path = folder / EVIDENCE / DECISIONS
    if not path.is_file():
        raise ValueError(f"{folder} is not a refined folder: {path} does not exist")
    return read_columns(path, DECISION.names).to_pylist()
