"""Cut spans of characters out of a text, and clean up the white space around the cuts."""

import re
from collections.abc import Sequence
from itertools import accumulate

_WHITE_SPACE = " \t\r\n"
_GAP = re.compile(f"[{_WHITE_SPACE}]*")


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

    White space around a cut becomes one gap: at most one blank line, no spaces at the end of a line, none at the end of
    the text. All other text stays as it is.
    """
    removed = merged(spans)
    edges = [0, *(edge for span in removed for edge in span), len(text)]
    pieces = [text[start:end] for start, end in zip(edges[::2], edges[1::2], strict=True)]
    rest = "".join(pieces)
    joints = list(accumulate(map(len, pieces[:-1])))
    kept, position = [], 0
    for joint in joints:
        if joint < position:
            continue  # within the gap of the cut before
        start = position + len(rest[position:joint].rstrip(_WHITE_SPACE))
        gap = _GAP.match(rest, joint)
        assert gap is not None
        end = gap.end()
        kept.append(rest[position:start])
        if end < len(rest):
            space = rest[start:end]
            breaks = 0 if not start else min(space.count("\n"), 2)
            kept += [("\r\n" if "\r\n" in space else "\n") * breaks, space[space.rfind("\n") + 1 :]]
        position = end
    return "".join([*kept, rest[position:]])
