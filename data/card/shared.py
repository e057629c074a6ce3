"""Excerpts with the words that a document shares with evaluation sets marked."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from sluice.data.decontamination.spans import SharedSpan, character_spans

PLACES = 2
"""Shared runs shown of one document; the others are counted."""
_CONTEXT = 70
"""Characters on either side of a marked run."""
_MARKED = 260
"""Characters of a marked run before it is truncated."""
_BLANK_LINES = re.compile(r"\n\s*\n")


@dataclass(frozen=True)
class Part:
    """A run of an excerpt."""

    text: str
    set: str = ""
    """Evaluation set that a marked run is shared with; empty: context."""


def shared_parts(text: str, spans: Sequence[SharedSpan]) -> list[Part]:
    """Return the first of the ascending `spans` with their context, as consecutive parts."""
    found: list[Part] = []
    reached = 0
    shown = spans[:PLACES]
    for span, (first, end) in zip(shown, character_spans(text, shown), strict=True):
        # Two sets may share the same words, which are shown once.
        start = max(first, reached)
        if start < end:
            marked = _BLANK_LINES.sub("\n", text[start:end])
            if len(marked) > _MARKED:
                marked = f"{marked[:_MARKED].rpartition(' ')[0] or marked[:_MARKED]} …"
            found += [Part(_context(text, reached, start)), Part(marked, span.set)]
            reached = end
    found.append(Part(_context(text, reached, len(text))))
    if more := len(spans) - len(shown):
        found.append(Part(f"\n{more} more {'run' if more == 1 else 'runs'}"))
    return [part for part in found if part.text]


def _context(text: str, start: int, end: int) -> str:
    """Return the text in [start, end) if it is short, otherwise the whole words near the marks."""
    gap = text[start:end]
    head, tail = (_CONTEXT if start else 0), (_CONTEXT if end < len(text) else 0)
    if len(gap) > head + tail:
        before = re.sub(r"\S*\Z", "", gap[:head]).rstrip()
        after = re.sub(r"\A\S*", "", gap[len(gap) - tail :]).lstrip() if tail else ""
        gap = " … ".join((before, after)) if before and after else f"{before} …" if before else f"… {after}"
    return _BLANK_LINES.sub("\n", gap)
