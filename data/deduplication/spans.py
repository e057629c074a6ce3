"""Cut spans of characters out of a text, and clean up the white space around the cuts."""

import re
from collections.abc import Sequence

_BLANK_LINES = re.compile(r"\n(?:[ \t]*\n)+")
_LINE_END = re.compile(r"[ \t]+(?=\n|\Z)")


def merged(spans: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Merge spans (start, end) that touch or overlap; sorted."""
    joined: list[tuple[int, int]] = []
    for start, end in sorted(span for span in spans if span[0] < span[1]):
        if joined and start <= joined[-1][1]:
            joined[-1] = joined[-1][0], max(end, joined[-1][1])
        else:
            joined.append((start, end))
    return joined


def cut(text: str, spans: Sequence[tuple[int, int]]) -> str:
    """Remove the spans (start, end, in characters); without any, the text is unchanged.

    Blank lines that become neighbours are merged, and trailing spaces are removed.
    """
    kept, position = [], 0
    for start, end in merged(spans):
        kept.append(text[position:start])
        position = end
    if not position:
        return text
    return _BLANK_LINES.sub("\n\n", _LINE_END.sub("", "".join([*kept, text[position:]]))).strip("\n")
