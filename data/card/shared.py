"""The words that a document shares with evaluation sets, marked, between a little context."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from sluice.data.decontamination.spans import Span, character_spans

PLACES = 2
"""Shared runs that are shown of one document; the others are counted."""
_CONTEXT = 70
"""Characters on either side of what is marked."""
_MARKED = 260
"""Characters of a marked run before it is cut."""
_BLANK_LINES = re.compile(r"\n\s*\n")


@dataclass(frozen=True)
class Part:
    """A run of an excerpt."""

    text: str
    set: str = ""
    """Evaluation set that it is shared with, to be marked; empty: context."""


def shared_parts(text: str, spans: Sequence[Span]) -> list[Part]:
    """The first of `spans`, which ascend, with their context. The parts follow one another without a gap."""
    found: list[Part] = []
    reached = 0
    shown = spans[:PLACES]
    for span, (first, end) in zip(shown, character_spans(text, shown), strict=True):
        # Two sets may share the same words: what is shown is not shown again.
        start = max(first, reached)
        if start < end:
            found += [Part(_context(text, reached, start)), Part(_cut(text[start:end]), span.set)]
            reached = end
    found.append(Part(_context(text, reached, len(text))))
    if more := len(spans) - len(shown):
        found.append(Part(f"\n{more} more {'run' if more == 1 else 'runs'}"))
    return [part for part in found if part.text]


def _context(text: str, start: int, end: int) -> str:
    """What stands in [start, end): all of it if that is little, else what is near to a mark, in whole words."""
    gap = text[start:end]
    head, tail = (_CONTEXT if start else 0), (_CONTEXT if end < len(text) else 0)
    if len(gap) > head + tail:
        before = re.sub(r"\S*\Z", "", gap[:head]).rstrip()
        after = re.sub(r"\A\S*", "", gap[len(gap) - tail :]).lstrip() if tail else ""
        gap = " … ".join((before, after)) if before and after else f"{before} …" if before else f"… {after}"
    return _BLANK_LINES.sub("\n", gap)


def _cut(marked: str) -> str:
    closed = _BLANK_LINES.sub("\n", marked)
    return closed if len(closed) <= _MARKED else f"{closed[:_MARKED].rpartition(' ')[0] or closed[:_MARKED]} …"
