"""Taking runs of characters out of a text without leaving holes in it."""

import re
from collections.abc import Sequence

_BLANK_LINES = re.compile(r"\n(?:[ \t]*\n)+")
_LINE_END = re.compile(r"[ \t]+(?=\n|\Z)")


def merged(spans: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """The same characters as sorted spans (start, end) that neither touch nor overlap."""
    joined: list[tuple[int, int]] = []
    for start, end in sorted(span for span in spans if span[0] < span[1]):
        if joined and start <= joined[-1][1]:
            joined[-1] = joined[-1][0], max(end, joined[-1][1])
        else:
            joined.append((start, end))
    return joined


def cut(text: str, spans: Sequence[tuple[int, int]]) -> str:
    """The text without the spans (start, end, in characters); without any, the text as it is.

    Blank lines that the cuts bring together become one, and lines lose the spaces that they then end in.
    """
    kept, place = [], 0
    for start, end in merged(spans):
        kept.append(text[place:start])
        place = end
    if not place:
        return text
    return _BLANK_LINES.sub("\n\n", _LINE_END.sub("", "".join([*kept, text[place:]]))).strip("\n")
