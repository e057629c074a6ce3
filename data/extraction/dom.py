"""Parse HTML into a tree of elements, measure how much text each has, and find what a reader does not see."""

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

from lxml import etree

Element = Any
"""Element of lxml's tree."""

_UNSEEN_TAGS = re.compile(
    r"applet|area|audio|canvas|datalist|embed|head|iframe|input|map|meter|noframes|noscript|object|optgroup"
    r"|option|progress|script|select|style|svg|template|textarea|title|video"
)
_PAGE_ENDS = re.compile(r"</(?:body|html)\s*>", re.IGNORECASE)
_TAG = re.compile(r"<[^<>]*>")
_HEADINGS = frozenset({"h1", "h2", "h3", "h4", "h5", "h6", "dt", "summary"})
_UNSEEN_CLASSES = frozenset(
    {
        "sr-only",
        "visually-hidden",
        "visuallyhidden",
        "screen-reader-text",
        "linenos",
        "lineno",
        "blob-num",
        "linenodiv",
        "gutter",
    }
    | {"MathJax_Preview"}
)
"""Text for screen readers, the numbers of lines beside code, what stands for a formula until it is drawn."""
_UNSEEN_STYLE = re.compile(r"display\s*:\s*none|visibility\s*:\s*hidden", re.IGNORECASE)


def parse(text: str) -> Element:
    """Return the root of the tree of a page or fragment; of an empty text, an empty element.

    A tag or comment without an end is text: a browser would drop it with everything after it. What follows `</html>`
    belongs to the page, as in a browser. Of a page that is nested too deep to be parsed, the text between its tags is
    kept.
    """
    text = _PAGE_ENDS.sub("", text)
    closed, arrow, rest = text.rpartition("-->")
    text = closed + arrow + rest.replace("<!--", "&lt;!--")
    closed, angle, rest = text.rpartition(">")
    text = closed + angle + rest.replace("<", "&lt;")
    root, is_complete = _parse(text)
    return root if is_complete else _parse(_TAG.sub("\n", text))[0]


def _parse(text: str) -> tuple[Element, bool]:
    """Return the root, and whether everything is below it."""
    # As bytes with their encoding, because lxml refuses a string that declares one.
    parser = etree.HTMLParser(encoding="utf-8", huge_tree=True)
    root = etree.fromstring(text.encode("utf-8", "replace"), parser) if text.strip() else None
    is_complete = not any(error.type == etree.ErrorTypes.ERR_RESOURCE_LIMIT for error in parser.error_log)
    return etree.Element("html") if root is None else root, is_complete


def walk(root: Element, skipped: Collection[Element] = ()) -> Iterator[tuple[str, Element]]:
    """Yield ("start", element) and ("end", element) of every element that is not within one of `skipped`.

    Of skipped elements and comments only the end is yielded: the text behind them belongs to the parent. A loop instead
    of recursion, because a hostile page is nested deeper than Python's stack.
    """
    walker = etree.iterwalk(root, events=("start", "end", "comment", "pi"))
    for event, element in walker:
        if event != "start":
            yield "end", element
        elif element in skipped or _is_unseen(element):
            walker.skip_subtree()
        else:
            yield "start", element


def _is_unseen(element: Element) -> bool:
    if element.tag == "button":  # A heading that opens the text below it is often one.
        parent = element.getparent()
        return parent is None or parent.tag not in _HEADINGS
    if element.tag == "script":  # A formula that MathJax draws.
        return not element.get("type", "").startswith("math/tex")
    return bool(_UNSEEN_TAGS.fullmatch(element.tag))


@dataclass(slots=True)
class Size:
    """Characters of an element's text without white space, those of them in links, and the number of links."""

    text: int = 0
    links: int = 0
    link_count: int = 0

    @property
    def unlinked(self) -> int:
        return self.text - self.links

    @property
    def link_share(self) -> float:
        return self.links / self.text if self.text else 1.0


def sizes(root: Element, skipped: Collection[Element] = ()) -> dict[Element, Size]:
    """Return the size of every element that is not skipped."""
    measured: dict[Element, Size] = {}
    open_elements = [Size()]
    in_links = 0

    def add(text: str | None) -> None:
        if text:
            length = len("".join(text.split()))
            open_elements[-1].text += length
            open_elements[-1].links += length if in_links else 0

    for event, element in walk(root, skipped):
        is_link = element.tag == "a" and element.get("href") is not None
        if event == "start":
            in_links += is_link
            measured[element] = Size()
            open_elements.append(measured[element])
            add(element.text)
            continue
        if element in measured:
            in_links -= is_link
            size = open_elements.pop()
            open_elements[-1].text += size.text
            open_elements[-1].links += size.links
            open_elements[-1].link_count += size.link_count + is_link
        if element is not root:
            add(element.tail)
    return measured


def hidden(root: Element, measured: dict[Element, Size]) -> set[Element]:
    """Return the elements that attributes and styles hide.

    Half of the text is not hidden for long: scripts show it, or unfold the answers to a list of questions.
    """
    half = measured[root].text / 2 if root in measured else 0
    found = {
        element
        for element, size in measured.items()
        if size.text <= half and _is_hidden(element) and element.find(".//math") is None
    }
    return found if not found or sizes(root, found)[root].text >= half else set()


def _is_hidden(element: Element) -> bool:
    attributes = element.attrib
    return (
        attributes.get("hidden", "until-found") != "until-found"
        or attributes.get("aria-hidden") == "true"
        or (element.tag == "dialog" and "open" not in attributes)
        or bool(_UNSEEN_STYLE.search(attributes.get("style", "")))
        or not _UNSEEN_CLASSES.isdisjoint(attributes.get("class", "").split())
    )
