"""What is cut out of kept documents: repeated pieces, repeated runs of words, spans shared with evaluation sets."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from data.config import RefineConfig
from data.corpus import ScoredCorpus
from data.decontamination import Span, character_spans
from data.deduplication.cutting import cut
from data.deduplication.parts import SketchPart
from data.deduplication.pieces import remove, surplus_pieces
from data.deduplication.substrings import repeated_substrings
from data.keeping import KEPT, Decision, spans_under
from data.quality.prose import Prose


@dataclass(frozen=True)
class Cuts:
    """By row (contamination) or id. A removal counts where it happens, and the text is otherwise as it was."""

    contamination: dict[int, list[Span]] = field(default_factory=dict)
    substrings: dict[str, list[tuple[int, int]]] = field(default_factory=dict)
    """Spans of characters of the scored text."""
    pieces: dict[str, np.ndarray] = field(default_factory=dict)
    """Sorted hashes."""
    min_piece_words: int = 0
    split_groups: int = 0
    """Groups of documents too large to compare at once for repeated runs."""

    def touches(self, row: int, name: str) -> bool:
        return row in self.contamination or name in self.substrings or name in self.pieces

    def apply(self, row: int, name: str, text: str) -> tuple[str, dict[str, int]]:
        """The text without what is to be cut, and how many pieces of each kind that took."""
        shared = character_spans(text, self.contamination[row]) if row in self.contamination else []
        repeated = self.substrings.get(name, [])
        final = cut(text, [*shared, *repeated])
        removed = {"contamination": len(shared), "substrings": len(repeated)}
        if name in self.pieces:
            final, removed["pieces"] = remove(final, self.pieces[name], self.min_piece_words)
        return final, removed


def too_short(
    corpus: ScoredCorpus, decisions: Sequence[Decision], cuts: Cuts, config: RefineConfig
) -> dict[int, Decision]:
    """Row -> its decision, of the kept documents of which cutting leaves fewer words than the rule asks for."""
    least = max(config.min_words or 0, 1)
    found: dict[int, Decision] = {}
    touched = [document for document, row in enumerate(corpus.part_rows) if cuts.touches(row, corpus.columns.ids[row])]
    touched = [document for document in touched if decisions[corpus.part_rows[document]] is KEPT]
    touched.sort(key=corpus.part_rows.__getitem__)
    for document, text in zip(touched, corpus.texts_of(touched), strict=True):
        row = int(corpus.part_rows[document])
        final, _ = cuts.apply(row, corpus.columns.ids[row], text)
        words = len(Prose.of(final).tokens) if final != text else least
        if words < least:
            found[row] = Decision("too_few_words", f"words {words} < {least} after cutting")
    return found


def plan_cuts(
    corpus: ScoredCorpus, sketches: Sequence[SketchPart], decisions: Sequence[Decision], config: RefineConfig
) -> Cuts:
    """What to cut out of the documents that `decisions` keep. `sketches` are of the corpus's parts, in their order."""
    kept = np.array([decision is KEPT for decision in decisions], dtype=bool)
    ids = [corpus.columns.ids[row] for row in corpus.part_rows]
    eligible = kept[corpus.part_rows]
    pieces: dict[str, np.ndarray] = {}
    substrings: dict[str, list[tuple[int, int]]] = {}
    split_groups = 0
    if config.max_piece_copies is not None:
        pieces = surplus_pieces(sketches, ids, eligible, config.max_piece_copies)
    if config.min_substring_words is not None:
        found = repeated_substrings(sketches, ids, corpus.texts_of, eligible, config.min_substring_words)
        substrings, split_groups = found.spans, found.split_groups
    shared = spans_under("cut", corpus.columns, config)
    return Cuts(
        contamination={row: spans for row, spans in shared.items() if kept[row]},
        substrings=substrings,
        pieces=pieces,
        min_piece_words=config.min_piece_words,
        split_groups=split_groups,
    )
