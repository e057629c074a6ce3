"""Ingest text from the listed sources or the pinned packages. Unreadable files and lines are counted and listed."""

import shutil
import time
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from sluice.core.files import link_or_copy, remove
from sluice.core.progress import Progress, no_progress
from sluice.data.config import IngestConfig
from sluice.data.document import document_shards
from sluice.data.executor import RunTasks, lasting_workers
from sluice.data.report import IngestReport
from sluice.data.sources.formats import SUFFIXES, UNSUPPORTED
from sluice.data.sources.limits import Limits
from sluice.data.sources.parts import SPLIT_BYTES, PartReport, ReadCounts, ReadTask, plan_parts, read_part, split_part
from sluice.data.sources.plan import ReadPlan, plan

LEAST_BYTES, LEAST_UNITS = 1 << 25, 10_000
"""Size of the sources from which on workers read them; a worker takes seconds to start."""
_HEADER = "source,path,line,reason\n"


def ingest(
    config: IngestConfig,
    out: Path,
    *,
    cache: Path | None = None,
    work: Path | None = None,
    executor: RunTasks | None = None,
    progress: Progress = no_progress,
) -> IngestReport:
    """Write documents-*.jsonl and rejects.csv (source, path, line, reason) of the configured sources into `out`.

    Packages are read only if no sources are listed. Downloads are kept in `cache`. Parts that are read stay in `work`,
    where a later call with the same files, settings and code finds them, until the caller removes it; they hold raw
    text. `executor` is called like `run_tasks`; the default starts local processes for this call, or uses Ray. The
    documents do not depend on the workers. Raises ValueError for a source that does not exist, has no document, or
    does not have the pinned hash.
    """
    started = time.perf_counter()
    with ExitStack() as stack:
        kept = cache or Path(stack.enter_context(TemporaryDirectory(prefix="sluice-")))
        parts = work or out / ".parts"
        stack.callback(shutil.rmtree, spool := parts / "input", ignore_errors=True)
        if work is None:
            stack.callback(shutil.rmtree, parts, ignore_errors=True)
        # Only the owner may read what is not masked yet.
        parts.mkdir(mode=0o700, parents=True, exist_ok=True)
        planned = plan(config, kept, spool.absolute(), progress)
        fetched = time.perf_counter()
        run = executor or stack.enter_context(lasting_workers())
        as_parts = partial(
            plan_parts,
            limits=Limits.of(config),
            documents_per_shard=config.documents_per_shard,
            work=parts.absolute(),
        )
        tasks = as_parts(planned.units)
        if large := [task for task in tasks if task.size_bytes >= SPLIT_BYTES]:
            found = run(split_part, large, workers=config.workers, progress=progress, note="split")
            ranges = {task.number: units for task, units in zip(large, found, strict=True)}
            tasks = as_parts([pair for task in tasks for pair in ranges.get(task.number, task.units)])
        # Parts of other inputs or settings, and those that must be read again.
        current = {spool.absolute(), *(task.folder for task in tasks if task.key)}
        for stale in set(parts.absolute().iterdir()) - current:
            remove(stale)
        # The longest parts go first, so that no worker begins a long one when the others are done.
        ordered = sorted(tasks, key=lambda task: (-task.size_bytes, task.number))
        size, units = sum(task.size_bytes for task in tasks), sum(len(task.units) for task in tasks)
        workers = config.workers if size >= LEAST_BYTES or units >= LEAST_UNITS else 1
        reports = run(read_part, ordered, workers=workers, progress=progress, note="read")
        by_number = {task.number: report for task, report in zip(ordered, reports, strict=True)}
        in_order = [by_number[task.number] for task in tasks]
        if mistake := next((each.mistake for each in in_order if each.mistake), None):
            raise ValueError(mistake)
        _refuse_empty(config, planned, in_order)
        _collect(tasks, in_order, out)
        report = IngestReport.merged([each.counts for each in in_order])
    report.fallback_reason = planned.fallback_reason
    for source, sha256 in planned.digests.items():
        if source in report.sources:
            report.sources[source].sha256 = sha256
    report.timings = {"fetch_s": fetched - started, "read_s": time.perf_counter() - fetched}
    return report


def _refuse_empty(config: IngestConfig, planned: ReadPlan, reports: Sequence[PartReport]) -> None:
    """Raise ValueError for a source without a document, because a wrong path must not look like an empty corpus."""
    counts = [ReadCounts() for _ in planned.names]
    for report in reports:
        for source, found in report.by_source.items():
            counts[source].documents += found.documents
            counts[source].rejects += found.rejects
            counts[source].first = counts[source].first or found.first
    for name, each in zip(planned.names, counts, strict=True):
        if config.given and not each.documents:
            raise ValueError(f"data.sources: {name} has no document ({why_none(each)})")
    if config.given:
        return
    if planned.fallback_reason is None:
        for package, each in zip(config.packages, counts, strict=True):
            if not each.documents + each.rejects:
                raise ValueError(
                    f"{package.name}=={package.version}: no file matches include {package.include}; "
                    "correct data.packages"
                )
    if not any(each.documents for each in counts):
        found = ReadCounts(rejects=sum(each.rejects for each in counts), first=counts[0].first)
        raise ValueError(f"no document in data.packages ({why_none(found)}): correct their include globs")


def _collect(tasks: Sequence[ReadTask], reports: Sequence[PartReport], out: Path) -> None:
    """Put the documents and rejects of all parts into `out`, in order."""
    shards = [
        shard
        for task, report in zip(tasks, reports, strict=True)
        if report.counts.documents
        for shard in document_shards(task.folder)
    ]
    for number, shard in enumerate(shards):
        link_or_copy(shard, out / f"documents-{number:04d}.jsonl")
    with (out / "rejects.csv").open("w", encoding="utf-8") as table:
        table.write(_HEADER)
        for task in tasks:
            table.write(task.rejects.read_text(encoding="utf-8"))


def why_none(counts: ReadCounts) -> str:
    """Explain why a source has no document, with its first reject."""
    if counts.first is None:
        return "it is empty"
    path, reason, line = counts.first
    where = f"{path}:{line}" if line else path
    known = f"; files of {', '.join(SUFFIXES)} are read" if reason.startswith(UNSUPPORTED) else ""
    return f"{counts.rejects} rejected, first {where}: {reason}{known}"
