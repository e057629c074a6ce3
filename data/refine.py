"""Raw documents to a clean corpus: extract, filter, mask, deduplicate. What is dropped is kept with its reason."""

import heapq
import re
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from datatrove.data import Document, DocumentsPipeline
from datatrove.pipeline.base import PipelineStep
from pydantic import BaseModel

from data.config import RefineConfig
from data.deduplication import Duplicate, exact_duplicates, near_duplicates, shingles, signature
from data.document import content_id, document_shards, read_shard, write_documents, write_shard
from data.executor import run_tasks
from data.extract import extract
from data.filters import RULES, MeasureSignals, SignalFilter
from data.privacy import mask
from data.progress import Progress, no_progress

_DOCUMENTS_A_TASK = 64
_DOCUMENTS_A_SHARD = 512
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_HEADING = re.compile(r"^#{1,6} +(.+)$", re.MULTILINE)


class Tally(BaseModel):
    """Documents of one source, or of all of them."""

    documents_in: int = 0
    bytes_in: int = 0
    documents_kept: int = 0
    bytes_kept: int = 0
    """UTF-8 bytes of clean text."""
    dropped: dict[str, int] = {}
    """Documents by reason."""


class RefineReport(Tally):
    """What refine kept and why it dropped the rest."""

    dropped_bytes: dict[str, int] = {}
    """UTF-8 bytes of the extracted text of dropped documents, by reason."""
    masked: dict[str, int] = {}
    by_source: dict[str, Tally] = {}
    timings: dict[str, float] = {}
    """Seconds: of each kind of block, summed over the workers, and of the phases."""


@dataclass(frozen=True)
class CleanTask:
    """A range of one shard to extract, filter and mask; the parts it writes carry its number."""

    shard: Path
    start: int
    stop: int
    number: int
    parts: Path
    config: RefineConfig

    def __str__(self) -> str:
        return f"{self.shard.name} documents {self.start} to {self.stop - 1}"


@dataclass
class CleanResult:
    """Of one task: what the driver needs to know without opening its parts. Rows are in the order of the kept part."""

    number: int
    ids: list[str] = field(default_factory=list)
    provenance: list[tuple[str, ...]] = field(default_factory=list)
    lengths: list[int] = field(default_factory=list)
    seen: dict[str, tuple[int, int]] = field(default_factory=dict)
    """source -> (documents, UTF-8 bytes) before anything was dropped."""
    masked: Counter[str] = field(default_factory=Counter)
    seconds: dict[str, float] = field(default_factory=dict)


class ReadRange(PipelineStep):
    """The task's documents."""

    type = "📖 - READER"
    name = "read"

    def __init__(self, task: CleanTask) -> None:
        super().__init__()
        self.task = task

    def run(self, data: DocumentsPipeline = None, rank: int = 0, world_size: int = 1) -> DocumentsPipeline:
        for row, document in enumerate(read_shard(self.task.shard)):
            if row >= self.task.stop:
                break
            if row >= self.task.start:
                yield document


class ExtractMarkup(PipelineStep):
    """Markup to the document text contract; the title becomes the first heading where there is one."""

    type = "⛏ - EXTRACT"
    name = "extract"

    def run(self, data: DocumentsPipeline, rank: int = 0, world_size: int = 1) -> DocumentsPipeline:
        for document in data:
            with self.track_time():
                document.text = extract(document.text, document.metadata.pop("markup", "txt"))
                document.metadata["raw_id"] = document.id
                document.id = content_id(document.text)
                if heading := _HEADING.search(document.text):
                    document.metadata["title"] = heading[1]
            yield document


class MaskPersonalData(PipelineStep):
    """Placeholders for personal data; then the text is final, and so is its id."""

    type = "🕶 - PRIVACY"
    name = "mask"

    def __init__(self) -> None:
        super().__init__()
        self.masked: Counter[str] = Counter()

    def run(self, data: DocumentsPipeline, rank: int = 0, world_size: int = 1) -> DocumentsPipeline:
        for document in data:
            with self.track_time():
                document.text, counts = mask(_CONTROL.sub("", document.text))
                document.id = content_id(document.text)
                document.metadata.pop("signals")
                self.masked.update(counts)
            yield document


