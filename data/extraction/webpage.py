"""Convert web pages to blocks: trafilatura finds the main text between navigation, adverts and footers.

Its tree is used, not its Markdown, in which a literal star or tag would be parsed as markup again.
"""

import re
from collections.abc import Iterator
from typing import Any

from sluice.data.extraction.blocks import Block, Code, Heading, ListItem, Paragraph
from sluice.data.extraction.html import html_blocks
from sluice.data.writing_systems import one_line

_PAGE = re.compile(r"<(?:!doctype\s+html|html|body)\b", re.IGNORECASE)
_LOOKED_AT = 4096
_LEAST_SHARE = 0.25
"""Minimum share of the page's words; with less, trafilatura missed the main text."""
_MAX_DEPTH = 50
"""Nesting of emphasis and links; a page of unclosed tags nests them deeper than Python's recursion limit."""
_INSIDE = frozenset({"hi", "ref", "del", "code", "lb", "graphic"})


def webpage_blocks(text: str) -> list[Block]:
    """Return the blocks of the main text of one HTML page in reading order; of a fragment, all blocks.

    Where trafilatura finds no structure or loses most of the text, all blocks of the page are returned. Barbaresi 2021,
    "Trafilatura: A Web Scraping Library and Command-Line Tool for Text Discovery and Extraction".
    """
    every = html_blocks(text)
    if not _PAGE.search(text[:_LOOKED_AT]):
        return every
    from trafilatura import bare_extraction

    page = bare_extraction(text, include_comments=False, include_tables=False, include_formatting=True)
    assert not isinstance(page, dict)
    found = list(_blocks(page.body)) if page is not None and page.body is not None else []
    return found if len(found) > 1 and _words(found) >= _LEAST_SHARE * _words(every) else every


def _words(blocks: list[Block]) -> int:
    return sum(len(block.text.split()) for block in blocks)


def _blocks(parent: Any) -> Iterator[Block]:
    """Yield the blocks below an element of the tree; words between its blocks are paragraphs."""
    loose = [parent.text or ""]
    for element in parent:
        # trafilatura names both `code`; the content of a `pre` keeps its line ends, or the `code` inside it.
        is_block = element.tag == "code" and (element.find("code") is not None or "\n" in "".join(element.itertext()))
        if element.tag in _INSIDE and not is_block:
            loose.append(_inline(element) + (element.tail or ""))
            continue
        yield from _paragraph(loose)
        loose = [element.tail or ""]
        if element.tag == "head":
            yield Heading(int((element.get("rend") or "h2")[-1]), _inner(element))
        elif element.tag == "item":
            for number, block in enumerate(_blocks(element)):
                # The first paragraph is the item's line.
                yield ListItem(block.text) if number == 0 and isinstance(block, Paragraph) else block
        elif element.tag == "code":
            yield Code("".join(element.itertext()).strip("\n").rstrip())
        elif not isinstance(element.tag, str):
            continue  # a comment
        else:
            yield from _blocks(element)
    yield from _paragraph(loose)


def _paragraph(words: list[str]) -> Iterator[Block]:
    text = "".join(words)
    if text.strip():
        yield Paragraph(one_line(text))


def _inner(element: Any, depth: int = 0) -> str:
    if depth > _MAX_DEPTH:
        return "".join(element.itertext())
    return (element.text or "") + "".join(_inline(child, depth + 1) + (child.tail or "") for child in element)


def _inline(element: Any, depth: int = 0) -> str:
    if element.tag == "lb":
        return " "
    if element.tag == "code":
        return f"`{''.join(element.itertext()).strip()}`"
    return _inner(element, depth) if isinstance(element.tag, str) else ""
