"""Traffic records: one row a request, written beside the request path as Parquet files by hour and version.

Light on purpose: the gateway imports this, so pyarrow and pandas come in where files are written or read.
"""

import contextlib
import math
import os
import re
import threading
import uuid
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from sluice.data.privacy import mask

if TYPE_CHECKING:
    import pandas
    import pyarrow

HOUR_S = 3600
HOUR_FORMAT = "%Y%m%d%H"
FLUSH_TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True)
class TrafficRecord:
    """What one request did.

    A number that does not exist is None: the first token of a request that failed before it, per_token_ms of a
    one-token answer. Status and completion_tokens say where it must exist; there, one missing or NaN is a finding.
    """

    request_id: str
    time: float
    """Epoch seconds at which the request arrived."""
    version: str
    """Model version that answered."""
    arm: Literal["champion", "challenger"]
    queue_ms: float | None
    first_token_ms: float | None
    per_token_ms: float | None
    """Mean time between tokens after the first."""
    total_ms: float | None
    prompt_tokens: int
    completion_tokens: int
    finish_reason: str
    status: int
    """As in HTTP."""
    error: str = ""
    """Short type name of the error, empty when there was none."""
    prompt_text: str = ""
    completion_text: str = ""
    embedding: Sequence[float] = ()
    """Pooled hidden state of the prompt, [hidden]."""
    mean_log_probability: float | None = None
    """Mean over the answer's tokens, nats."""
    source: Literal["live", "replay", "smoke"] = "live"

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", self.version):
            raise ValueError(f"version {self.version!r} must be letters, digits, '_', '-' and '.'; it names a folder")
        if not (math.isfinite(self.time) and self.time >= 0):
            raise ValueError(f"time {self.time} must be epoch seconds")


COLUMNS = tuple(column.name for column in fields(TrafficRecord))


class TrafficWriter:
    """Buffers records and writes them from a background thread: `write` only masks text and appends.

    Files appear whole, at folder/hour=YYYYMMDDHH/version=V/*.parquet (UTC hours). Monitoring never takes serving down:
    records that cannot be written (full disk), outrun the disk or come after `close` are counted in `lost`, the cause
    is in `last_error`.
    """

    def __init__(
        self, folder: Path, flush_every_n: int = 256, flush_every_s: float = 5.0, max_buffered: int = 65_536
    ) -> None:
        if flush_every_n < 1 or flush_every_s <= 0 or max_buffered < flush_every_n:
            raise ValueError(
                f"flush_every_n {flush_every_n} and flush_every_s {flush_every_s} must be positive, "
                f"max_buffered {max_buffered} at least flush_every_n"
            )
        self.folder = Path(folder)
        self.lost = 0
        self.written = 0
        self.last_error = ""
        self._flush_every_n, self._flush_every_s, self._max_buffered = flush_every_n, flush_every_s, max_buffered
        self._buffer: list[TrafficRecord] = []
        self._buffer_lock = threading.Lock()
        self._disk_lock = threading.Lock()
        self._wake = threading.Event()
        self._closed = False
        self._thread = threading.Thread(target=self._flush_in_background, name="traffic-writer", daemon=True)
        self._thread.start()

    def write(self, record: TrafficRecord) -> None:
        """Takes one record; personal data in its text is masked before it is kept. Thread-safe, no disk."""
        scrubbed = replace(
            record,
            prompt_text=mask(record.prompt_text)[0],
            completion_text=mask(record.completion_text)[0],
            embedding=tuple(map(float, record.embedding)),
        )
        with self._buffer_lock:
            if self._closed or len(self._buffer) >= self._max_buffered:
                self.lost += 1
                self.last_error = (
                    "the writer is closed" if self._closed else f"buffer full at {self._max_buffered} records"
                )
                return
            self._buffer.append(scrubbed)
            is_due = len(self._buffer) >= self._flush_every_n
        if is_due:
            self._wake.set()

    def flush(self) -> None:
        """Writes what is buffered and returns when it is on disk (or counted as lost)."""
        with self._disk_lock:
            with self._buffer_lock:
                records, self._buffer = self._buffer, []
            groups: dict[tuple[str, str], list[TrafficRecord]] = defaultdict(list)
            for record in records:
                groups[_hour(record.time), record.version].append(record)
            for (hour, version), group in groups.items():
                error = _write_file(self.folder / f"hour={hour}" / f"version={version}", group)
                with self._buffer_lock:
                    if error:
                        self.lost += len(group)
                        self.last_error = error
                    else:
                        self.written += len(group)

    def close(self) -> None:
        """Stops the thread and writes the rest. A disk that hangs costs its records, not the shutdown."""
        with self._buffer_lock:
            self._closed = True
        self._wake.set()
        self._thread.join(timeout=FLUSH_TIMEOUT_S)
        if self._thread.is_alive():
            with self._buffer_lock:
                self.lost += len(self._buffer)
                self._buffer.clear()
                self.last_error = f"the disk did not answer within {FLUSH_TIMEOUT_S:.0f} s"
        else:
            self.flush()

    def __enter__(self) -> "TrafficWriter":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _flush_in_background(self) -> None:
        while not self._closed:
            self._wake.wait(timeout=self._flush_every_s)
            self._wake.clear()
            self.flush()


