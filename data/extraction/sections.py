"""Split a document into sections, each a heading and its text, or, without headings, into passages."""

import re
from dataclasses import dataclass
from itertools import pairwise

from sluice.data.extraction.code_lines import is_code

_LEAST, _MOST = 80, 400
"""Characters of a passage. The shortest answer that is worth learning, and about as much as a question may hold."""
_PROMPT = 100
"""Characters of a passage that ask for the next: as many as a long heading has."""
_BREAKS = [re.compile(pattern) for pattern in (r"\n\s*\n", r"\n", r"(?<=[.!?…])[\"')\]]*\s|(?<=[。！？])", r"\s")]
"""Ends of a paragraph, a line, a sentence and a word, in the order of preference."""
_HEADING = re.compile(r"(#{1,6}) +(\S.*)\Z")


@dataclass(frozen=True)
class Section:
    """A heading and the text under it, up to the next heading of any level."""

    heading: str
    """Without its marks; empty for text before the first heading."""
    body: str
    level: int = 0
    """Number of `#`; 0 for text before the first heading."""


def sections(text: str) -> list[Section]:
    """Return the sections in reading order; a heading directly followed by another has an empty body.

    Code as a whole has none: its `#` begins a comment.
    """
    if is_code(text):
        return [Section("", text.strip("\n"))]
    found: list[Section] = []
    heading, level, body = "", 0, list[str]()

    def end() -> None:
        content = "\n".join(body).strip("\n")
        if heading or content:
            found.append(Section(heading, content, level))
        body.clear()

    for line in text.split("\n"):
        # Code is indented, so a `#` in the first column is always a heading.
        match = _HEADING.match(line)
        if match:
            end()
            heading, level = match[2].rstrip(), len(match[1])
        else:
            body.append(line)
    end()
    return found


def passages(text: str) -> list[str]:
    """Cut a text into passages of 80 to 400 characters, at least two where it has 160, at the ends of paragraphs.

    Where there is none in reach, they end with a line, a sentence or a word. A remainder that is shorter is left out.
    """
    text = text.strip()
    most = max(_LEAST, min(_MOST, (len(text) + 1) // 2))
    found, start = [], 0
    while len(text) - start >= _LEAST:
        end = len(text)
        if end - start > most:
            reach = (start + _LEAST, start + most)
            ends = ([match.end() for match in pattern.finditer(text, *reach)] for pattern in _BREAKS)
            end = next((each[-1] for each in ends if each), start + most)
        found.append(text[start:end].strip())
        start = end
    return [passage for passage in found if passage]


def continuations(text: str) -> list[tuple[str, str]]:
    """The last words, up to 100 characters, of each passage and the passage that follows; none beside headings."""
    return [] if _headings(text) else _continued(text)


def _headings(text: str) -> list[str]:
    return [section.heading for section in sections(text) if section.heading]


def _continued(text: str) -> list[tuple[str, str]]:
    found = []
    for before, after in pairwise(passages(text)):
        tail = before[-_PROMPT:]
        cut_word = len(before) > len(tail) and " " in tail
        found.append((tail.partition(" ")[2].strip() if cut_word else tail.strip(), after))
    return found


def prompts(text: str) -> list[str]:
    """Headings of a document or, without any, the ends of the passages that another one follows."""
    return _headings(text) or [before for before, _ in _continued(text)]