class DroppedDocuments:
    """Exclusion writer of datatrove's filters: holds the documents until the task writes them as one part."""

    def __init__(self) -> None:
        self.documents: list[Document] = []

    def __enter__(self) -> "DroppedDocuments":
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def write(self, document: Document, rank: int = 0) -> None:
        document.metadata.pop("filter_reason", None)
        self.documents.append(document)


def clean(task: CleanTask) -> CleanResult:
    """Run one task's datatrove pipeline; writes kept, dropped and MinHash parts below `task.parts`."""
    result = CleanResult(task.number)
    dropped, masking = DroppedDocuments(), MaskPersonalData()
    steps: list[PipelineStep] = [
        ExtractMarkup(),
        MeasureSignals(),
        *(SignalFilter(rule, task.config, dropped) for rule in RULES),
        masking,
    ]
    stream: Any = _counted(ReadRange(task)(), result)
    for step in steps:
        stream = step(stream, task.number)
    kept = sorted(stream, key=_order)
    for step in steps:
        name = "filter" if isinstance(step, SignalFilter) else str(step.name)
        result.seconds[name] = result.seconds.get(name, 0.0) + step.stats.time_stats.total
    result.masked = masking.masked

    started = time.perf_counter()
    hashes = [shingles(document.text, task.config.minhash_ngram) for document in kept]
    shape = (0, task.config.minhash_buckets, task.config.minhash_hashes_per_bucket)
    np.savez(
        _part(task.parts, "hashes", task.number, "npz"),
        signatures=np.array([signature(each, task.config) for each in hashes], dtype=np.uint32).reshape(-1, *shape[1:]),
        shingles=np.concatenate([np.empty(0, np.uint64), *hashes]),
        offsets=np.cumsum([0, *map(len, hashes)]),
    )
    result.seconds["minhash"] = time.perf_counter() - started
    write_shard(kept, _part(task.parts, "kept", task.number))
    write_shard(sorted(dropped.documents, key=_order), _part(task.parts, "dropped", task.number))
    result.ids = [document.id for document in kept]
    result.provenance = [_order(document)[1:] for document in kept]
    result.lengths = [len(document.text) for document in kept]
    return result


def refine(
    config: RefineConfig,
    documents: Path,
    out: Path,
    *,
    executor: Callable[..., list[CleanResult]] = run_tasks,
    progress: Progress = no_progress,
) -> RefineReport:
    """Clean the documents of a folder into `out`: documents-*.jsonl.gz sorted by id, dropped-*.jsonl.gz with reasons.

    The outcome depends on the documents and the settings only, not on order, shards or workers. `executor` is called
    like `data.executor.run_tasks`. ValueError if the folder is empty or nothing is kept.
    """
    parts = out / ".parts"
    parts.mkdir()
    try:
        started = time.perf_counter()
        tasks = _plan(config, documents, parts)
        results = executor(clean, tasks, workers=config.workers, progress=progress, note="extract, filter, mask")
        cleaned = time.perf_counter()
        duplicates = _find_duplicates(results, parts, config)
        compared = time.perf_counter()
        report = _write(results, duplicates, parts, out)
        report.timings = {
            **{f"{name}_workers_s": sum(r.seconds[name] for r in results) for name in results[0].seconds},
            "clean_s": cleaned - started,
            "deduplicate_s": compared - cleaned,
            "write_s": time.perf_counter() - compared,
        }
    finally:
        shutil.rmtree(parts)
    if not report.documents_kept:
        reasons = ", ".join(f"{reason} {count}" for reason, count in report.dropped.items())
        raise ValueError(
            f"refine kept none of {report.documents_in} documents ({reasons}): loosen refine.* or add text"
        )
    return report


def _plan(config: RefineConfig, documents: Path, parts: Path) -> list[CleanTask]:
    tasks: list[CleanTask] = []
    for shard in document_shards(documents):
        count = sum(1 for _ in read_shard(shard))
        for start in range(0, count, _DOCUMENTS_A_TASK):
            stop = min(start + _DOCUMENTS_A_TASK, count)
            tasks.append(CleanTask(shard, start, stop, len(tasks), parts, config))
    if not tasks:
        raise ValueError(f"{documents} holds no document: add a source")
    return tasks


def _counted(documents: Iterator[Document], result: CleanResult) -> Iterator[Document]:
    for document in documents:
        count, size = result.seen.get(document.metadata["source"], (0, 0))
        result.seen[document.metadata["source"]] = (count + 1, size + len(document.text.encode()))
        yield document


