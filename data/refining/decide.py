"""Decide: which documents are kept, given their scores and duplicates. Pure.

Rules come first, then contamination, then duplicates, so a document is never dropped for a twin that is dropped
itself. Everything is keyed by content id: equal texts have equal scores and the same decision, wherever and however
often they were read.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from sluice.data.config import ContaminationPolicy, RefineConfig
from sluice.data.decontamination.policy import actionable, set_policies
from sluice.data.decontamination.spans import SharedSpan
from sluice.data.deduplication.near import Duplicate, near_duplicates
from sluice.data.quality.rules import breaches
from sluice.data.refining.corpus import Corpus


@dataclass(frozen=True)
class DocumentDecision:
    """The decision about one document; `rule` is None where it is kept."""

    rule: str | None = None
    comparison: str | None = None
    twin: str | None = None
    jaccard: float | None = None


KEPT = DocumentDecision()


def decide(
    corpus: Corpus,
    pairs: np.ndarray,
    earlier: Mapping[str, Duplicate],
    config: RefineConfig,
    too_short: Mapping[int, DocumentDecision] | None = None,
) -> list[DocumentDecision]:
    """Return the decision about each row; those of `too_short` (row -> decision) are made already.

    `pairs` is [n] of dtype PAIR over the distinct ids in order; those below `config.min_jaccard` are ignored.
    `earlier` is id -> its twin among what earlier runs kept.
    """
    first = breaches(corpus.scores, corpus.languages, config).first
    decisions = [KEPT if breach is None else DocumentDecision(*breach) for breach in first]
    for row, decision in (too_short or {}).items():
        decisions[row] = decision
    for row, spans in spans_under("drop", corpus, config).items():
        if decisions[row] is KEPT:
            sets = sorted({span.set for span in spans})
            words = sum(span.last_word - span.first_word for span in spans)
            decisions[row] = DocumentDecision("contaminated", f"shares {words} words with {', '.join(sets)}")
    # Exact duplicates, then those of earlier runs, then near ones, among the documents that are still kept.
    first_rows = corpus.first_rows()
    for row, name in enumerate(corpus.ids):
        if row and corpus.ids[row - 1] == name and decisions[row] is KEPT:
            decisions[row] = DocumentDecision("exact_duplicate", twin=name, jaccard=1.0)
    for row in first_rows:
        known = earlier.get(corpus.ids[row])
        if known is not None and decisions[row] is KEPT and known.jaccard >= config.min_jaccard:
            decisions[row] = DocumentDecision("earlier_duplicate", twin=known.duplicate_of, jaccard=known.jaccard)
    found = near_duplicates(
        [corpus.ids[row] for row in first_rows],
        corpus.characters[first_rows].tolist(),
        pairs,
        np.array([decisions[row] is KEPT for row in first_rows], dtype=bool),
        config.min_jaccard,
    )
    row_of = {corpus.ids[row]: int(row) for row in first_rows}
    for duplicate in found:
        decisions[row_of[duplicate.id]] = DocumentDecision(
            "near_duplicate", twin=duplicate.duplicate_of, jaccard=duplicate.jaccard
        )
    return decisions


def spans_under(policy: ContaminationPolicy, corpus: Corpus, config: RefineConfig) -> dict[int, list[SharedSpan]]:
    """Return row -> the spans shared with evaluation sets of this policy that the policy applies to, if any."""
    wanted = {name for name, each in set_policies(config).items() if each == policy}
    found = {
        row: actionable([span for span in spans if span.set in wanted], config.contamination_sign)
        for row, spans in corpus.contamination.items()
    }
    return {row: spans for row, spans in found.items() if spans}
