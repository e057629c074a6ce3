"""Tell rows of data from tables that only lay out a page."""

import re
from collections import Counter
from collections.abc import Collection

from sluice.data.extraction.dom import Element, walk

_BLOCKS = re.compile(r"article|blockquote|dl|form|h[1-6r]|li|listing|pre|section|table")
_MOST_BREAKS = 3
"""Paragraphs and line breaks a cell."""


def line_rows(root: Element, skipped: Collection[Element]) -> set[Element]:
    """Return the rows of two or more cells that can be read as one line.

    A cell with a table, a list, code, a heading, or several paragraphs makes its row a layout of blocks.
    """
    rows: list[Element] = []
    found: set[Element] = set()
    breaks: Counter[Element] = Counter()
    for event, element in walk(root, skipped):
        if element.tag == "tr":
            if event == "start":
                rows.append(element)
                cells = [child for child in element if isinstance(child.tag, str)]
                if len(cells) > 1 and all(cell.tag in ("td", "th") for cell in cells):
                    found.add(element)
            elif rows and rows[-1] is element:
                rows.pop()
        elif event == "start" and rows:
            breaks[rows[-1]] += element.tag in ("br", "p")
            if _BLOCKS.fullmatch(element.tag) or breaks[rows[-1]] > _MOST_BREAKS * len(rows[-1]):
                found.discard(rows[-1])
    return found