def _find_duplicates(
    results: Sequence[CleanResult], parts: Path, config: RefineConfig
) -> dict[tuple[int, int], tuple[str, Duplicate]]:
    """(part, row) -> (reason, duplicate) of every document to remove."""
    rows = [(result.number, row) for result in results for row in range(len(result.ids))]
    ids = [identity for result in results for identity in result.ids]
    provenance = [each for result in results for each in result.provenance]
    exact = set(exact_duplicates(zip(ids, provenance, strict=True)))
    removed = {rows[i]: ("exact_duplicate", Duplicate(ids[i], ids[i], 1.0)) for i in exact}
    distinct = [i for i in range(len(ids)) if i not in exact]
    lengths = [length for result in results for length in result.lengths]
    signatures: list[np.ndarray] = []
    hashes: list[np.ndarray] = []
    for result in results:
        with np.load(_part(parts, "hashes", result.number, "npz")) as arrays:
            signatures.append(arrays["signatures"])
            hashes.extend(np.split(arrays["shingles"], arrays["offsets"][1:-1]) if result.ids else [])
    near = near_duplicates(
        [ids[i] for i in distinct],
        [lengths[i] for i in distinct],
        np.concatenate(signatures)[distinct],
        [hashes[i] for i in distinct],
        config.min_jaccard,
    )
    row_of = {ids[i]: rows[i] for i in distinct}
    return removed | {row_of[duplicate.id]: ("near_duplicate", duplicate) for duplicate in near}


def _write(
    results: Sequence[CleanResult],
    duplicates: dict[tuple[int, int], tuple[str, Duplicate]],
    parts: Path,
    out: Path,
) -> RefineReport:
    report = RefineReport(masked=dict(sorted(sum((r.masked for r in results), Counter[str]()).items())))
    for result in results:
        for source, (count, size) in result.seen.items():
            for tally in (report, report.by_source.setdefault(source, Tally())):
                tally.documents_in += count
                tally.bytes_in += size
    dropped: list[Document] = []

    def kept() -> Iterator[Document]:
        streams = (_rows(_part(parts, "kept", result.number), result.number) for result in results)
        for _, position, document in heapq.merge(*streams, key=lambda entry: (entry[0], entry[1])):
            if position not in duplicates:
                for tally in (report, report.by_source[document.metadata["source"]]):
                    tally.documents_kept += 1
                    tally.bytes_kept += len(document.text.encode())
                yield document
                continue
            reason, duplicate = duplicates[position]
            twin = {"duplicate_of": duplicate.duplicate_of, "jaccard": duplicate.jaccard}
            document.metadata.update(reason=reason, **twin)
            dropped.append(document)

    write_documents(kept(), out, _DOCUMENTS_A_SHARD)
    for result in results:
        dropped.extend(read_shard(_part(parts, "dropped", result.number)))
    write_documents(sorted(dropped, key=_order), out, _DOCUMENTS_A_SHARD, prefix="dropped")
    for document in dropped:
        reason, size = document.metadata["reason"], len(document.text.encode())
        report.dropped_bytes[reason] = report.dropped_bytes.get(reason, 0) + size
        for tally in (report, report.by_source[document.metadata["source"]]):
            tally.dropped[reason] = tally.dropped.get(reason, 0) + 1
    report.by_source = dict(sorted(report.by_source.items()))
    for table in (report.dropped, report.dropped_bytes, *(tally.dropped for tally in report.by_source.values())):
        _sort_keys(table)
    return report


def _rows(path: Path, number: int) -> Iterator[tuple[tuple[str, ...], tuple[int, int], Document]]:
    for row, document in enumerate(read_shard(path)):
        yield _order(document), (number, row), document


def _order(document: Document) -> tuple[str, ...]:
    """Id, then where the document came from: a total order that does not know of shards."""
    metadata = document.metadata
    return document.id, metadata["source"], metadata["path"], metadata["raw_id"]


def _part(parts: Path, kind: str, number: int, suffix: str = "jsonl.gz") -> Path:
    return parts / f"{kind}-{number:06d}.{suffix}"


def _sort_keys(table: dict[str, int]) -> None:
    items = sorted(table.items())
    table.clear()
    table.update(items)
