"""Find the main content of a web page: where it is, and what inside it is furniture.

Furniture is navigation, adverts, share buttons, related links, comments under an article and the like. It is found by
tags and roles, by the names in class and id, and at the edges of the page by the share of links. A name is a hint and
no proof: elements with most of the text are content, whatever they are called.
"""

import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator

from sluice.data.extraction.dom import Element, Size, hidden, sizes, walk
from sluice.data.extraction.furniture_names import COMMENTS, furniture_name

_AROUND_CONTENT = frozenset({"aside", "footer", "header"})
_PARAGRAPHS = frozenset({"p", "pre", "table"})
_CONTENT_TAGS = frozenset({"article", "main", "blockquote", "figure"})
_CONTAINERS = re.compile(r"address|body|center|div|font|footer|form|p|section|small|span|table|tbody|td|tr")
_IMPRINT = re.compile(
    r"©|\(c\)\s|copyright|all rights reserved|powered by|page (?:was|has been)"
    r"|last (?:modified|updated|change\b|edited)",
    re.IGNORECASE,
)
_HOME = re.compile(r"(?:https?://[^/]*)?/?(?:index\.\w+)?#?")
_HEADER = re.compile(r"(?:^|[ _-])(?:header|head|hd|top|logo|brand)(?:$|[ _-])", re.IGNORECASE)
_LINKED = 0.5
"""Share of links above which text is navigation."""
_BAR = 0.6
"""Share of links above which several of them in the middle of the text are a bar of links."""
_MOST_BESIDE_LINKS = 100
"""Most characters beside the links of a bar."""
_LEAST_BESIDE_LINKS = 100
"""Least characters beside bars of links and the edges; with less, the page is a list of links."""
_LEAST_ARTICLE = 1000
"""Unlinked characters of an article from which on more text under it is comments, and no discussion."""
_LEAST_KEPT = 0.1
"""Least share of the page's unlinked text; with less, too much has been taken for furniture."""
_LEAST_REGION = 0.25
"""Least share of the unlinked text in a marked region that is the main content."""


def main_content(root: Element) -> tuple[Element, set[Element]]:
    """Return the element with the main content of a page, and the elements below it that are not part of it."""
    unseen = hidden(root, sizes(root))
    seen = sizes(root, unseen)
    if root not in seen:
        return root, unseen
    furniture = unseen | _furniture(root, seen)
    left = sizes(root, furniture)
    if left[root].unlinked < _LEAST_KEPT * seen[root].unlinked:
        furniture, left = unseen, seen
    region = _region(root, left)
    furniture |= _before_title(region, left)
    links = _link_bars(region, left)
    links |= _edges(region, left, furniture | links)
    rest = sizes(region, furniture | links).get(region, Size()).text
    is_list_of_links = rest < _LEAST_BESIDE_LINKS and rest < left[region].text / 2
    return region, furniture if is_list_of_links else furniture | links


def _furniture(root: Element, seen: dict[Element, Size]) -> set[Element]:
    """Return the outermost elements that their tag, role or name makes furniture."""
    half = seen[root].unlinked / 2
    titled = _ancestors(_titles(root, seen))
    found: dict[Element, str] = {}
    total: Counter[str] = Counter()
    content_tags, inside = 0, None
    for event, element in walk(root):
        if element not in seen or inside is not None:
            inside = None if event == "end" and element is inside else inside
            continue
        content_tags += (element.tag in _CONTENT_TAGS) * (1 if event == "start" else -1)
        if event == "end" or element in titled:
            continue
        # Inside an article or between paragraphs, these may have a title, a note or the source of a quotation.
        beside = [each.tag for each in (element.getprevious(), element.getnext()) if each is not None]
        is_among = element.tag == "aside" and len(beside) == 2 and any(tag in _PARAGRAPHS for tag in beside)
        is_inside = content_tags or is_among
        named_by_tag = element.tag in _AROUND_CONTENT and (not is_inside or seen[element].link_share > _LINKED)
        name = str(element.tag) if named_by_tag else furniture_name(element)
        most = max(half, seen[root].unlinked - _LEAST_ARTICLE) if name == COMMENTS else half
        if name and seen[element].unlinked <= most:
            found[element] = name
            total[name] += seen[element].unlinked
            inside = element
            content_tags -= element.tag in _CONTENT_TAGS
    rest = seen[root].unlinked - total.total()
    return {e for e, name in found.items() if total[name] <= half or (name == COMMENTS and rest >= _LEAST_ARTICLE)}


