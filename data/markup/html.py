"""HTML to blocks with the standard library's parser: what is not prose (scripts, navigation, forms) is skipped."""

import re
from html.parser import HTMLParser

from data.markup.blocks import Block, Code, Heading, Item, Paragraph

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


def html_blocks(text: str) -> list[Block]:
    """The blocks of one HTML page or fragment in reading order."""
    reader = _Reader()
    reader.feed(text)
    reader.close()
    reader.flush()
    return reader.blocks


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.blocks: list[Block] = []
        self.words: list[str] = []
        self.skipping: list[str] = []
        self.heading = 0
        self.in_item = False
        self.in_pre = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if self.skipping or (tag in _SKIPPED and tag not in _VOID):
            if tag not in _VOID:
                self.skipping.append(tag)
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
            self.words.append("\n" if self.in_pre else " ")
        elif tag in ("td", "th") and any(word.strip() for word in self.words):
            self.words.append(" | ")
        elif tag == "code" and not self.in_pre:
            self.words.append("`")
        elif tag in _BREAKS and not (tag == "p" and self.in_item and not self._has_words()):
            self.flush()

    def handle_endtag(self, tag: str) -> None:
        if self.skipping:
            # An unclosed tag inside a skipped one must not swallow the rest of the page.
            if tag in self.skipping:
                del self.skipping[len(self.skipping) - 1 - self.skipping[::-1].index(tag) :]
            return
        if tag == "code" and not self.in_pre:
            self.words.append("`")
        elif _HEADING.match(tag) or tag in ("pre", "li") or tag in _BREAKS:
            self.flush()
            if tag == "li":
                self.in_item = False

    def handle_data(self, data: str) -> None:
        if not self.skipping:
            self.words.append(data)

    def _has_words(self) -> bool:
        return any(word.strip() for word in self.words)

    def flush(self) -> None:
        """End the block that is being read."""
        text = "".join(self.words)
        self.words.clear()
        if text.strip():
            flat = " ".join(text.split())
            if self.in_pre:
                self.blocks.append(Code(text.strip("\n").rstrip()))
            elif self.heading:
                self.blocks.append(Heading(self.heading, flat.rstrip("¶#").rstrip()))
            elif self.in_item:
                self.blocks.append(Item(flat))
                self.in_item = False
            else:
                self.blocks.append(Paragraph(flat))
        self.heading = 0
        self.in_pre = False
