"""The funnel as a cascade of bars, one flow a line, for pages too narrow for the Sankey diagram."""

from collections.abc import Sequence
from html import escape

from sluice.data.card.charts import WIDTH, frame, shorten
from sluice.data.card.numbers import count
from sluice.data.card.sankey import Flow, Gate

_ROW = 32
_LABEL = 38
"""Characters that fit above a bar beside its figure."""


def cascade(sources: Sequence[Flow], gates: Sequence[Gate], *, title: str, description: str) -> str:
    """Draw the cascade: sources add up from the left; drops are at the right end of what reached their gate.

    Raises ValueError if a gate drops more than reaches it.
    """
    total = sum(flow.value for flow in sources)
    rows: list[str] = []
    start = 0
    for flow in sources:
        _row(rows, flow, start, total)
        start += flow.value
    _row(rows, Flow("read", total), 0, total, strong=True)
    left = total
    for number, gate in enumerate(gates):
        reached = left
        for flow in gate.drops:
            left -= flow.value
            if left < 0:
                dropped = sum(each.value for each in gate.drops)
                raise ValueError(f"{gate.label}: {dropped} dropped of {reached}: the report contradicts itself")
            _row(rows, flow, left, total)
        kind = "kept" if number == len(gates) - 1 else "source"
        _row(rows, Flow(gate.label, left, kind), 0, total, strong=True)
    return frame(WIDTH, len(rows) * _ROW, title, description, "\n".join(rows), kind="cascade")


def _row(rows: list[str], flow: Flow, start: int, total: int, *, strong: bool = False) -> None:
    """Draw label and figure above the bar of [start, start + value) of `total`; a non-zero bar is always visible."""
    y, scale = len(rows) * _ROW, WIDTH / max(total, 1)
    width = max(flow.value * scale, 1.5) if flow.value else 0.0
    x = min(start * scale, WIDTH - width)
    weight = ' class="strong"' if strong else ""
    rows.append(
        f'<text{weight} x="0" y="{y + 13}">{escape(shorten(flow.label, _LABEL))}</text>'
        f'<text class="figure" x="{WIDTH}" y="{y + 13}" text-anchor="end">{count(flow.value)}</text>'
        f'<rect class="track" x="0" y="{y + 18}" width="{WIDTH}" height="7" rx="2"/>'
        f'<rect class="{escape(flow.kind)}" x="{x:.1f}" y="{y + 18}" width="{width:.1f}" height="7" rx="2"/>'
    )
