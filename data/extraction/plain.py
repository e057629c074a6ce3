"""Convert plain text to blocks, joining hard-wrapped lines. Text in the document text contract is unchanged."""

import re

from sluice.data.extraction.blocks import Block, Code, Heading, ListItem, Paragraph

_HEADING = re.compile(r"(#{1,6}) +(\S.*)")
_ITEM = re.compile(r"[-*•] +(\S.*)")
# A line longer than this was not wrapped by hand: it is a paragraph of its own.
_LONGEST_WRAPPED_LINE = 120


def plain_blocks(text: str) -> list[Block]:
    """Return the blocks of text whose only markup is indentation, `#` headings and `-` lists."""
    blocks: list[Block] = []
    code: list[str] = []
    lines: list[str] = []

    def flush() -> None:
        item = _ITEM.fullmatch(lines[0]) if lines else None
        if item:
            blocks.append(ListItem(" ".join([item[1], *lines[1:]])))
        elif max(map(len, lines), default=0) > _LONGEST_WRAPPED_LINE:
            blocks.extend(Paragraph(line) for line in lines)
        elif lines:
            blocks.append(Paragraph(" ".join(lines)))
        lines.clear()
        if any(code):
            kept = "\n".join(code).strip("\n").split("\n")
            # Without the contract's four spaces, so that extracting clean text again changes nothing.
            blocks.append(Code("\n".join(line[4:] if line.startswith("    ") else line.lstrip() for line in kept)))
        code.clear()

    for line in map(str.rstrip, text.expandtabs(8).split("\n")):
        if line.startswith("    ") and not lines:
            code.append(line)
            continue
        if not line:
            if code:
                code.append("")
            else:
                flush()
            continue
        if code:
            flush()
        heading, item = _HEADING.fullmatch(line), _ITEM.fullmatch(line)
        if heading:
            flush()
            blocks.append(Heading(len(heading[1]), heading[2]))
        elif item:
            flush()
            lines.append(line)
        else:
            lines.append(line)
    flush()
    return blocks
