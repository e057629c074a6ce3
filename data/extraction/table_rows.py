"""Tell rows of data from tables that lay out a page or have a line of code in each row."""

import re
from collections import Counter
from collections.abc import Collection
from itertools import islice

from sluice.data.extraction.dom import Element, walk

_BLOCKS = re.compile(r"article|blockquote|dl|form|h[1-6r]|li|listing|pre|section|table")
_CODE_CELL = re.compile(r"\b(?:blob-code|code-line|line-code)\b")
_MOST_BREAKS = 3
"""Paragraphs and line breaks a cell."""


def is_code(element: Element) -> bool:
    """Return whether an element is a block of code: `pre` and its like, and a table with a line of code a row."""
    if element.tag == "table":
        return any(_CODE_CELL.search(cell.get("class", "")) for cell in islice(element.iter("td"), 2))
    return element.tag in ("pre", "listing", "xmp") or (element.tag == "code" and element.find("br") is not None)


def line_rows(root: Element, skipped: Collection[Element]) -> set[Element]:
    """Return the rows of two or more cells that can be read as one line.

    A cell with a table, a list, code, a heading, or several paragraphs makes its row a layout of blocks.
    """
    rows: list[Element] = []
    found: set[Element] = set()
    breaks: Counter[Element] = Counter()
    code_tables: list[Element] = []
    for event, element in walk(root, skipped):
        if event == "start" and element.tag == "table" and is_code(element):
            code_tables.append(element)
        elif code_tables and element is code_tables[-1]:
            code_tables.pop()
        if element.tag == "tr":
            if event == "start":
                rows.append(element)
                if code_tables:
                    continue
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
