"""Convert markup to the document text contract: `#` headings, one-line paragraphs, `- ` items, code indented by 4."""

from collections.abc import Callable

from sluice.data.extraction.blocks import Block, render
from sluice.data.extraction.encoding import composed, repair
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
    """Extract the text of a document with the markup `suffix` (rst, md, html, txt; a leading dot is allowed).

    The text is in NFC, with its encoding repaired. Raises ValueError for an unknown markup.
    """
    name = suffix.lower().lstrip(".")
    reader = _READERS.get(_ALIASES.get(name, name))
    if reader is None:
        raise ValueError(f"markup {suffix!r} is not known; allowed: {', '.join(MARKUPS)}")
    unix = repair(text.removeprefix("\ufeff")).replace("\r\n", "\n").replace("\r", "\n")
    return composed(render(reader(unix)))
