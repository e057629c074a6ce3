"""The prose of a document and its words, computed once for all quality rules.

Rules examine prose only: in technical documentation a code block is content, and its brackets would fail every rule
made for web pages. Of a document that is code as a whole (sluice.data.extraction.code_lines), all lines count. Line
ends and Unicode forms do not matter here.
"""

import re
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sluice.data import writing_systems
from sluice.data.extraction.code_lines import is_code, prose_lines
from sluice.data.extraction.encoding import composed

_MARK = re.compile(r"^(?:#{1,6}|-) +", re.MULTILINE)
_LITERAL = re.compile(r"`[^`\n]*`")
_PARAGRAPH_END = re.compile(r"\n(?:[ \t]*\n)+")


@dataclass(frozen=True, slots=True)
class Prose:
    """One document, and the parts of its prose."""

    document: str
    """The whole document, code included."""
    text: str
    """Without code lines and without the marks of headings and bullets."""
    lowered: str
    spoken: str
    """`text` without literals: in a literal, `...` and `#` are code."""
    marked_lines: list[str]
    """Non-blank lines, without code lines, with marks."""
    lines: list[str]
    """Non-blank lines of `text`."""
    paragraphs: list[str]
    tokens: list[str]
    """Words separated by white space, with their punctuation. Each letter of a script without spaces (Chinese,
    Japanese, Thai, Lao, Khmer, Burmese) is one, with the punctuation after it.
    """
    words: list[str]
    r"""Words of the lower-cased text: `\w+` with its combining marks, and single letters of scripts without spaces."""
    spaced_words: list[str]
    """`words` without these single letters."""
    vocabulary: dict[str, int]
    """The distinct words in order of first occurrence, each with its number."""
    word_numbers: NDArray[np.int64]
    """Number of each word in `vocabulary`, [words]."""
    is_code: bool
    """The document is code as a whole."""
    word_ends: NDArray[np.int64]
    """Characters in the words before each word, [words + 1]; the last is the total."""

    @classmethod
    def of(cls, document: str) -> "Prose":
        unix = composed(document).replace("\r\n", "\n").replace("\r", "\n")
        every, code = unix.split("\n"), is_code(unix)
        kept = every if code else prose_lines(every)
        marked = "\n".join(kept)
        text = _MARK.sub("", marked) if "- " in marked or "# " in marked else marked
        lowered = text.lower()
        pattern = writing_systems.word_pattern(lowered)
        words = pattern.findall(lowered)
        vocabulary = {word: number for number, word in enumerate(dict.fromkeys(words))}
        numbers = np.fromiter(map(vocabulary.__getitem__, words), np.int64, len(words))
        lengths = np.fromiter(map(len, vocabulary), np.int64, len(vocabulary))
        ends = np.zeros(len(words) + 1, np.int64)
        np.cumsum(lengths[numbers], out=ends[1:])
        return cls(
            document=document,
            text=text,
            lowered=lowered,
            spoken=_LITERAL.sub("", text) if "`" in text else text,
            marked_lines=[line for line in kept if line and not line.isspace()],
            lines=[line for line in text.split("\n") if line and not line.isspace()],
            paragraphs=[part for part in _PARAGRAPH_END.split(text) if part and not part.isspace()],
            tokens=text.split() if pattern is writing_systems.PLAIN else writing_systems.tokens(text),
            words=words,
            spaced_words=words if pattern is writing_systems.PLAIN else writing_systems.spaced(words),
            vocabulary=vocabulary,
            word_numbers=numbers,
            is_code=code,
            word_ends=ends,
        )
