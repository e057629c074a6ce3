"""Convert web pages to blocks: the main content, under the page's title."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from sluice.data.extraction.blocks import Block
from sluice.data.extraction.dom import hidden, parse, sizes
from sluice.data.extraction.html import blocks_of, html_blocks
from sluice.data.extraction.main_content import main_content
from sluice.data.extraction.title import with_title
from sluice.data.writing_systems import tokens

_PAGE = re.compile(r"<(?:!doctype\s+html|html|body)\b", re.IGNORECASE)
_LOOKED_AT = 4096


@dataclass(frozen=True)
class WebPage:
    """The main content of a page, and what extraction left out."""

    blocks: list[Block]
    words: int = 0
    """Words that a reader sees on the page."""
    words_left_out: int = 0
    """Words beside the main content."""


def read_page(text: str) -> WebPage:
    """Return the blocks of the main content of one HTML page in reading order; of a fragment, all blocks.

    A page without a heading of the first level begins with its `<title>`, unless that repeats another heading.
    """
    if not _PAGE.search(text[:_LOOKED_AT]):
        blocks = html_blocks(text)
        return WebPage(blocks, _words(blocks))
    root = parse(text)
    blocks = blocks_of(*main_content(root))
    seen = _words(blocks_of(root, hidden(root, sizes(root))))
    left_out = max(seen - _words(blocks), 0)
    return WebPage(with_title(blocks, root.findtext("head/title") or ""), seen, left_out)


def _words(blocks: Iterable[Block]) -> int:
    return sum(len(tokens(block.text)) for block in blocks)
