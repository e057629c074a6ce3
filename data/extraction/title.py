"""Put the title that a document has beside its text, in `<title>` or front matter, over the text."""

from sluice.data.extraction.blocks import Block, Heading
from sluice.data.writing_systems import one_line


def with_title(blocks: list[Block], title: str) -> list[Block]:
    """Return the blocks under the title as heading.

    They are unchanged if there is no title or text, or if they have a heading of the first level or one that the title
    repeats, as in `Tides | Harbour Office`.
    """
    title = one_line(title)
    headings = [block for block in blocks if isinstance(block, Heading)]
    if not title or not blocks or any(block.level == 1 or one_line(block.text) in title for block in headings):
        return blocks
    return [Heading(1, title), *blocks]
