"""Traffic records on disk: Parquet files at folder/hour=YYYYMMDDHH/version=V/*.parquet, hours in UTC.

Light on purpose: the gateway imports this, so pyarrow and pandas are imported where files are written or read.
"""

import uuid
from collections.abc import Iterable
from dataclasses import MISSING, asdict, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from sluice.core.files import atomic_write
from sluice.monitoring.traffic.record import COLUMNS, TrafficRecord

if TYPE_CHECKING:
    import pandas
    import pyarrow

DEFAULTS = {column.name: column.default for column in fields(TrafficRecord) if column.default is not MISSING}
"""Values of the columns that a file lacks because it was written before the field existed."""


def hour_of(time: float) -> str:
    """Return the UTC hour of `time` (epoch seconds) as its folder names it."""
    return datetime.fromtimestamp(time, UTC).strftime("%Y%m%d%H")


def _schema() -> "pyarrow.Schema":
    import pyarrow as pa

    types = {
        "string": pa.string(),
        "double": pa.float64(),
        "int32": pa.int32(),
        "int16": pa.int16(),
        "list<float>": pa.list_(pa.float32()),
    }
    return pa.schema([(name, types[column.parquet]) for name, column in COLUMNS.items()])


def write_records(folder: Path, hour: str, version: str, records: Iterable[TrafficRecord]) -> str:
    """Write one file of records of one hour and version; return the error, or an empty string."""
    import pyarrow as pa

    try:
        table = pa.Table.from_pylist([asdict(record) for record in records], schema=_schema())
        _write_table(folder / f"hour={hour}" / f"version={version}" / f"{uuid.uuid4().hex}.parquet", table)
    except (OSError, pa.ArrowException, OverflowError) as error:
        return f"{type(error).__name__}: {error}"
    return ""


def _write_table(path: Path, table: "pyarrow.Table") -> None:
    from pyarrow import parquet

    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path, fsync=True) as partial, partial.open("wb") as file:
        parquet.write_table(table, file, compression="zstd")


def write_traffic(frame: "pandas.DataFrame", folder: Path) -> list[Path]:
    """Write records that `read_traffic` returned into a folder of the same layout; return the files.

    The same records give the same bytes.
    """
    import pyarrow as pa

    files, hours = [], frame["time"].map(hour_of)
    for (hour, version), group in frame.groupby([hours, frame["version"]], sort=True):
        table = pa.Table.from_pandas(group[list(COLUMNS)], schema=_schema(), preserve_index=False)
        path = folder / f"hour={hour}" / f"version={version}" / "records.parquet"
        _write_table(path, table.replace_schema_metadata(None))
        files.append(path)
    return files


class TrafficScan(NamedTuple):
    """Records in order of time, and the files that could not be read (relative to the folder)."""

    frame: "pandas.DataFrame"
    unreadable: list[str]


def scan_traffic(
    folder: Path, since: float | None = None, until: float | None = None, columns: Iterable[str] = COLUMNS
) -> TrafficScan:
    """Read the records with since <= time < until (epoch seconds), opening only files of those hours.

    A folder that does not exist holds no records. A file that cannot be read is named, and the rest is returned. A
    column that a file lacks has its default there.
    """
    import pandas as pd
    import pyarrow as pa
    from pyarrow import parquet

    unknown = sorted(set(columns) - set(COLUMNS))
    if unknown:
        raise ValueError(f"unknown traffic columns {unknown}; there are {list(COLUMNS)}")
    wanted = list(dict.fromkeys([*columns, "time", "request_id"]))
    schema = pa.schema([_schema().field(name) for name in wanted])
    tables, unreadable = [schema.empty_table()], []
    first = hour_of(since) if since is not None else ""
    last = hour_of(until) if until is not None else "~"
    hours = [hour for hour in folder.glob("hour=*") if first <= hour.name.removeprefix("hour=") <= last]
    for path in sorted(path for hour in hours for path in hour.glob("version=*/*.parquet")):
        try:
            with parquet.ParquetFile(path) as file:
                stored = [name for name in wanted if name in file.schema_arrow.names]
                table = file.read(columns=stored)
            for name in sorted(set(wanted) - set(stored)):
                table = table.append_column(name, [[DEFAULTS[name]] * len(table)])
            tables.append(table.select(wanted).cast(schema))
        except (OSError, pa.ArrowException, KeyError):
            unreadable.append(str(path.relative_to(folder)))
    frame = pa.concat_tables(tables).to_pandas()
    inside = pd.Series(True, index=frame.index)
    if since is not None:
        inside &= frame["time"] >= since
    if until is not None:
        inside &= frame["time"] < until
    ordered = frame[inside].sort_values(["time", "request_id"], kind="stable").reset_index(drop=True)
    return TrafficScan(ordered[list(columns)], unreadable)


def read_traffic(folder: Path, since: float | None = None, until: float | None = None) -> "pandas.DataFrame":
    """Return the records of `scan_traffic` alone, with every column."""
    return scan_traffic(folder, since, until).frame
