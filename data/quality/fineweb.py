"""FineWeb's scores (arXiv 2406.17557, section 3.5), over prose.

Its share of characters in duplicate lines is Gopher's `duplicate_line_fraction`.
"""

from datatrove.utils.text import TERMINAL_PUNCTUATION

from sluice.data.quality.prose import Prose
from sluice.data.quality.rule import QualityRule

RULES = (
    QualityRule("unpunctuated_lines", "punctuated_line_fraction", True, "min_punctuated_line_fraction"),
    QualityRule("short_lines", "short_line_fraction", False, "max_short_line_fraction"),
    QualityRule("list_of_lines", "newline_word_ratio", False, "max_newline_word_ratio"),
)

SHORT_LINE_CHARACTERS = 30
"""A line up to this long is short."""

_TERMINAL = frozenset(TERMINAL_PUNCTUATION)
assert max(map(len, _TERMINAL)) == 1, "the last character of a line decides"


def scores(prose: Prose) -> dict[str, float]:
    """Compute fractions of the non-blank lines, and newlines per word; 0 for a document without prose."""
    lines = max(len(prose.lines), 1)
    return {
        "punctuated_line_fraction": sum(line.rstrip()[-1] in _TERMINAL for line in prose.lines) / lines,
        "short_line_fraction": sum(len(line) <= SHORT_LINE_CHARACTERS for line in prose.lines) / lines,
        "newline_word_ratio": prose.text.count("\n") / max(len(prose.tokens), 1),
    }
