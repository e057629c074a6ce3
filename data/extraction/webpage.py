"""Convert web pages to blocks: the main content, under the page's title."""

import re

from sluice.data.extraction.blocks import Block, Heading
from sluice.data.extraction.dom import Element, parse
from sluice.data.extraction.html import blocks_of, html_blocks
from sluice.data.extraction.main_content import main_content
from sluice.data.writing_systems import one_line

_PAGE = re.compile(r"<(?:!doctype\s+html|html|body)\b", re.IGNORECASE)
_LOOKED_AT = 4096


def webpage_blocks(text: str) -> list[Block]:
    """Return the blocks of the main content of one HTML page in reading order; of a fragment, all blocks.

    A page without a heading of the first level begins with its `<title>`, unless that repeats another heading.
    """
    if not _PAGE.search(text[:_LOOKED_AT]):
        return html_blocks(text)
    root = parse(text)
    region, furniture = main_content(root)
    blocks = blocks_of(region, furniture)
    title = _title(root)
    headings = [block for block in blocks if isinstance(block, Heading)]
    repeated = any(block.level == 1 or one_line(block.text) in title for block in headings)
    return blocks if repeated or not title or not blocks else [Heading(1, title), *blocks]


def _title(root: Element) -> str:
    element = root.find("head/title")
    return one_line(element.text or "") if element is not None else ""