def _titles(root: Element, seen: dict[Element, Size]) -> Iterator[Element]:
    """Yield the headings of the first level that are no link to the home page, which is the name of the site."""
    for title in root.iter("h1"):
        if title in seen and seen[title].text:
            links = [_HOME.fullmatch(link.get("href", "")) for link in title.iter("a")]
            if seen[title].link_share < _LINKED or not all(links):
                yield title


def _ancestors(elements: Iterable[Element]) -> set[Element]:
    """Return the elements and all that they are in."""
    found: set[Element] = set()
    for element in elements:
        for each in (element, *element.iterancestors()):
            if each in found:
                break
            found.add(each)
    return found


def _region(root: Element, left: dict[Element, Size]) -> Element:
    """Return the `main` element, or the only large article, with the title of the page; else the body."""
    least = _LEAST_REGION * left[root].unlinked
    large = [e for e in left if e.tag in ("main", "article") or e.get("role") == "main" if left[e].unlinked >= least]
    mains = [e for e in large if e.tag != "article"]
    articles = [e for e in left if e.tag == "article" and e.getparent() is not None]
    body = next(iter(root.iter("body")), root)
    if not mains and (len(large) != 1 or left[large[0]].unlinked < 0.6 * sum(left[e].unlinked for e in articles)):
        return body
    region = (mains or large)[0]
    around = _ancestors(_titles(root, left))
    wider = next((e for e in [region, *region.iterancestors()] if e in around), region)
    return wider if left[wider].unlinked < 1.5 * left[region].unlinked else region


def _before_title(region: Element, left: dict[Element, Size]) -> set[Element]:
    """Return what stands before the title, if it is little."""
    title = next(_titles(region, left), None)
    before: set[Element] = set()
    while title is not None and title is not region:
        before.update(e for e in title.itersiblings(preceding=True) if e in left)
        title = title.getparent()
    return before if sum(left[e].text for e in before) < 0.2 * left[region].text else set()


def _link_bars(region: Element, left: dict[Element, Size]) -> set[Element]:
    """Return blocks of several links and next to no other text, such as share buttons and pagers; lists are kept."""
    kept = _ancestors([*_titles(region, left), *region.iter("li")])
    return {
        e
        for e, size in left.items()
        if e.tag in ("div", "section", "p")
        and size.link_count > 1
        and size.unlinked < _MOST_BESIDE_LINKS
        and size.link_share > _BAR
        and e not in kept
    }


def _edges(region: Element, left: dict[Element, Size], furniture: Collection[Element]) -> set[Element]:
    """Return what is at both ends of the region and mostly links, or tells who made the page."""
    edges: set[Element] = set()
    titled = _ancestors(_titles(region, left))
    for backwards in (False, True):
        element: Element | None = region
        while element is not None:
            children = [e for e in element if e in left and e not in furniture and left[e].text]
            element = None
            for child in reversed(children) if backwards else children:
                if _CONTAINERS.fullmatch(child.tag) and child not in titled and _is_edge(child, left[child], backwards):
                    edges.add(child)
                else:
                    element = child if _CONTAINERS.fullmatch(child.tag) else None
                    break
    return edges


def _is_edge(element: Element, size: Size, at_end: bool) -> bool:
    if size.unlinked < 200 and size.link_share > _LINKED:
        return element.tag != "p" or size.link_share > 0.9
    if size.text >= 200:
        return False
    if at_end:
        return bool(_IMPRINT.search("".join(element.itertext())))
    return bool(_HEADER.search(f"{element.get('class', '')} {element.get('id', '')}"))
