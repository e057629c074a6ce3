"""Read one part of the sources into shards of raw documents.

A part is never read twice: its report is written last and marks it as read.
"""

import csv
import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from itertools import zip_longest
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from sluice.core.files import atomic_write, remove
from sluice.data.document import Document, write_documents
from sluice.data.privacy import mask
from sluice.data.report import IngestCounts, IngestReport, add_count
from sluice.data.sources.limits import Limits
from sluice.data.sources.origin import LEFT_OUT, Noted, Read, Reject
from sluice.data.sources.units import FileUnit, Unit

PART_BYTES = 1 << 23
"""Bytes of files a part: enough parts for the workers, and little is read again after an interrupt."""
PART_UNITS = 2_000
SPLIT_BYTES = 1 << 25
"""Size of a file from which on it is read in ranges. Finding them takes up to a quarter of the time of reading."""
DONE = "read.json"
"""Report of a part, written last."""
_REJECTS = "rejects.csv"
_READ_BY = ("brotli", "charset-normalizer", "datasets", "faust-cchardet", "pyarrow", "pygments", "warcio")
"""Libraries that the documents depend on."""


class ReadCounts(BaseModel):
    """Counts of one source of the settings."""

    documents: int = 0
    rejects: int = 0
    first: tuple[str, str, int | None] | None = None
    """Path, reason and line of the first reject."""


class PartReport(BaseModel):
    """Counts of a part, for the process that plans, which does not open its documents."""

    counts: IngestReport = IngestReport()
    by_source: dict[int, ReadCounts] = {}
    """By number of the source in the settings."""
    mistake: str | None = None
    """Message for the user, if a source cannot be read."""


@dataclass(frozen=True)
class ReadTask:
    """Some units to read as one part."""

    units: tuple[tuple[int, Unit], ...]
    limits: Limits
    documents_per_shard: int
    work: Path
    """Folder of the parts."""
    key: str
    """Hash of all that determines the part; empty if that is not known before it is read."""
    number: int

    def __str__(self) -> str:
        names = dict.fromkeys((self.units[0][1].shown, self.units[-1][1].shown))
        return f"{' to '.join(names)} (reading)"

    @property
    def folder(self) -> Path:
        return self.work / (self.key or f"unkeyed-{self.number:04d}")

    @property
    def rejects(self) -> Path:
        return self.folder / _REJECTS

    @property
    def size_bytes(self) -> int:
        return sum(unit.size_bytes for _, unit in self.units)


def plan_parts(
    units: Sequence[tuple[int, Unit]], limits: Limits, documents_per_shard: int, work: Path
) -> list[ReadTask]:
    """Group the units into parts of at most PART_BYTES, whatever the number of workers; a larger one is alone."""
    tasks: list[ReadTask] = []
    group: list[tuple[int, Unit]] = []
    size = 0
    for pair, following in zip_longest(units, units[1:]):
        group.append(pair)
        size += pair[1].size_bytes
        # What has no version is read on its own, for it is read again each time.
        ends = following is None or None in (pair[1].version, following[1].version)
        if ends or size + following[1].size_bytes > PART_BYTES or len(group) >= PART_UNITS:
            # Empty if a version is not known.
            key, versions = "", [unit.version for _, unit in group]
            if None not in versions:
                known = zip(group, versions, strict=True)
                described = [f"{source} {unit!r} {version}" for (source, unit), version in known]
                whole = json.dumps([_code(), repr(limits), documents_per_shard, described])
                key = hashlib.sha256(whole.encode("utf-8", "surrogateescape")).hexdigest()[:16]
            tasks.append(ReadTask(tuple(group), limits, documents_per_shard, work, key, len(tasks)))
            group, size = [], 0
    return tasks


def split_part(task: ReadTask) -> list[tuple[int, Unit]]:
    """Return the ranges of the file of a task, or the task's units if it has no file or one to be read as a whole."""
    source, unit = task.units[0]
    if not isinstance(unit, FileUnit) or len(task.units) > 1:
        return list(task.units)
    return [(source, each) for each in unit.split(task.limits, PART_BYTES)]


def read_part(task: ReadTask) -> PartReport:
    """Read the documents and rejects of one part into its folder, unless an earlier run has done it."""
    done = task.folder / DONE
    if task.key and done.is_file():
        return PartReport.model_validate_json(done.read_bytes())
    remove(task.folder)
    task.folder.mkdir(parents=True)
    report = PartReport()
    try:
        with (
            atomic_write(task.rejects) as partial,
            partial.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file,
        ):
            table = csv.writer(file, lineterminator="\n")
            read = (
                document
                for source, unit in task.units
                for document in _counted(unit.read(task.limits), report, source, table)
            )
            write_documents(read, task.folder, task.documents_per_shard)
    except ValueError as error:
        # An error of a worker would be named after the part, not after the source.
        return PartReport(mistake=str(error))
    # Last, because it marks the part as read.
    with atomic_write(done) as partial:
        partial.write_text(report.model_dump_json(), encoding="utf-8")
    return report


def _counted(found: Read, part: PartReport, source: int, table: Any) -> Iterator[Document]:
    """Count documents and rejects of a source as they pass, and write the rejects."""
    report, counts = part.counts, part.by_source.setdefault(source, ReadCounts())
    for each in found:
        if isinstance(each, Reject):
            counts.rejects += 1
            counts.first = counts.first or (each.path, each.reason, each.line)
            # A path may contain an e-mail address too.
            table.writerow((each.source, mask(each.path)[0], each.line, each.reason))
            add_count(report.rejects, each.reason)
        elif isinstance(each, Noted):
            add_count(report.noted, each.what)
        else:
            counts.documents += 1
            of_source = report.sources.setdefault(
                each.metadata["source"], IngestCounts(licence=each.metadata["licence"])
            )
            size = len(each.text.encode())
            for tally in (of_source, report):
                tally.documents += 1
                tally.bytes += size
            for name in each.metadata.pop(LEFT_OUT, ()):
                add_count(report.fields_left_out, name)
            fields = each.metadata.get("fields", {})
            for name in fields:
                add_count(report.fields, name)
            if "encoding_by" in fields:
                add_count(report.encodings, f"{fields['encoding']} ({fields['encoding_by']})")
            yield each


@cache
def _code() -> str:
    """Hash the code and name the libraries that documents depend on."""
    digest = hashlib.sha256(" ".join(f"{name}=={version(name)}" for name in _READ_BY).encode())
    folder = Path(__file__).parent
    for path in [*sorted(folder.glob("*.py")), folder.parent / "document.py", folder.parent / "config.py"]:
        digest.update(path.read_bytes())
    for path in sorted((folder.parent / "privacy").glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()
