"""Ingest text from the listed sources or the pinned packages. Unreadable files and lines are counted and listed."""

import csv
import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO

from sluice.core.progress import Progress, no_progress
from sluice.data.config import IngestConfig
from sluice.data.document import Document, write_documents
from sluice.data.privacy import mask
from sluice.data.report import IngestCounts, IngestReport
from sluice.data.sources.origin import LEFT_OUT, Noted, Read, Reject
from sluice.data.sources.packages import packages
from sluice.data.sources.readers import SourceReader, why_none


def ingest(
    config: IngestConfig, out: Path, *, cache: Path | None = None, progress: Progress = no_progress
) -> IngestReport:
    """Write documents-*.jsonl and rejects.csv (source, path, line, reason) of the configured sources into `out`.

    Packages are read only if no sources are listed. Downloads are kept in `cache`. Raises ValueError for a source that
    does not exist, has no document, or does not have the pinned hash.
    """
    started = time.perf_counter()
    report = IngestReport()
    with ExitStack() as stack:
        kept = cache or Path(stack.enter_context(TemporaryDirectory(prefix="sluice-")))
        spool = out / ".spool"
        stack.callback(shutil.rmtree, spool, ignore_errors=True)
        reader = SourceReader(config, kept, spool)
        if config.given:
            found = reader.read(progress)
        else:
            found, report.fallback_reason = packages(config, kept, progress)
        fetched = time.perf_counter()
        rejects = stack.enter_context(
            (out / "rejects.csv").open("w", encoding="utf-8", errors="backslashreplace", newline="")
        )
        account = _Account(report, rejects)
        write_documents(account.kept(found), out, config.documents_per_shard)
    if not report.documents:
        why = why_none(account.first, sum(report.rejects.values()))
        raise ValueError(f"no document in data.packages ({why}): correct their include globs")
    for source, sha256 in reader.digests.items():
        if source in report.sources:
            report.sources[source].sha256 = sha256
    report.sources = dict(sorted(report.sources.items()))
    for name in ("rejects", "noted", "encodings", "fields", "fields_left_out"):
        setattr(report, name, dict(sorted(getattr(report, name).items())))
    report.timings = {"fetch_s": fetched - started, "read_s": time.perf_counter() - fetched}
    return report


_MOST_NAMES, _FURTHER = 1000, ".."


class _Account:
    """Counts documents and rejects as they pass, and writes the rejects."""

    def __init__(self, report: IngestReport, rejects: IO[str]) -> None:
        self.report = report
        self.first: Reject | None = None
        self.table = csv.writer(rejects, lineterminator="\n")
        self.table.writerow(("source", "path", "line", "reason"))

    def kept(self, found: Read) -> Iterator[Document]:
        for each in found:
            if isinstance(each, Reject):
                self.first = self.first or each
                # A path may contain an e-mail address too.
                self.table.writerow((each.source, mask(each.path)[0], each.line, each.reason))
                self.report.rejects[each.reason] = self.report.rejects.get(each.reason, 0) + 1
                continue
            if isinstance(each, Noted):
                self.report.noted[each.what] = self.report.noted.get(each.what, 0) + 1
                continue
            self._count_metadata(each)
            counts = self.report.sources.setdefault(
                each.metadata["source"], IngestCounts(licence=each.metadata["licence"])
            )
            size = len(each.text.encode())
            for tally in (counts, self.report):
                tally.documents += 1
                tally.bytes += size
            yield each

    def _count_metadata(self, document: Document) -> None:
        for name in document.metadata.pop(LEFT_OUT, ()):
            _add(self.report.fields_left_out, name)
        fields = document.metadata.get("fields", {})
        for name in fields:
            _add(self.report.fields, name)
        if "encoding_by" in fields:
            _add(self.report.encodings, f"{fields['encoding']} ({fields['encoding_by']})")


def _add(counts: dict[str, int], name: str) -> None:
    """Count a name; beyond the first thousand, names are counted together, because rows may have any."""
    name = name if name in counts or len(counts) < _MOST_NAMES else _FURTHER
    counts[name] = counts.get(name, 0) + 1
