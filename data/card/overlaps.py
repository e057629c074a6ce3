"""Table of what the documents share with each evaluation set, by the length of the n-gram."""

from collections.abc import Sequence
from dataclasses import dataclass

from sluice.data.report import Overlap, RefineReport


@dataclass(frozen=True)
class OverlapRow:
    """One evaluation set and one length of n-gram."""

    set: str
    items: int | None
    """Number of items searched for; None where the report does not have it."""
    short_items: int
    """Number of items too short to search for."""
    words: int
    documents: int
    spans: int


def overlap_rows(report: RefineReport, ngrams: Sequence[int]) -> list[OverlapRow]:
    """Return the rows by set, the longest n-grams first. A set without matches has rows of zeros."""
    found = []
    for name in sorted({*report.evaluation_sets, *report.shared_ngrams}):
        items, short = report.evaluation_sets.get(name), report.short_items.get(name, 0)
        by_length = report.shared_ngrams.get(name, {})
        for words in sorted({*ngrams, *by_length}, reverse=True):
            overlap = by_length.get(words, Overlap())
            found.append(OverlapRow(name, items, short, words, overlap.documents, overlap.spans))
    return found
