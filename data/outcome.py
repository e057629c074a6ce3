"""What refining ends with: the kept documents, one decision a document, and the report. One pass over the texts."""

import hashlib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from datatrove.data import Document

from data.corpus import ScoredCorpus
from data.cuts import Cuts
from data.document import content_id, write_documents
from data.evidence import DECISIONS, EVIDENCE, DecisionWriter
from data.keeping import KEPT, Decision
from data.progress import Progress, no_progress
from data.report import RefineReport, Tally

_DOCUMENTS_A_SHARD = 512
_PROGRESS_EVERY = 256


def write_outcome(
    corpus: ScoredCorpus, decisions: Sequence[Decision], cuts: Cuts, out: Path, *, progress: Progress = no_progress
) -> RefineReport:
    """Write documents-*.jsonl and the decisions into `out`. ValueError if nothing is kept.

    Documents stand in the order of their ids; one that something was cut out of has the id of what is left of it, and
    stands where it stood before.
    """
    with DecisionWriter(out / EVIDENCE / DECISIONS) as writer:
        outcome = _Outcome(corpus, decisions, cuts, writer, progress)
        write_documents(outcome.documents(), out, _DOCUMENTS_A_SHARD)
    report = outcome.report()
    if not report.documents_kept:
        reasons = ", ".join(f"{rule} {count}" for rule, count in report.dropped.items())
        raise ValueError(
            f"refine kept none of {report.documents_in} documents ({reasons}): loosen refine.* or add text"
        )
    return report


class _Outcome:
    """The pass, and what it has seen."""

    def __init__(
        self,
        corpus: ScoredCorpus,
        decisions: Sequence[Decision],
        cuts: Cuts,
        writer: DecisionWriter,
        progress: Progress,
    ) -> None:
        self.corpus, self.decisions, self.cuts, self.writer, self.progress = corpus, decisions, cuts, writer, progress
        self.tallies = RefineReport(kept_rows=np.zeros(len(corpus), bool))
        self.removed: dict[str, int] = defaultdict(int)
        self.final_ids: set[bytes] = set()

    def documents(self) -> Iterator[Document]:
        for (row, text), identity in zip(self.corpus.texts(), self.corpus.identities(), strict=True):
            decision, final, removed = self.decisions[row], text, dict[str, int]()
            if decision is KEPT:
                final, removed = self.cuts.apply(row, identity["id"], text)
            final_id = identity["id"] if final == text else content_id(final)
            if decision is KEPT and bytes.fromhex(final_id) in self.final_ids:
                # What was cut out of two documents was all that told them apart.
                decision = Decision("exact_duplicate", twin=final_id, jaccard=1.0)
            self._record(identity, decision, final_id, text, final)
            if row % _PROGRESS_EVERY == 0 or row + 1 == len(self.corpus):
                self.progress(row + 1, len(self.corpus), "writing documents")
            if decision is not KEPT:
                continue
            self.final_ids.add(bytes.fromhex(final_id))
            self.tallies.kept_rows[row] = True
            for kind, count in removed.items():
                self.removed[kind] += count
            metadata = {name: identity[name] for name in ("source", "path", "licence", "title", "language", "raw_id")}
            if final_id != identity["id"]:
                metadata["cut_from"] = identity["id"]
            yield Document(text=final, id=final_id, metadata=metadata)

    def _record(self, identity: dict[str, Any], decision: Decision, final_id: str, text: str, final: str) -> None:
        kept = decision is KEPT
        self.writer.write(
            {
                **identity,
                "final_id": final_id if kept else None,
                "kept": kept,
                "rule": decision.rule,
                "comparison": decision.comparison,
                "twin": decision.twin,
                "jaccard": decision.jaccard,
                "cut_characters": len(text) - len(final) if kept else 0,
            }
        )
        report = self.tallies
        tallies = (
            report,
            report.by_source.setdefault(identity["source"], Tally()),
            report.by_language.setdefault(identity["language"], Tally()),
        )
        for tally in tallies:
            tally.documents_in += 1
            tally.bytes_in += identity["bytes"]
            if kept:
                tally.documents_kept += 1
                tally.bytes_kept += len(final.encode())
            else:
                assert decision.rule is not None
                tally.dropped[decision.rule] = tally.dropped.get(decision.rule, 0) + 1
        if decision.rule is not None:
            report.dropped_bytes[decision.rule] = report.dropped_bytes.get(decision.rule, 0) + identity["bytes"]

    def report(self) -> RefineReport:
        report = self.tallies
        report.pieces_removed = self.removed["pieces"]
        report.substrings_cut = self.removed["substrings"]
        report.contamination_cut = self.removed["contamination"]
        report.split_groups = self.cuts.split_groups
        report.contaminated = _count_sets(self.corpus)
        kept = "".join(f"{name.hex()}\n" for name in sorted(self.final_ids))
        report.content_sha256 = hashlib.sha256(kept.encode()).hexdigest()
        return _in_order(report)


def _count_sets(corpus: ScoredCorpus) -> dict[str, int]:
    counts: dict[str, int] = {}
    for spans in corpus.columns.contamination.values():
        for name in {span.set for span in spans}:
            counts[name] = counts.get(name, 0) + 1
    return dict(sorted(counts.items()))


def _in_order(report: RefineReport) -> RefineReport:
    """Every table sorted by its keys, so that equal contents are equal bytes."""
    report.by_source = dict(sorted(report.by_source.items()))
    report.by_language = dict(sorted(report.by_language.items()))
    report.dropped_bytes = dict(sorted(report.dropped_bytes.items()))
    for tally in (report, *report.by_source.values(), *report.by_language.values()):
        tally.dropped = dict(sorted(tally.dropped.items()))
    return report