def _hour(time: float) -> str:
    return datetime.fromtimestamp(time, UTC).strftime(HOUR_FORMAT)


def _schema() -> "pyarrow.Schema":
    import pyarrow as pa

    types = {"time": pa.float64(), "prompt_tokens": pa.int32(), "completion_tokens": pa.int32(), "status": pa.int16()}
    types |= {name: pa.float64() for name in COLUMNS if name.endswith("_ms") or name == "mean_log_probability"}
    types["embedding"] = pa.list_(pa.float32())
    return pa.schema([(name, types.get(name, pa.string())) for name in COLUMNS])


def _write_file(folder: Path, records: Iterable[TrafficRecord]) -> str:
    """Writes one Parquet file; returns what went wrong, or an empty string."""
    import pyarrow as pa

    try:
        table = pa.Table.from_pylist([asdict(record) for record in records], schema=_schema())
        _write_table(folder, f"{uuid.uuid4().hex}.parquet", table)
    except (OSError, pa.ArrowException, OverflowError) as error:
        return f"{type(error).__name__}: {error}"
    return ""


def _write_table(folder: Path, name: str, table: "pyarrow.Table") -> None:
    from pyarrow import parquet

    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / f".{name}.tmp"
    try:
        with temporary.open("wb") as file:
            parquet.write_table(table, file, compression="zstd")
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(folder / name)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


def write_traffic(frame: "pandas.DataFrame", folder: Path) -> list[Path]:
    """Writes records that `read_traffic` read into a folder of the same layout, and returns the files.

    The same records give the same bytes.
    """
    import pyarrow as pa

    files, hours = [], frame["time"].map(_hour)
    for (hour, version), group in frame.groupby([hours, frame["version"]], sort=True):
        table = pa.Table.from_pandas(group[list(COLUMNS)], schema=_schema(), preserve_index=False)
        target = folder / f"hour={hour}" / f"version={version}"
        _write_table(target, "records.parquet", table.replace_schema_metadata(None))
        files.append(target / "records.parquet")
    return files


class TrafficScan(NamedTuple):
    """Records in order of time, and the files that could not be read (relative to the folder)."""

    frame: "pandas.DataFrame"
    unreadable: list[str]


def scan_traffic(
    folder: Path, since: float | None = None, until: float | None = None, columns: Sequence[str] = COLUMNS
) -> TrafficScan:
    """Reads the records with since <= time < until (epoch seconds), opening only files of those hours.

    A folder that does not exist holds no records. A file that cannot be read is named, and the rest is returned.
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
    for path in _files(Path(folder), since, until):
        try:
            with parquet.ParquetFile(path) as file:
                tables.append(file.read(columns=wanted).select(wanted).cast(schema))
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


def _files(folder: Path, since: float | None, until: float | None) -> list[Path]:
    first = _hour(since) if since is not None else ""
    last = _hour(until) if until is not None else "~"
    hours = [hour for hour in folder.glob("hour=*") if first <= hour.name.removeprefix("hour=") <= last]
    return sorted(path for hour in hours for path in hour.glob("version=*/*.parquet"))


def read_traffic(folder: Path, since: float | None = None, until: float | None = None) -> "pandas.DataFrame":
    """The records of `scan_traffic` alone, every column."""
    return scan_traffic(folder, since, until).frame
