"""Read a refined folder leniently: files of older versions show what they have."""

import hashlib
import json
import shlex
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from sluice.data.refining.tables import DECISIONS
from sluice.data.report import EVIDENCE, INGEST, REPORT, IngestReport, RefineReport

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq


@dataclass(frozen=True)
class RefinedFolder:
    """An opened refined folder: small files are read, large ones named."""

    path: Path
    report: RefineReport
    ingested: IngestReport | None
    parameters: Mapping[str, Any]
    """The settings of refine, or those of `data build` by block."""
    content_sha256: str
    """Hash of the ids of the kept documents."""
    decisions: Path
    scores: tuple[Path, ...]

    @property
    def thresholds(self) -> Mapping[str, Any]:
        """The settings of refine."""
        block = self.parameters.get("refine")
        return block if isinstance(block, dict) else self.parameters


def open_folder(path: Path) -> RefinedFolder:
    """Open a refined folder. Raises ValueError naming the file if it is not one or a file is damaged."""
    evidence = path / EVIDENCE
    decisions = evidence / DECISIONS
    for needed in (evidence / REPORT, decisions):
        if not needed.is_file():
            command = shlex.join(["sluice", "data", "build", "--out", str(path)])
            raise ValueError(f"{path} has no {needed.relative_to(path)}: `{command}` writes it")
    manifest = read_json(path / "manifest.json") or {}
    ingested = evidence / INGEST
    content = manifest.get("content_sha256") or (manifest.get("report") or {}).get("content_sha256")
    if not content:
        # The sha256 of the sorted ids of the kept documents, one a line.
        kept: set[str] = set()
        for batch in rows(decisions, ["final_id", "kept"]):
            finals, flags = (column.to_pylist() for column in batch.columns)
            kept.update(name for name, is_kept in zip(finals, flags, strict=True) if is_kept)
        content = hashlib.sha256("".join(f"{name}\n" for name in sorted(kept)).encode()).hexdigest()
    return RefinedFolder(
        path=path,
        report=_model(RefineReport, evidence / REPORT),
        ingested=_model(IngestReport, ingested) if ingested.is_file() else None,
        parameters=manifest.get("parameters") or {},
        content_sha256=content,
        decisions=decisions,
        scores=tuple(sorted(evidence.glob("scores-*.parquet"))),
    )


def read_json(path: Path) -> Any:
    """Read a JSON file; None if it does not exist. Raises ValueError if it is not JSON."""
    if not path.is_file():
        return None
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is damaged ({error}): run the step that writes it again") from error


def rows(path: Path, columns: list[str]) -> Iterator["pa.RecordBatch"]:
    """Yield columns of a Parquet file in batches, to bound memory. Raises ValueError for a missing column."""
    with _parquet(path) as file:
        missing = [name for name in columns if name not in file.schema_arrow.names]
        if missing:
            raise ValueError(f"{path} has no column {', '.join(missing)}: build the folder again")
        yield from file.iter_batches(batch_size=16_384, columns=columns)


def columns_of(path: Path) -> list[str]:
    """Names of the columns of a Parquet file."""
    with _parquet(path) as file:
        names: list[str] = file.schema_arrow.names
        return names


@contextmanager
def _parquet(path: Path) -> Iterator["pq.ParquetFile"]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            yield file
    except (pa.ArrowException, OSError) as error:
        # Some of these are ValueErrors already, but long ones that do not name the file.
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"{path} is damaged ({first}): build the folder again") from error


def _model(kind: type[Any], path: Path) -> Any:
    try:
        return kind.model_validate(read_json(path))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise ValueError(f"{path} is damaged ({where}: {first['msg']}): build the folder again") from error
