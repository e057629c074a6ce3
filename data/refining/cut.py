"""What is cut out of kept documents: repeated pieces, repeated runs of words, spans shared with evaluation sets."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from sluice.data.config import RefineConfig
from sluice.data.decontamination.sets import Span
from sluice.data.decontamination.sets import character_spans as shared_spans
from sluice.data.deduplication.paragraphs import remove, surplus_pieces
from sluice.data.deduplication.sketch_store import SketchPart
from sluice.data.deduplication.spans import cut
from sluice.data.deduplication.substrings import Cover, Known, character_spans, repeated_substrings
from sluice.data.refining.corpus import ScoredCorpus
from sluice.data.refining.decide import KEPT, Decision, spans_under


@dataclass(frozen=True)
class Cut:
    """What goes from one document. Equal cuts of equal texts leave the same."""

    contamination: tuple[Span, ...] = ()
    runs: tuple[tuple[int, int], ...] = ()
    """Repeated runs of words (first, end) of the scored text."""
    pieces: tuple[int, ...] = ()
    """Hashes of repeated pieces, sorted."""

    def apply(self, text: str, min_piece_words: int) -> tuple[str, dict[str, int]]:
        """The text without what is to be cut, and how many pieces of each kind that took."""
        shared = shared_spans(text, self.contamination)
        repeated = character_spans(text, self.runs) if self.runs else []
        final = cut(text, [*shared, *repeated])
        removed = {"contamination": len(shared), "substrings": len(repeated)}
        if self.pieces:
            final, removed["pieces"] = remove(final, np.array(self.pieces, np.uint64), min_piece_words)
        return final, removed


@dataclass(frozen=True)
class Cuts:
    """By row, of the documents that something is cut out of."""

    by_row: Mapping[int, Cut] = field(default_factory=dict)
    split_groups: int = 0
    """Groups of documents too large to compare at once for repeated runs."""


def plan_cuts(  # noqa: PLR0917
    corpus: ScoredCorpus,
    sketches: Sequence[SketchPart],
    decisions: Sequence[Decision],
    config: RefineConfig,
    cover: Cover,
    known: Known,
) -> Cuts:
    """What to cut out of the documents that `decisions` keep. `sketches` are of the corpus's parts, in their order.

    `cover` and `known` are as in `repeated_substrings`.
    """
    kept = np.array([decision is KEPT for decision in decisions], dtype=bool)
    ids = corpus.columns.ids
    along = [ids[row] for row in corpus.part_rows]
    eligible = kept[corpus.part_rows]
    pieces: dict[str, np.ndarray] = {}
    runs: dict[str, list[tuple[int, int]]] = {}
    split_groups = 0
    if config.max_piece_copies is not None:
        pieces = surplus_pieces(sketches, along, eligible, config.max_piece_copies)
    if config.min_substring_words is not None:
        found = repeated_substrings(sketches, along, cover, eligible, config.min_substring_words, known)
        runs, split_groups = found.runs, found.split_groups
    shared = spans_under("cut", corpus.columns, config)
    by_row = {}
    for row in np.flatnonzero(kept).tolist():
        name = ids[row]
        if row in shared or name in runs or name in pieces:
            hashes = np.sort(pieces[name]).tolist() if name in pieces else ()
            by_row[row] = Cut(tuple(shared.get(row, ())), tuple(runs.get(name, ())), tuple(hashes))
    return Cuts(by_row, split_groups)


def too_short(lengths: Mapping[int, int | None], config: RefineConfig) -> dict[int, Decision]:
    """Row -> its decision, of the documents of which cutting leaves fewer words than the rule asks for.

    Lengths are in words, by row, and None where the text is as it was.
    """
    least = max(config.min_words or 0, 1)
    return {
        row: Decision("too_few_words", f"words {words} < {least} after cutting")
        for row, words in lengths.items()
        if words is not None and words < least
    }
