"""Charts as SVG text: pure functions of numbers. Colours are CSS classes, so one chart serves light and dark mode.

Every chart has a title and a description for screen readers. matplotlib's charts have neither these nor classes, are
several times as large in a page that holds some twenty of them, and it has no Sankey diagram of this kind.
"""

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from sluice.data.card.numbers import count, number

WIDTH = 380
"""Width of a chart in its own units; a phone or half a desktop page shows it at about this many pixels."""


_LINE = 16


@dataclass(frozen=True)
class Bar:
    """One row of `bars`; `kind` is the CSS class that colours it."""

    label: str
    value: float
    note: str = ""
    """Text at the right end; empty: the value."""
    kind: str = "kept"


@dataclass(frozen=True)
class Series:
    """Counts in the bins of a histogram, [bins]; several are drawn over each other, so the first is the largest."""

    label: str
    counts: Sequence[int]
    kind: str = "kept"


@dataclass(frozen=True)
class Threshold:
    """A bound in force; the failing side is shaded."""

    value: float
    is_minimum: bool

    def fails(self, low: float, high: float) -> bool:
        """Return whether no value of the bin [low, high) passes; a value at the bound does."""
        return high <= self.value if self.is_minimum else low > self.value

    @property
    def text(self) -> str:
        return f"{'min' if self.is_minimum else 'max'} {number(self.value)}"


def frame(width: float, height: float, title: str, description: str, body: str, *, kind: str = "") -> str:
    """Wrap `body` in an `<svg>` element with title and description."""
    shown = f' class="{escape(kind)}"' if kind else ""
    return (
        f'<svg{shown} viewBox="0 0 {width:g} {height:g}" role="img" aria-label="{escape(title)}. '
        f'{escape(description)}">\n<title>{escape(title)}</title>\n<desc>{escape(description)}</desc>\n{body}\n</svg>'
    )


def shorten(text: str, characters: int) -> str:
    """Shorten `text` to this many characters in the middle, because names differ at their ends."""
    if len(text) <= characters:
        return text
    head = (characters - 1) * 2 // 3
    return f"{text[:head]}…{text[len(text) - (characters - 1 - head) :]}"


def wrap(text: str, characters: int, lines: int = 4) -> list[str]:
    """Wrap `text` into at most `lines` lines of this many characters, truncated at the end."""
    return textwrap.wrap(text, characters, max_lines=lines, placeholder=" …") or [""]


def bars(rows: Sequence[Bar], *, title: str, description: str) -> str:
    """Draw horizontal bars from zero, label and figure above each; a non-zero bar is always visible."""
    top = max((row.value for row in rows), default=0) or 1
    shapes: list[str] = []
    y = 0
    for row in rows:
        note = row.note or count(row.value)
        label = wrap(row.label, max(10, 50 - len(note)))
        length = f"{max(row.value / top * WIDTH, 1.5) if row.value else 0:.1f}"
        first, *others = map(escape, label)
        # A space separates the lines for screen readers.
        lines = first + "".join(f' <tspan x="0" dy="{_LINE}">{line}</tspan>' for line in others)
        shapes += [
            f'<text x="0" y="{y + 13}">{lines}</text>',
            f'<text class="figure" x="{WIDTH}" y="{y + 13}" text-anchor="end">{escape(note)}</text>',
        ]
        y += (len(label) - 1) * _LINE
        shapes += [
            f'<rect class="track" x="0" y="{y + 18}" width="{WIDTH}" height="7" rx="2"/>',
            f'<rect class="{escape(row.kind)}" x="0" y="{y + 18}" width="{length}" height="7" rx="2"/>',
        ]
        y += 32
    return frame(WIDTH, max(y, 1), title, description, "\n".join(shapes))


