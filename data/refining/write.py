"""Write: the kept documents, one decision a document, and the report.

The workers write the texts, one part at a time; this process only merges their lines.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from datatrove.data import Document

from sluice.core.arrow import column_of
from sluice.core.progress import Progress, no_progress
from sluice.data.document import TURNS, content_id, document_line, with_fields, write_line_shards, write_lines
from sluice.data.executor import RunTasks
from sluice.data.quality.rules import RULES
from sluice.data.refining.corpus import Corpus
from sluice.data.refining.cut import Cut, CutResult, Cuts
from sluice.data.refining.decide import KEPT, DocumentDecision
from sluice.data.refining.tables import (
    DECISION,
    DECISIONS,
    DECISIONS_A_GROUP,
    IDENTITY,
    has_fields,
    read_rows,
    write_decisions,
)
from sluice.data.report import EVIDENCE, EXTRACTION_COUNTS, RefineReport, Tally

_DOCUMENTS_A_SHARD = 512
_METADATA = ("source", "path", "licence", "title", "language", "raw_id")


class NothingKept(ValueError):
    """Every document was dropped."""


def write_outcome(  # noqa: PLR0917
    corpus: Corpus,
    decisions: Sequence[DocumentDecision],
    cuts: Cuts,
    results: Mapping[int, CutResult],
    min_piece_words: int,
    out: Path,
    scratch: Path,
    run: RunTasks,
    workers: int,
    *,
    progress: Progress = no_progress,
) -> RefineReport:
    """Write documents-*.jsonl and the decisions into `out`. Raises NothingKept if nothing is kept.

    `results` are those of `cuts`, by row. Documents are in the order of the ids they were scored with; one that
    something was cut out of has the id of its final text. `scratch` is an empty folder that every worker can read.
    """
    decisions = drop_copies(corpus.ids, decisions, results)
    report = _report(corpus, decisions, results)
    report.split_groups = cuts.split_groups
    if not report.documents_kept:
        reasons = ", ".join(f"{rule} {count}" for rule, count in report.dropped.items())
        settings = [f"refine.{rule.setting}" for rule in RULES if rule.setting and rule.reason in report.dropped]
        raise NothingKept(
            f"refine kept none of {report.documents_in} documents ({reasons}): "
            f"loosen {', '.join(settings) or 'refine.*'} or add text"
        )
    rows = np.flatnonzero(report.kept_rows)
    slots = corpus.slots_of(rows)
    row_of = dict(zip(slots.tolist(), rows.tolist(), strict=True))
    tasks = []
    for part, indices in corpus.by_part(np.sort(slots)):
        numbered = ((index, row_of[index + int(corpus.part_starts[part])]) for index in indices.tolist())
        of_part = {index: cuts.by_row[row] for index, row in numbered if row in cuts.by_row}
        tasks.append(WriteTask(corpus.parts[part], indices, of_part, min_piece_words, scratch / f"{part:04d}.jsonl"))
    run(write_part, tasks, workers=workers, progress=progress, note="write documents")
    parts = np.searchsorted(corpus.part_starts, slots, side="right") - 1
    with ExitStack() as stack:
        files = {part: stack.enter_context((scratch / f"{part:04d}.jsonl").open("rb")) for part in set(parts.tolist())}
        # Each part is in the order of ids, so the next line of a document's part is its own.
        write_line_shards((files[part].readline() for part in parts.tolist()), out, _DOCUMENTS_A_SHARD)
    write_decisions(_decision_tables(corpus, decisions, results), out / EVIDENCE / DECISIONS)
    return report


@dataclass(frozen=True)
class WriteTask:
    """Documents of one part that are kept."""

    part: Path
    rows: np.ndarray
    """Row indices in the part, ascending, [n]."""
    cuts: Mapping[int, Cut]
    """By row index in the part."""
    min_piece_words: int
    out: Path
    """The file to write, one document a line."""

    def __str__(self) -> str:
        return f"{self.part.name} (writing)"


def write_part(task: WriteTask) -> None:
    """Write the clean documents of one part."""

    def clean() -> Iterator[Document]:
        rows = task.rows.tolist()
        columns = ["id", "text", *_METADATA, *(["fields"] if has_fields(task.part) else [])]
        for index, row in zip(rows, read_rows(task.part, rows, columns), strict=True):
            final, final_id = row["text"], row["id"]
            if index in task.cuts:
                final, _ = task.cuts[index].apply(final, task.min_piece_words)
            metadata = {name: row[name] for name in _METADATA}
            fields = json.loads(row.get("fields") or "{}")
            if final != row["text"]:
                metadata["cut_from"], final_id = row["id"], content_id(final)
                # They still contain what was cut.
                fields.pop(TURNS, None)
            yield Document(text=final, id=final_id, metadata=with_fields(metadata, fields))

    write_lines(map(document_line, clean()), task.out)


def drop_copies(
    ids: Sequence[str], decisions: Sequence[DocumentDecision], results: Mapping[int, CutResult]
) -> Sequence[DocumentDecision]:
    """Drop all but the first of documents that cutting has made equal."""
    settled = list(decisions)
    seen: set[str] = set()
    for row, name in enumerate(ids):
        if settled[row] is not KEPT:
            continue
        final_id = results[row].id if row in results else name
        if final_id in seen:
            settled[row] = DocumentDecision("exact_duplicate", twin=final_id, jaccard=1.0)
        seen.add(final_id)
    return settled


def _decision_tables(
    corpus: Corpus, decisions: Sequence[DocumentDecision], results: Mapping[int, CutResult]
) -> Iterator[pa.Table]:
    """Yield the rows of DECISION in canonical order."""
    for start in range(0, len(decisions), DECISIONS_A_GROUP):
        some = decisions[start : start + DECISIONS_A_GROUP]
        identity = corpus.identity.slice(start, len(some))
        names, characters = identity["id"].to_pylist(), identity["characters"].to_pylist()
        values: dict[str, list[Any]] = {
            "final_id": [name if each is KEPT else None for name, each in zip(names, some, strict=True)],
            "kept": [each is KEPT for each in some],
            "rule": [each.rule for each in some],
            "comparison": [each.comparison for each in some],
            "twin": [each.twin for each in some],
            "jaccard": [each.jaccard for each in some],
            "cut_characters": [0] * len(some),
        }
        for place in (place for place, each in enumerate(some) if each is KEPT and start + place in results):
            values["final_id"][place] = results[start + place].id
            values["cut_characters"][place] = characters[place] - results[start + place].characters
        columns = [identity[name] for name in IDENTITY.names]
        columns += [column_of(values[name], DECISION.field(name).type) for name in values]
        yield pa.Table.from_arrays(columns, schema=DECISION)


def _report(corpus: Corpus, decisions: Sequence[DocumentDecision], results: Mapping[int, CutResult]) -> RefineReport:
    """Count; every table is sorted by its keys, so that equal contents are equal bytes."""
    report = RefineReport(kept_rows=np.array([decision is KEPT for decision in decisions], bool))
    sources, sizes = (corpus.identity[name].to_pylist() for name in ("source", "bytes"))
    extraction = {name: corpus.scores.get(name, np.zeros(len(corpus))) for name in EXTRACTION_COUNTS}
    final_ids: list[str] = []
    for row, (source, size, decision) in enumerate(zip(sources, sizes, decisions, strict=True)):
        by_source = report.by_source.setdefault(source, Tally())
        by_language = report.by_language.setdefault(corpus.languages[row], Tally())
        result = results.get(row) if decision is KEPT else None
        counts = {name: int(column[row]) for name, column in extraction.items()}
        for tally in (report, by_source, by_language):
            tally.count(size, decision.rule, result.size_bytes if result else size, counts)
        if decision.rule is not None:
            report.dropped_bytes[decision.rule] = report.dropped_bytes.get(decision.rule, 0) + size
        else:
            final_ids.append(result.id if result else corpus.ids[row])
        if result:
            report.pieces_removed += result.removed["paragraphs"]
            report.substrings_cut += result.removed["substrings"]
            report.contamination_cut += result.removed["contamination"]
    kept = "".join(f"{name}\n" for name in sorted(final_ids))
    report.content_sha256 = hashlib.sha256(kept.encode()).hexdigest()
    report.by_source = dict(sorted(report.by_source.items()))
    report.by_language = dict(sorted(report.by_language.items()))
    report.dropped_bytes = dict(sorted(report.dropped_bytes.items()))
    for tally in (report, *report.by_source.values(), *report.by_language.values()):
        tally.dropped = dict(sorted(tally.dropped.items()))
    return report
