"""Gopher's quality and repetition scores (arXiv 2112.11446, appendix A), over prose."""

import re
from collections.abc import Sequence

from sluice.data.config import CODE
from sluice.data.quality.ngrams import duplicate_characters, repeated, top_characters
from sluice.data.quality.prose import Prose
from sluice.data.quality.rule import QualityRule
from sluice.data.quality.stopwords import APPLICABLE, stop_words
from sluice.data.writing_systems import LANGUAGES_WITHOUT_SPACES

_CODE = frozenset({CODE})
"""Rules about the form of words do not apply to code."""
_WITHOUT_WORDS = LANGUAGES_WITHOUT_SPACES | {CODE}
TOP_NGRAMS = (2, 3, 4)
DUPLICATE_NGRAMS = (5, 6, 7, 8, 9, 10)

FIRST_RULES = (
    QualityRule("empty", "characters", True, None),
    QualityRule("control_characters", "control_character_fraction", False, "max_control_character_fraction"),
    QualityRule("too_few_words", "words", True, "min_words"),
    QualityRule("too_many_words", "words", False, "max_words"),
)
"""Rules that come before the one about the language."""
RULES = (
    QualityRule("short_words", "mean_word_length", True, "min_mean_word_length", exempt=_WITHOUT_WORDS),
    QualityRule("long_words", "mean_word_length", False, "max_mean_word_length", exempt=_CODE),
    QualityRule("symbols", "symbol_word_ratio", False, "max_symbol_word_ratio", exempt=_CODE),
    QualityRule("bullet_lines", "bullet_line_fraction", False, "max_bullet_line_fraction", exempt=_CODE),
    QualityRule("ellipsis_lines", "ellipsis_line_fraction", False, "max_ellipsis_line_fraction"),
    QualityRule("few_alphabetic_words", "alphabetic_word_fraction", True, "min_alphabetic_word_fraction", exempt=_CODE),
    QualityRule("few_stop_words", "stop_words", True, "min_stop_words", APPLICABLE),
    QualityRule("duplicate_lines", "duplicate_line_fraction", False, "max_duplicate_line_fraction"),
    QualityRule("duplicate_paragraphs", "duplicate_paragraph_fraction", False, "max_duplicate_paragraph_fraction"),
    *(
        QualityRule(f"repeated_{n}gram", f"top_{n}gram_fraction", False, f"max_top_{n}gram_fraction")
        for n in TOP_NGRAMS
    ),
    *(
        QualityRule(f"repeated_{n}gram", f"duplicate_{n}gram_fraction", False, f"max_duplicate_{n}gram_fraction")
        for n in DUPLICATE_NGRAMS
    ),
)

_LETTER = re.compile(r"[^\W\d_]")
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ufffd]")
_BULLETS = ("-", "•")
_ELLIPSES = ("...", "…")


def scores(prose: Prose, language: str = "en") -> dict[str, float]:
    """Compute quality and repetition; for a document without prose every count and fraction is 0.

    `language` selects the stop words.
    """
    tokens, lines = max(len(prose.tokens), 1), max(len(prose.marked_lines), 1)
    ellipses = prose.spoken.count("...") + prose.spoken.count("…")
    # Of the words that spaces separate: Chinese letters on an English page do not count.
    spaced = prose.spaced_words
    characters = int(prose.word_ends[-1]) if spaced is prose.words else sum(map(len, spaced))
    # Most tokens are letters alone, for which isalpha() takes half the time.
    alphabetic = sum([token.isalpha() or _LETTER.search(token) is not None for token in prose.tokens])
    result = {
        # Characters and control characters are those of the whole document, code included.
        "characters": len(prose.document),
        "control_character_fraction": len(_CONTROL.findall(prose.document)) / max(len(prose.document), 1),
        "words": len(prose.tokens),
        "mean_word_length": characters / max(len(spaced), 1),
        # Hash signs or ellipses per word, whichever are more.
        "symbol_word_ratio": max(prose.spoken.count("#"), ellipses) / tokens,
        # Blank lines separate the paragraphs here, and do not count as lines without a bullet.
        "bullet_line_fraction": sum(line.lstrip().startswith(_BULLETS) for line in prose.marked_lines) / lines,
        "ellipsis_line_fraction": sum(line.rstrip().endswith(_ELLIPSES) for line in prose.marked_lines) / lines,
        "alphabetic_word_fraction": alphabetic / tokens,
        # The number of different stop words.
        "stop_words": stop_words(prose.vocabulary, language),
        "duplicate_line_fraction": duplicate_fraction(prose.lines),
        "duplicate_paragraph_fraction": duplicate_fraction(prose.paragraphs),
    }
    # N-grams count by the characters in their words.
    total = max(int(prose.word_ends[-1]), 1)
    for found in repeated(prose.word_numbers, max(DUPLICATE_NGRAMS)):
        if found.length in TOP_NGRAMS:
            result[f"top_{found.length}gram_fraction"] = top_characters(found, prose.word_ends) / total
        else:
            result[f"duplicate_{found.length}gram_fraction"] = duplicate_characters(found, prose.word_ends) / total
    return result


def duplicate_fraction(parts: Sequence[str]) -> float:
    """Share of characters in parts that occurred before. By characters, because reference pages repeat short labels
    ("Returns", "Default: None") in every entry without being boilerplate.
    """
    total = sum(map(len, parts))
    return (total - sum(map(len, set(parts)))) / total if total else 0.0
