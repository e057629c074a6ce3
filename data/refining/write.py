"""What refining ends with: the kept documents, one decision a document, and the report.

The texts pass through the workers, a part at a time; what is done here knows of them only what was told.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from sluice.core.arrow import column_of
from sluice.core.manifest import EVIDENCE
from sluice.core.progress import Progress, no_progress
from sluice.data.document import write_line_shards
from sluice.data.refining.corpus import ScoredCorpus
from sluice.data.refining.cut import Cuts
from sluice.data.refining.decide import KEPT, Decision
from sluice.data.refining.executor import RunTasks
from sluice.data.refining.finishing import Left, WriteTask, write_kept
from sluice.data.refining.tables import DECISION, DECISIONS, DECISIONS_A_GROUP, IDENTITY, write_decisions
from sluice.data.report import RefineReport, Tally

_DOCUMENTS_A_SHARD = 512


class NothingKept(ValueError):
    """Every document fell."""


def write_outcome(  # noqa: PLR0917
    corpus: ScoredCorpus,
    decisions: Sequence[Decision],
    cuts: Cuts,
    left: Mapping[int, Left],
    min_piece_words: int,
    out: Path,
    scratch: Path,
    run: RunTasks,
    workers: int,
    *,
    progress: Progress = no_progress,
) -> RefineReport:
    """Write documents-*.jsonl and the decisions into `out`. ValueError if nothing is kept.

    `left` says by row what `cuts` leave. Documents stand in the order of their ids; one that something was cut out of
    has the id of what is left of it, and stands where it stood before. Parts wait in the empty folder `scratch`.
    """
    decisions = without_copies(corpus.columns.ids, decisions, left)
    report = _report(corpus, decisions, left)
    report.split_groups = cuts.split_groups
    if not report.documents_kept:
        reasons = ", ".join(f"{rule} {count}" for rule, count in report.dropped.items())
        raise NothingKept(
            f"refine kept none of {report.documents_in} documents ({reasons}): loosen refine.* or add text"
        )
    rows = np.flatnonzero(report.kept_rows)
    documents = corpus.documents_of(rows)
    row_of = dict(zip(documents.tolist(), rows.tolist(), strict=True))
    tasks = []
    for part, places in corpus.by_part(np.sort(documents)):
        numbered = ((place, row_of[place + int(corpus.part_starts[part])]) for place in places.tolist())
        cut = {place: cuts.by_row[row] for place, row in numbered if row in cuts.by_row}
        tasks.append(WriteTask(corpus.parts[part], places, cut, min_piece_words, scratch / f"{part:04d}.jsonl"))
    run(write_kept, tasks, workers=workers, progress=progress, note="write documents")
    parts = np.searchsorted(corpus.part_starts, documents, side="right") - 1
    write_line_shards(_merged(parts, scratch), out, _DOCUMENTS_A_SHARD)
    write_decisions(_decided(corpus, decisions, left), out / EVIDENCE / DECISIONS)
    return report


def without_copies(ids: Sequence[str], decisions: Sequence[Decision], left: Mapping[int, Left]) -> Sequence[Decision]:
    """The decisions, but that of equal texts the first is kept: what was cut out may be all that told them apart."""
    settled = list(decisions)
    seen: set[str] = set()
    for row, name in enumerate(ids):
        if settled[row] is not KEPT:
            continue
        final_id = left[row].id if row in left else name
        if final_id in seen:
            settled[row] = Decision("exact_duplicate", twin=final_id, jaccard=1.0)
        seen.add(final_id)
    return settled


def _merged(parts: np.ndarray, scratch: Path) -> Iterator[bytes]:
    """The next line of the part that each document is in, [documents]."""
    with ExitStack() as stack:
        files = {part: stack.enter_context((scratch / f"{part:04d}.jsonl").open("rb")) for part in set(parts.tolist())}
        for part in parts.tolist():
            yield files[part].readline()


def _decided(corpus: ScoredCorpus, decisions: Sequence[Decision], left: Mapping[int, Left]) -> Iterator[pa.Table]:
    """Rows of DECISION in canonical order."""
    for start in range(0, len(decisions), DECISIONS_A_GROUP):
        some = decisions[start : start + DECISIONS_A_GROUP]
        identity = corpus.identity.slice(start, len(some))
        names, characters = identity["id"].to_pylist(), identity["characters"].to_pylist()
        told: dict[str, list[Any]] = {
            "final_id": [name if each is KEPT else None for name, each in zip(names, some, strict=True)],
            "kept": [each is KEPT for each in some],
            "rule": [each.rule for each in some],
            "comparison": [each.comparison for each in some],
            "twin": [each.twin for each in some],
            "jaccard": [each.jaccard for each in some],
            "cut_characters": [0] * len(some),
        }
        for place in (place for place, each in enumerate(some) if each is KEPT and start + place in left):
            told["final_id"][place] = left[start + place].id
            told["cut_characters"][place] = characters[place] - left[start + place].characters
        columns = [identity[name] for name in IDENTITY.names]
        columns += [column_of(told[name], DECISION.field(name).type) for name in told]
        yield pa.Table.from_arrays(columns, schema=DECISION)


def _report(corpus: ScoredCorpus, decisions: Sequence[Decision], left: Mapping[int, Left]) -> RefineReport:
    """The counts; every table sorted by its keys, so that equal contents are equal bytes."""
    report = RefineReport(kept_rows=np.array([decision is KEPT for decision in decisions], bool))
    sources, sizes = (corpus.identity[name].to_pylist() for name in ("source", "bytes"))
    final_ids: list[str] = []
    for row, (source, size, decision) in enumerate(zip(sources, sizes, decisions, strict=True)):
        by_source = report.by_source.setdefault(source, Tally())
        by_language = report.by_language.setdefault(corpus.columns.languages[row], Tally())
        final = left.get(row) if decision is KEPT else None
        for tally in (report, by_source, by_language):
            _count(tally, size, decision.rule, final.size_bytes if final else size)
        if decision.rule is not None:
            report.dropped_bytes[decision.rule] = report.dropped_bytes.get(decision.rule, 0) + size
        else:
            final_ids.append(final.id if final else corpus.columns.ids[row])
        if final:
            report.pieces_removed += final.removed.get("pieces", 0)
            report.substrings_cut += final.removed["substrings"]
            report.contamination_cut += final.removed["contamination"]
    kept = "".join(f"{name}\n" for name in sorted(final_ids))
    report.content_sha256 = hashlib.sha256(kept.encode()).hexdigest()
    report.by_source = dict(sorted(report.by_source.items()))
    report.by_language = dict(sorted(report.by_language.items()))
    report.dropped_bytes = dict(sorted(report.dropped_bytes.items()))
    for tally in (report, *report.by_source.values(), *report.by_language.values()):
        tally.dropped = dict(sorted(tally.dropped.items()))
    return report


def _count(tally: Tally, size_bytes: int, rule: str | None, final_bytes: int) -> None:
    tally.documents_in += 1
    tally.bytes_in += size_bytes
    if rule is None:
        tally.documents_kept += 1
        tally.bytes_kept += final_bytes
    else:
        tally.dropped[rule] = tally.dropped.get(rule, 0) + 1
