"""Convert HTML to blocks with the standard library's parser, skipping scripts, navigation and forms."""

import re
from collections import Counter
from html import unescape
from html.parser import HTMLParser

from sluice.data.extraction.blocks import Block, Code, Heading, ListItem, Paragraph
from sluice.data.writing_systems import one_line

_SKIPPED = frozenset(
    {"script", "style", "nav", "head", "footer", "aside", "form", "button", "svg", "noscript", "template"}
)
_BREAKS = frozenset(
    {
        "p",
        "div",
        "section",
        "article",
        "main",
        "header",
        "ul",
        "ol",
        "dl",
        "table",
        "tr",
        "blockquote",
        "figure",
        "figcaption",
        "dt",
        "dd",
        "hr",
        "body",
        "html",
    }
)
_VOID = frozenset(
    {"area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr"}
)
_HEADING = re.compile(r"h([1-6])\Z")
_MOST_UNCLOSED = 32
"""Tags and comments without an end: each is searched up to the end of the text, so their number is limited."""


def html_blocks(text: str) -> list[Block]:
    """Return the blocks of one HTML page or fragment in reading order."""
    reader = _Reader()
    reader.feed(text)
    for _ in range(_MOST_UNCLOSED):
        # The rest starts with a tag or comment without an end: its first part is text, the following is parsed again.
        head, end, rest = reader.rawdata.partition(">")
        if not end or not head.startswith("<"):
            break
        reader.rawdata = ""
        reader.handle_data(unescape(head + end))
        reader.feed(rest)
    # Not `close()`, which retries every tag of the rest, each up to the end of the text.
    if reader.cdata_elem is None:
        reader.handle_data(unescape(reader.rawdata))
    reader.flush()
    return reader.blocks


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.blocks: list[Block] = []
        self.words: list[str] = []
        self.has_words = False
        self.skipping: list[str] = []
        self.skipping_now: Counter[str] = Counter()
        self.heading = 0
        self.in_item = False
        self.in_pre = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if self.skipping or (tag in _SKIPPED and tag not in _VOID):
            if tag not in _VOID:
                self.skipping.append(tag)
                self.skipping_now[tag] += 1
            return
        heading = _HEADING.match(tag)
        if heading:
            self.flush()
            self.heading = int(heading[1])
        elif tag == "pre":
            self.flush()
            self.in_pre = True
        elif tag == "li":
            self.flush()
            self.in_item = True
        elif tag == "br":
            self._add("\n" if self.in_pre else " ")
        elif tag in ("td", "th") and self.has_words:
            self._add(" | ")
        elif tag == "code" and not self.in_pre:
            self._add("`")
        elif tag in _BREAKS and not (tag == "p" and self.in_item and not self.has_words):
            self.flush()

    def handle_endtag(self, tag: str) -> None:
        if self.skipping:
            # An unclosed tag inside a skipped one must not swallow the rest of the page.
            closed = not self.skipping_now[tag]
            while not closed:
                last = self.skipping.pop()
                self.skipping_now[last] -= 1
                closed = last == tag
            return
        if tag == "code" and not self.in_pre:
            self._add("`")
        elif _HEADING.match(tag) or tag in ("pre", "li") or tag in _BREAKS:
            self.flush()
            if tag == "li":
                self.in_item = False

    def handle_data(self, data: str) -> None:
        if not self.skipping:
            self._add(data)

    def parse_marked_section(self, i: int, report: bool = True) -> int:
        """`<![CDATA[...]]>` and its like; the standard library's assertion fails on a name that it does not know."""
        try:
            return super().parse_marked_section(i, report)
        except AssertionError:
            return self.parse_bogus_comment(i)

    def _add(self, words: str) -> None:
        self.words.append(words)
        self.has_words = self.has_words or bool(words.strip())

    def flush(self) -> None:
        """End the block that is being read."""
        text = "".join(self.words)
        self.words.clear()
        self.has_words = False
        if text.strip():
            flat = one_line(text)
            if self.in_pre:
                self.blocks.append(Code(text.strip("\n").rstrip()))
            elif self.heading:
                self.blocks.append(Heading(self.heading, flat.rstrip("¶#").rstrip()))
            elif self.in_item:
                self.blocks.append(ListItem(flat))
                self.in_item = False
            else:
                self.blocks.append(Paragraph(flat))
        self.heading = 0
        self.in_pre = False
