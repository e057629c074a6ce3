"""What a refined folder keeps beside its documents: every document's scores, and what was decided about it.

Parquet, because a threshold is cut again, a histogram drawn and a question answered from a few columns of many rows.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

EVIDENCE = "evidence"
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
_DECISIONS_A_GROUP = 4096
"""Few, because a merge over all parts holds one group of each."""

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
    partial = path.with_name(f".{path.name}.partial")
    table = pa.Table.from_pylist(list(rows), schema=schema)
    try:
        pq.write_table(table, partial, compression="zstd", row_group_size=ROWS_A_GROUP)
    except OSError as error:
        # Arrow's own message, of a full disk for example, does not say which file.
        raise OSError(f"{path} could not be written: {error}") from error
    partial.replace(path)


_TWINS = pa.schema([("id", pa.string()), ("twin", pa.string()), ("jaccard", pa.float64())])


def write_twins(twins: Sequence[tuple[str, str, float]], path: Path) -> None:
    """Write (id, twin, Jaccard) rows in order."""
    rows = [{"id": one, "twin": other, "jaccard": similarity} for one, other, similarity in sorted(twins)]
    write_rows(rows, _TWINS, path)


def read_twins(path: Path) -> list[tuple[str, str, float]]:
    table = pq.read_table(path)
    return list(zip(*(table[name].to_pylist() for name in _TWINS.names), strict=True))


def score_parts(folder: Path) -> list[Path]:
    """The scores parts of an evidence folder, in name order. ValueError if there is none."""
    parts = sorted(folder.glob("scores-*.parquet"))
    if not parts:
        raise ValueError(f"{folder} holds no scores-*.parquet: it is not the evidence of a refined folder")
    return parts


class DecisionWriter:
    """Writes decisions as they are made, a row group in memory; the file appears when all are in it."""

    def __init__(self, path: Path) -> None:
        self._path, self._partial = path, path.with_name(f".{path.name}.partial")
        self._writer = pq.ParquetWriter(self._partial, DECISION, compression="zstd")
        self._rows: list[dict[str, Any]] = []

    def write(self, row: dict[str, Any]) -> None:
        self._rows.append(row)
        if len(self._rows) >= _DECISIONS_A_GROUP:
            self._flush()

    def _flush(self) -> None:
        self._writer.write_table(pa.Table.from_pylist(self._rows, schema=DECISION))
        self._rows.clear()

    def __enter__(self) -> "DecisionWriter":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self._flush()
        self._writer.close()
        if kind is None:
            self._partial.replace(self._path)


def read_columns(path: Path, columns: Sequence[str]) -> pa.Table:
    """Some columns of one part."""
    return pq.read_table(path, columns=list(columns))


def score_columns(path: Path) -> list[str]:
    """Names of the score columns of a part."""
    fixed = {*IDENTITY.names, *_TEXT.names}
    return [name for name in pq.read_schema(path).names if name not in fixed]


def read_rows(path: Path, columns: Sequence[str] | None = None) -> Iterator[dict[str, Any]]:
    """Rows of one part, a row group in memory at a time."""
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(ROWS_A_GROUP, columns=list(columns) if columns else None):
            yield from batch.to_pylist()


def read_row_group(path: Path, group: int, column: str) -> list[str]:
    """One column of one row group, which holds ROWS_A_GROUP rows (the last one fewer)."""
    with pq.ParquetFile(path) as file:
        values: list[str] = file.read_row_group(group, columns=[column])[column].to_pylist()
        return values


def read_decisions(folder: Path) -> list[dict[str, Any]]:
    """The decisions of a refined folder. ValueError if it is none."""
    path = folder / EVIDENCE / DECISIONS
    if not path.is_file():
        raise ValueError(f"{folder} is not a refined folder: {path} does not exist")
    return pq.read_table(path).to_pylist()
