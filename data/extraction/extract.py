"""Convert markup to the document text contract: `#` headings, one-line paragraphs, `- ` items, code indented by 4.

Plain text keeps its lines, except those of hard-wrapped paragraphs; raw text is kept byte for byte.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass

from sluice.data.extraction.blocks import Block, render
from sluice.data.extraction.encoding import composed, repair
from sluice.data.extraction.markdown import markdown_blocks
from sluice.data.extraction.plain import unwrap
from sluice.data.extraction.rst import rst_blocks
from sluice.data.extraction.webpage import read_page

_READERS: dict[str, Callable[[str], list[Block]]] = {
    "rst": rst_blocks,
    "md": markdown_blocks,
}
_BREAK_IN_LINE = re.compile(r"(?<=[^\n])[\v\f](?=[^\n])")
"""Vertical tab or form feed: controls are removed later, but inside a line these end it."""
RAW = "raw"
_HTML = "html"
_PLAIN = ("txt", "wrapped")
_ALIASES = {"markdown": "md", "htm": "html", "text": "txt"}
MARKUPS = (RAW, *_PLAIN, *_READERS, _HTML, *_ALIASES)


@dataclass(frozen=True)
class Extracted:
    """The text of a document, and what extraction did to it."""

    text: str
    joined_lines: int = 0
    """Lines of plain text that were joined to the line before."""
    page_words: int = 0
    """Words that a reader sees on a web page."""
    words_left_out: int = 0
    """Words of a web page beside its main content."""


def extract(text: str, suffix: str) -> str:
    """Return the text of `convert`."""
    return convert(text, suffix).text


def convert(text: str, suffix: str) -> Extracted:
    """Extract the text of a document with the markup `suffix`, one of MARKUPS; a leading dot is allowed.

    `raw` text is returned as it is. All other text is in NFC, with its encoding repaired and lines that end with `\\n`.
    `txt` joins lines only where the text is shown to be hard-wrapped prose, `wrapped` joins those of every paragraph.
    Raises ValueError for an unknown markup.
    """
    name = suffix.lower().lstrip(".")
    name = _ALIASES.get(name, name)
    if name not in MARKUPS:
        raise ValueError(f"markup {suffix!r} is not known; allowed: {', '.join(MARKUPS)}")
    if name == RAW:
        return Extracted(text)
    unix = repair(text.removeprefix("\ufeff")).replace("\r\n", "\n").replace("\r", "\n")
    unix = _BREAK_IN_LINE.sub("\n", unix)
    if name in _PLAIN:
        return Extracted(*unwrap(composed(unix).lstrip("\ufeff\n").rstrip("\n"), force=name == "wrapped"))
    if name == _HTML:
        page = read_page(unix)
        return Extracted(composed(render(page.blocks)), page_words=page.words, words_left_out=page.words_left_out)
    return Extracted(composed(render(_READERS[name](unix))))
