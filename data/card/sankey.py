"""A Sankey diagram of the funnel: sources from the left, what passes each gate on top, what is dropped below."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from sluice.data.card.charts import frame, shorten
from sluice.data.card.numbers import count

_TALL = 300.0
"""Height of all sources together."""
_NODE = 10.0
_PITCH = 20.0
"""Minimum distance of two labels."""
_HEADING = 44.0
_LABELS = 210.0
_STEP = 232.0


@dataclass(frozen=True)
class Flow:
    """Documents of one source, or dropped for one reason."""

    label: str
    value: int
    kind: str = "source"


@dataclass(frozen=True)
class Gate:
    """A gate and what it drops; the others go on to the next."""

    label: str
    """Label of what passes the gate."""
    drops: Sequence[Flow]


@dataclass(frozen=True)
class _Box:
    x: float
    y: float
    height: float


def fold(flows: Sequence[Flow], most: int, rest: str) -> list[Flow]:
    """Return the largest `most` flows in descending order, the others merged into one named `{n} {rest}`."""
    ranked = sorted(flows, key=lambda flow: (-flow.value, flow.label))
    if len(ranked) <= most:
        return ranked
    tail = ranked[most - 1 :]
    return [*ranked[: most - 1], Flow(f"{len(tail)} {rest}", sum(flow.value for flow in tail), tail[0].kind)]


def sankey(sources: Sequence[Flow], gates: Sequence[Gate], *, title: str, description: str) -> str:
    """Draw the diagram. Raises ValueError if a gate drops more than reaches it."""
    total = sum(flow.value for flow in sources)
    scale = _TALL / max(total, 1)
    shapes: list[str] = []
    spine = _Box(_LABELS + 150, _HEADING, total * scale)
    depth = _sources(sources, spine, scale, shapes)
    _heading(shapes, spine, "read", total)
    left = total
    for number, gate in enumerate(gates):
        last = number == len(gates) - 1
        reached, left = left, left - sum(flow.value for flow in gate.drops)
        if left < 0:
            raise ValueError(f"{gate.label}: {reached - left} dropped of {reached}: the report contradicts itself")
        behind = _Box(spine.x + (150 if not gate.drops else _STEP), _HEADING, left * scale)
        _ribbon(shapes, _Box(spine.x, spine.y, behind.height), behind, "kept" if last else "source")
        depth = max(depth, _drops(gate.drops, spine, behind, scale, shapes))
        _heading(shapes, behind, gate.label, left, strong=last)
        _node(shapes, behind, "kept" if last else "source")
        spine = behind
    width = spine.x + (_LABELS if gates and gates[-1].drops else 80)
    return frame(width, depth + 12, title, description, "\n".join(shapes), kind="sankey")


def _sources(sources: Sequence[Flow], spine: _Box, scale: float, shapes: list[str]) -> float:
    """Draw the sources into `spine`; return the y position of their end."""
    y, landed = _HEADING, spine.y
    for flow in sources:
        box = _Box(_LABELS, y, flow.value * scale)
        _ribbon(shapes, box, _Box(spine.x, landed, box.height), flow.kind)
        _node(shapes, box, flow.kind)
        middle = y + max(box.height, 2) / 2 + 4
        shapes.append(
            f'<text x="{_LABELS - 8:g}" y="{middle:.1f}" text-anchor="end">{escape(shorten(flow.label, 22))} '
            f'<tspan class="soft">{count(flow.value)}</tspan></text>'
        )
        landed += box.height
        y += max(box.height + 4, _PITCH)
    _node(shapes, spine, "source")
    return max(y, spine.y + spine.height)


def _drops(drops: Sequence[Flow], spine: _Box, behind: _Box, scale: float, shapes: list[str]) -> float:
    """Draw what a gate drops below what passes; return the y position of its end."""
    y, leaves = behind.y + behind.height + 24, behind.y + behind.height
    for flow in drops:
        box = _Box(behind.x, y, flow.value * scale)
        _ribbon(shapes, _Box(spine.x, leaves, box.height), box, flow.kind)
        _node(shapes, box, flow.kind)
        middle = y + max(box.height, 2) / 2 + 4
        shapes.append(
            f'<text x="{behind.x + _NODE + 7:.1f}" y="{middle:.1f}">{escape(shorten(flow.label, 23))} '
            f'<tspan class="soft">{count(flow.value)}</tspan></text>'
        )
        leaves += box.height
        y += max(box.height + 4, _PITCH)
    return y


def _heading(shapes: list[str], box: _Box, label: str, value: int, *, strong: bool = False) -> None:
    weight = ' class="strong"' if strong else ""
    shapes.append(
        f'<text{weight} x="{box.x:.1f}" y="15">{escape(label)}</text>'
        f'<text class="figure" x="{box.x:.1f}" y="33">{count(value)}</text>'
    )


def _node(shapes: list[str], box: _Box, kind: str) -> None:
    shapes.append(
        f'<rect class="{escape(kind)}" x="{box.x:.1f}" y="{box.y:.1f}" width="{_NODE:g}" '
        f'height="{max(box.height, 2):.1f}" rx="1"/>'
    )


def _ribbon(shapes: list[str], start: _Box, end: _Box, kind: str) -> None:
    """Draw a band from the right side of one box to the left side of another."""
    x, to = start.x + _NODE, end.x
    bend = (x + to) / 2
    tall, wide = max(start.height, 1), max(end.height, 1)
    shapes.append(
        f'<path class="ribbon {escape(kind)}" d="M{x:.1f} {start.y:.1f}C{bend:.1f} {start.y:.1f} {bend:.1f} '
        f"{end.y:.1f} {to:.1f} {end.y:.1f}V{end.y + wide:.1f}C{bend:.1f} {end.y + wide:.1f} {bend:.1f} "
        f'{start.y + tall:.1f} {x:.1f} {start.y + tall:.1f}Z"/>'
    )
