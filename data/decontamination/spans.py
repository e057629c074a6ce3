"""Spans of a document's words that occur in an evaluation set.

Spans are half open, [first_word, last_word), and count the words of `sluice.data.deduplication.words`, so neither case,
spacing, line breaks nor punctuation hide an item.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from sluice.data.deduplication.words import word_spans


@dataclass(frozen=True, order=True)
class SharedSpan:
    """Words of a document, [first_word, last_word), that occur in an evaluation set."""

    first_word: int
    last_word: int
    set: str
    ngram: int
    """Length in words of the n-grams that matched; the item's own length if it is shorter than all of `ngrams`."""
    is_longest: bool = True
    """Whether these are the longest n-grams of the item; shorter ones are the weaker sign."""


def character_spans(text: str, spans: Sequence[SharedSpan]) -> list[tuple[int, int]]:
    """Start and end in characters of each span, from its first word to its last."""
    words = word_spans(text) if spans else []
    return [(words[span.first_word][0], words[span.last_word - 1][1]) for span in spans]
