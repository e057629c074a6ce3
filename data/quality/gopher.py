"""Gopher's quality and repetition scores (arXiv 2112.11446, appendix A), over prose."""

import re
from collections.abc import Sequence

from sluice.data.quality.ngrams import duplicate_characters, repeated, top_characters
from sluice.data.quality.prose import Prose
from sluice.data.quality.stopwords import stop_words

TOP_NGRAMS = (2, 3, 4)
DUPLICATE_NGRAMS = (5, 6, 7, 8, 9, 10)

_LETTER = re.compile(r"[^\W\d_]")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ufffd]")
_BULLETS = ("-", "•")
_ELLIPSES = ("...", "…")


def scores(prose: Prose, language: str = "en") -> dict[str, float]:
    """Quality and repetition; of a document without prose every count and every fraction is 0.

    `language` says whose stop words are counted.
    """
    return _quality(prose, language) | _repetition(prose)


def _quality(prose: Prose, language: str) -> dict[str, float]:
    tokens, lines = max(len(prose.tokens), 1), max(len(prose.marked_lines), 1)
    ellipses = prose.spoken.count("...") + prose.spoken.count("…")
    return {
        # Of the whole document, code included; so are control characters.
        "characters": len(prose.document),
        "control_character_fraction": len(_CONTROL.findall(prose.document)) / max(len(prose.document), 1),
        "words": len(prose.tokens),
        "mean_word_length": _mean_word_length(prose),
        # Hash signs or ellipses, whichever are more, a word.
        "symbol_word_ratio": max(prose.spoken.count("#"), ellipses) / tokens,
        # Blank lines stand between the paragraphs of a document here, and are no lines without a bullet.
        "bullet_line_fraction": sum(line.lstrip().startswith(_BULLETS) for line in prose.marked_lines) / lines,
        "ellipsis_line_fraction": sum(line.rstrip().endswith(_ELLIPSES) for line in prose.marked_lines) / lines,
        "alphabetic_word_fraction": sum([_has_letter(token) for token in prose.tokens]) / tokens,
        # How many different ones occur.
        "stop_words": stop_words(prose.vocabulary, language),
    }


def _mean_word_length(prose: Prose) -> float:
    """Of words that spaces part, 0 without any: single letters of Chinese on a page say nothing of its English."""
    spaced = prose.spaced_words
    characters = int(prose.word_ends[-1]) if spaced is prose.words else sum(map(len, spaced))
    return characters / max(len(spaced), 1)


def _has_letter(token: str) -> bool:
    # Most tokens are letters alone, which a string knows of itself in half the time.
    return token.isalpha() or _LETTER.search(token) is not None


def _repetition(prose: Prose) -> dict[str, float]:
    """Shares of characters; of the characters in words, for n-grams."""
    result = {
        "duplicate_line_fraction": duplicate_fraction(prose.lines),
        "duplicate_paragraph_fraction": duplicate_fraction(prose.paragraphs),
    }
    total = max(int(prose.word_ends[-1]), 1)
    for found in repeated(prose.word_numbers, max(DUPLICATE_NGRAMS)):
        if found.length in TOP_NGRAMS:
            result[f"top_{found.length}gram_fraction"] = top_characters(found, prose.word_ends) / total
        else:
            result[f"duplicate_{found.length}gram_fraction"] = duplicate_characters(found, prose.word_ends) / total
    return result


def duplicate_fraction(parts: Sequence[str]) -> float:
    """Share of characters in parts that occurred before. By characters, because reference pages repeat short labels
    ("Returns", "Default: None") on every entry without being boilerplate."""
    total = sum(map(len, parts))
    return (total - sum(map(len, set(parts)))) / total if total else 0.0
