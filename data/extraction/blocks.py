"""The blocks that every markup is parsed into, and how they are rendered in the document text contract.

A paragraph is one line, with blank lines between paragraphs, but verse and addresses keep their lines; headings are
`#` lines; code is indented by four spaces; consecutive list items are `- ` lines without a blank line between them.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from sluice.data.writing_systems import one_line


@dataclass(frozen=True)
class Heading:
    level: int
    text: str


@dataclass(frozen=True)
class Paragraph:
    text: str


@dataclass(frozen=True)
class ListItem:
    text: str


@dataclass(frozen=True)
class Code:
    text: str


@dataclass(frozen=True)
class Verse:
    """A paragraph whose line ends mean something."""

    text: str


Block = Heading | Paragraph | ListItem | Code | Verse

LINE_END = "\v"
"""Line end that the author of a page asked for, in the text of a paragraph; white space elsewhere."""
_LEAST_LINES = 3

_MARKS = re.compile(r"\A(?:(?:#{1,6}|[-*•]) +)+")
_LETTER_OR_DIGIT = re.compile(r"[^\W_]")
_BLANK_LINES = re.compile(r"\n(?:[ \t]*\n)+")


def paragraph(text: str) -> Paragraph | Verse:
    """Return a block of words; with three or more lines, it is verse."""
    lines = [line for line in text.split(LINE_END) if line.strip()]
    return Verse("\n".join(map(one_line, lines))) if len(lines) >= _LEAST_LINES else Paragraph("\n".join(lines))


def render(blocks: Iterable[Block]) -> str:
    """Render a document. Blocks without text and paragraphs without a letter or digit (rules) are skipped."""
    parts: list[str] = []
    previous: Block | None = None
    for block in blocks:
        if not block.text.strip() or (isinstance(block, Paragraph) and not _LETTER_OR_DIGIT.search(block.text)):
            continue
        match block:
            case Heading(level, text):
                rendered = f"{'#' * min(max(level, 1), 6)} {one_line(text)}"
            case ListItem(text):
                rendered = f"- {one_line(text)}"
            case Code(text):
                # Several blank lines inside code become one, as between all blocks of the contract.
                lines = _BLANK_LINES.sub("\n\n", text).split("\n")
                rendered = "\n".join(f"    {line}".rstrip() for line in lines).strip("\n")
            case Paragraph(text):
                # A paragraph that happens to begin like a heading or an item must stay a paragraph.
                rendered = _MARKS.sub("", one_line(text))
            case Verse(text):
                rendered = "\n".join(_MARKS.sub("", line) for line in text.split("\n"))
        both_items = isinstance(block, ListItem) and isinstance(previous, ListItem)
        parts.append(("\n" if both_items else "\n\n") + rendered)
        previous = block
    return "".join(parts).strip("\n")
