"""Markup to the document text contract: `#` headings, paragraphs on one line, `- ` items, code indented by four."""

from collections.abc import Callable

from sluice.data.extraction.blocks import Block, render
from sluice.data.extraction.encoding import composed, mend
from sluice.data.extraction.markdown import markdown_blocks
from sluice.data.extraction.plain import plain_blocks
from sluice.data.extraction.rst import rst_blocks
from sluice.data.extraction.webpage import webpage_blocks

_READERS: dict[str, Callable[[str], list[Block]]] = {
    "rst": rst_blocks,
    "md": markdown_blocks,
    "html": webpage_blocks,
    "txt": plain_blocks,
}
_ALIASES = {"markdown": "md", "htm": "html", "text": "txt", "jsonl": "txt"}
MARKUPS = (*_READERS, *_ALIASES)


def extract(text: str, suffix: str) -> str:
    """Clean text of a document whose markup is `suffix` (rst, md, html, txt; a leading dot is allowed), in NFC, with
    its encoding mended.

    ValueError for a markup that no reader knows.
    """
    name = suffix.lower().lstrip(".")
    reader = _READERS.get(_ALIASES.get(name, name))
    if reader is None:
        raise ValueError(f"markup {suffix!r} is not known; allowed: {', '.join(MARKUPS)}")
    unix = mend(text.removeprefix("\ufeff")).replace("\r\n", "\n").replace("\r", "\n")
    return composed(render(reader(unix)))
