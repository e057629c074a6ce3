"""Convert an HTML tree to blocks in reading order."""

import re
from collections.abc import Collection

from sluice.data.extraction.blocks import LINE_END, Block, Code, Heading, ListItem, Paragraph, paragraph
from sluice.data.extraction.dom import Element, hidden, parse, sizes, walk
from sluice.data.extraction.mathml import formula
from sluice.data.extraction.table_rows import is_code, line_rows
from sluice.data.writing_systems import one_line

_BLOCK_TAGS = re.compile(
    r"address|article|aside|blockquote|body|caption|center|dd|details|dialog|dir|div|dl|dt|fieldset|figcaption"
    r"|figure|footer|form|header|hgroup|html|legend|li|listing|main|menu|nav|ol|p|pre|search|section|summary"
    r"|table|tbody|td|tfoot|th|thead|tr|ul|xmp|h[1-6r]"
)
_HEADING = re.compile(r"h([1-6])\Z")
_EXPONENT = re.compile(r"[-+−]?\d+\Z")
_SUPERSCRIPT = str.maketrans("0123456789+-−", "⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁻")
_ANCHORS = frozenset({"¶", "#", "§", ""})
"""Text of a link that a heading has to itself."""


def html_blocks(text: str) -> list[Block]:
    """Return all blocks of a page or fragment, without hidden elements and navigation."""
    root = parse(text)
    return blocks_of(root, hidden(root, sizes(root)) | set(root.iter("nav")))


def blocks_of(root: Element, skipped: Collection[Element] = ()) -> list[Block]:
    """Return the blocks of an element, without the `skipped` ones below it."""
    # A superscript that is a number would be read as digits of the number before it.
    exponents = (element for element in root.iter("sup") if _EXPONENT.match(_short_text(element)))
    # Read as one, not element by element.
    atoms = {*line_rows(root, skipped), *root.iter("math"), *exponents}
    reader = _Reader()
    for event, element in walk(root, {*skipped, *atoms, *filter(_is_anchor, root.iter("a"))}):
        if event == "start":
            reader.start(element)
        else:
            if element in atoms and element not in skipped:
                reader.atom(element, skipped)
            reader.end(element)
            if element is not root:
                reader.add(element.tail)
    reader.flush()
    reader.flush_term()
    return reader.blocks


def _short_text(element: Element) -> str:
    """Return the text of an element or of the only element in it, such as the link to a footnote."""
    inner = element[0] if len(element) == 1 and not element.text else element
    return (inner.text or "").strip() if len(inner) == 0 and not (inner is not element and inner.tail) else ""


def _is_anchor(element: Element) -> bool:
    """Return whether a link is the mark by which a heading can be linked to."""
    heading = element.getparent()
    return (
        heading is not None
        and isinstance(heading.tag, str)
        and bool(_HEADING.match(heading.tag))
        and len(element) == 0
        and (element.text or "").strip() in _ANCHORS
    )


class _Reader:
    def __init__(self) -> None:
        self.blocks: list[Block] = []
        self.words: list[str] = []
        self.open: set[Element] = set()
        self.term = ""
        """Term of a definition list whose definition has not begun."""
        self.heading = 0
        self.in_item = False
        self.in_code = 0
        self.line_breaks = 0
        """Line breaks since the last word; two of them end a paragraph."""

    def add(self, text: str | None) -> None:
        if text:
            self.words.append(text)
            if self.line_breaks and text.strip():
                self.line_breaks = 0

    def start(self, element: Element) -> None:
        tag = element.tag
        self.open.add(element)
        opens_code = is_code(element)
        if opens_code or _BLOCK_TAGS.fullmatch(tag):
            self._break()
        if opens_code:
            self.in_code += 1
        elif heading := _HEADING.match(tag):
            self.heading = int(heading[1])
        elif tag == "li":
            self.in_item = True
        elif tag == "dt":
            self.flush_term()
        elif tag == "br":
            self.line_breaks += 1
            if self.in_code:
                self.words.append("\n")
            elif self.line_breaks > 1:
                self.flush()
            else:
                self.words.append(LINE_END)
        elif tag in ("code", "q") and not self.in_code:
            self.words.append("“" if tag == "q" else "`")
        self.add(element.text)

    def end(self, element: Element) -> None:
        if element not in self.open:
            return
        self.open.discard(element)
        tag = element.tag
        if is_code(element):
            self.in_code -= 1
            if not self.in_code:
                text = "".join(self.words).strip("\n").rstrip()
                self.words.clear()
                self.flush_term()
                if text.strip():
                    self.blocks.append(Code(text))
        elif tag == "dt" and not self.in_code:
            self.term = one_line("".join(self.words))
            self.words.clear()
        elif _BLOCK_TAGS.fullmatch(tag):
            self._break()
        if _HEADING.match(str(tag)):
            self.heading = 0
        elif tag == "li":
            self.in_item = False
        elif tag == "dl":
            self.flush_term()
        elif tag in ("code", "q") and not self.in_code:
            mark = "`" if tag == "code" else "“"
            if self.words and self.words[-1] == mark:
                self.words.pop()
            else:
                self.words.append("”" if tag == "q" else "`")

    def atom(self, element: Element, skipped: Collection[Element]) -> None:
        """Read a formula, an exponent or a row of a table."""
        if element.tag == "math":
            self.add(formula(element))
        elif element.tag == "sup":
            self.add(_short_text(element).translate(_SUPERSCRIPT))
        else:
            self._break()
            cells = [" ".join(block.text for block in blocks_of(cell, skipped)) for cell in element]
            filled = [cell for cell in cells if cell]
            row = " | ".join(filled)
            if self.in_code:
                self.add(f"{row}\n")
            else:
                self.blocks.append(ListItem(row) if len(filled) > 1 else Paragraph(row))

    def flush(self) -> None:
        """End the paragraph, item or heading that is being read."""
        text = "".join(self.words)
        self.words.clear()
        self.line_breaks = 0
        if not text.strip():
            return
        if self.heading:
            self.flush_term()
            self.blocks.append(Heading(self.heading, text.rstrip("¶ \n")))
        elif self.term:
            self.blocks.append(ListItem(f"{self.term.removesuffix(':')}: {text.lstrip()}"))
            self.term = ""
        elif self.in_item:
            self.blocks.append(ListItem(text))
            self.in_item = False
        else:
            self.blocks.append(paragraph(text))

    def flush_term(self) -> None:
        """End a term without a definition."""
        if self.term:
            self.blocks.append(ListItem(self.term))
            self.term = ""

    def _break(self) -> None:
        if not self.in_code:
            self.flush()
        elif self.words and not self.words[-1].endswith("\n"):
            self.words.append("\n")
