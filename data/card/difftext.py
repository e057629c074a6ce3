"""Render a data diff for the terminal: only what changed."""

from typing import Any

from sluice.data.card.diff import DataDiff, Moved
from sluice.data.card.numbers import count, share, signed, size

_MOST = 12
"""Lines of a block; the others are only counted."""


def render_text(found: DataDiff) -> str:
    """Render the totals and then a block for each kind of difference."""
    a, b = found.a, found.b
    grown = b.bytes_kept - a.bytes_kept
    whole = found.only_a + found.only_b + found.both
    verdict = (
        f"The same {count(found.both)} documents are kept."
        if found.same
        else f"{count(found.both)} kept in both ({share(found.both, whole)}), {count(found.only_a)} only in A, "
        f"{count(found.only_b)} only in B"
    )
    by_source = sorted(found.by_source.items(), key=lambda entry: -entry[1].only_a - entry[1].only_b)
    sources = [
        [name, count(each.only_a), count(each.only_b), count(each.both)]
        for name, each in by_source
        if each.only_a or each.only_b
    ]
    changed = [f"{each.source} {each.path}: {each.id_a[:12]} -> {each.id_b[:12]}" for each in found.changed_examples]
    changed += ["..."] if found.changed > len(changed) else []
    rules = [[rule, *_both(left, right)] for rule, (left, right) in found.dropped.items() if left != right]
    settings = [[key, _value(left), _value(right)] for key, (left, right) in found.parameters.items()]
    lines = [
        f"A {a.folder}  {a.content_sha256[:12]}",
        f"B {b.folder}  {b.content_sha256[:12]}",
        "",
        *_columns(
            [
                ["", "A", "B", "B - A"],
                ["documents read", *_both(a.documents_in, b.documents_in)],
                ["documents kept", *_both(a.documents_kept, b.documents_kept)],
                ["clean text", size(a.bytes_kept), size(b.bytes_kept), f"{'+' if grown > 0 else ''}{size(grown)}"],
                *([["tokens", *_both(a.tokens, b.tokens)]] if a.tokens is not None and b.tokens is not None else []),
            ]
        ),
        "",
        verdict,
    ]
    for title, block in (
        ("kept documents by source", _capped([["source", "only A", "only B", "both"], *sources]) if sources else []),
        (f"{count(found.changed)} changed at the same source and path", changed),
        (f"{count(found.kept_to_dropped.documents)} kept in A, dropped in B", _moved(found.kept_to_dropped)),
        (f"{count(found.dropped_to_kept.documents)} dropped in A, kept in B", _moved(found.dropped_to_kept)),
        ("dropped by rule", _columns([["rule", "A", "B", "B - A"], *rules]) if rules else []),
        ("settings that differ", _capped([["setting", "A", "B"], *settings]) if settings else []),
    ):
        if block:
            lines += ["", title, *(f"  {line}" for line in block)]
    return "\n".join(line.rstrip() for line in lines) + "\n"


def _moved(moved: Moved) -> list[str]:
    if not moved.documents:
        return []
    lines = _columns([[rule, count(amount)] for rule, amount in moved.rules.items()])
    more = ", ..." if moved.documents > len(moved.examples) else ""
    return [*lines, f"ids: {', '.join(name[:12] for name in moved.examples)}{more}"]


def _value(value: Any) -> str:
    text = "off" if value is None else " ".join(str(value).split())
    return text if len(text) <= 40 else f"{text[:39]}…"


def _both(left: int | None, right: int | None) -> list[str]:
    assert left is not None and right is not None
    return [count(left), count(right), signed(right - left)]


def _capped(rows: list[list[str]]) -> list[str]:
    lines = _columns(rows[: _MOST + 1])
    return [*lines, f"and {len(rows) - _MOST - 1} more"] if len(rows) > _MOST + 1 else lines


def _columns(rows: list[list[str]]) -> list[str]:
    """Align names to the left and figures to the right."""
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
    return [
        "  ".join(cell.rjust(width) if place else cell.ljust(width) for place, (cell, width) in enumerate(cells))
        for cells in (zip(row, widths, strict=True) for row in rows)
    ]