def histogram(
    edges: Sequence[float],
    series: Sequence[Series],
    *,
    title: str,
    description: str,
    thresholds: Sequence[Threshold] = (),
    log: bool = False,
) -> str:
    """Draw bins between increasing `edges` [bins + 1]; `log` makes the axis logarithmic (edges above 0).

    Heights are proportional to the square root of the count: a spike at zero would hide the tail that a threshold cuts.
    """
    assert all(len(each.counts) == len(edges) - 1 for each in series)
    left, right, top, base = 4.0, WIDTH - 4.0, 36.0, 160.0
    axis = _Axis(edges[0], edges[-1], left, right, log)
    most = max((max(each.counts, default=0) for each in series), default=0) or 1
    shapes = []
    for threshold in thresholds:
        x = axis.at(threshold.value)
        start, end = (left, x) if threshold.is_minimum else (x, right)
        place = f'x="{start:.1f}" y="{top:g}" width="{end - start:.1f}" height="{base - top:g}"'
        shapes.append(f'<rect class="dropped-side" {place}/>')
    for each in series:
        for low, high, amount in zip(edges, edges[1:], each.counts, strict=False):
            if amount:
                x, end = axis.at(low), axis.at(high)
                tall = max((base - top) * math.sqrt(amount / most), 1.0)
                fails = any(threshold.fails(low, high) for threshold in thresholds)
                kind = escape("quality" if fails else each.kind)
                shapes.append(
                    f'<rect class="{kind}" x="{x + 0.4:.1f}" y="{base - tall:.1f}" '
                    f'width="{max(end - x - 0.8, 0.6):.1f}" height="{tall:.1f}"/>'
                )
    shapes.append(f'<path class="axis" d="M{left:g} {base + 0.5:g}H{right:g}"/>')
    shapes.append(f'<text class="soft" x="{right:g}" y="12" text-anchor="end">highest bar {count(most)}</text>')
    for value in axis.ticks():
        x = axis.at(value)
        anchor = "start" if x < left + 14 else "end" if x > right - 14 else "middle"
        shapes.append(f'<path class="axis" d="M{x:.1f} {base:g}v4"/>')
        shapes[-1] += f'<text class="soft" x="{x:.1f}" y="{base + 18:g}" text-anchor="{anchor}">{number(value)}</text>'
    shapes += [_threshold(axis, each, top, base) for each in thresholds]
    if not thresholds:
        shapes += _legend(series)
    return frame(WIDTH, base + 24, title, description, "\n".join(shapes))


@dataclass(frozen=True)
class _Axis:
    """Map values to x positions; values beyond an end are drawn at that end."""

    low: float
    high: float
    left: float
    right: float
    log: bool

    def at(self, value: float) -> float:
        low, high = self.low, self.high
        if self.log:
            low, high, value = (math.log10(max(each, self.low, 1e-12)) for each in (low, high, value))
        place = (value - low) / (high - low) if high > low else 0.5
        return self.left + min(max(place, 0.0), 1.0) * (self.right - self.left)

    def ticks(self) -> list[float]:
        """About five round values inside the axis."""
        if self.log:
            powers = range(math.ceil(math.log10(self.low) - 1e-9), math.floor(math.log10(self.high) + 1e-9) + 1)
            return [10.0**power for power in powers]
        span = self.high - self.low
        if span <= 0:
            return [self.low]
        rough = span / 4
        unit = 10.0 ** math.floor(math.log10(rough))
        step = next(unit * each for each in (1, 2, 5, 10) if unit * each >= rough * 0.999)
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        # By whole steps and rounded: adding up steps would print 0.30000000000000004.
        return [float(f"{each * step:.10g}") for each in range(first, last + 1)]


def _threshold(axis: _Axis, threshold: Threshold, top: float, base: float) -> str:
    x = axis.at(threshold.value)
    # Beside the line, on the passing side, so that the labels of two bounds of one score do not overlap.
    anchor, place = ("start", x + 5) if threshold.is_minimum else ("end", x - 5)
    if not axis.left + 80 < place < axis.right - 80:
        anchor, place = ("start", max(x, axis.left) + 5) if x < WIDTH / 2 else ("end", min(x, axis.right) - 5)
    line = f'<path class="threshold" d="M{x:.1f} {top - 10:g}V{base:g}"/>'
    text = threshold.text + (" →" if threshold.value > axis.high else "")
    return f'{line}<text class="bound" x="{place:.1f}" y="{top - 1:g}" text-anchor="{anchor}">{text}</text>'


def _legend(series: Sequence[Series]) -> list[str]:
    if len(series) < 2:
        return []
    shapes, x = [], 4.0
    for each in series:
        shapes.append(f'<rect class="{escape(each.kind)}" x="{x:.1f}" y="3" width="10" height="10" rx="2"/>')
        shapes.append(f'<text x="{x + 15:.1f}" y="12">{escape(each.label)}</text>')
        x += 34 + 7 * len(each.label)
    return shapes
