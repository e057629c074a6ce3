"""Charts of the page as inline SVG, from plain numbers. Pure; every text in them is escaped."""

from collections.abc import Mapping, Sequence

from markupsafe import Markup, escape

from sluice.serving.page.view_model import SignalView, TrafficView, place

E_WIDTH, E_HEIGHT = 260, 30
LINE_WIDTH, LINE_HEIGHT, LINE_LEFT = 560, 200, 46
DECADES = (0.001, 0.01, 0.1, 1, 10, 100, 1000, 10_000)


def evidence_bars(signal: SignalView) -> Markup:
    """Draw both e-values of a signal from 1, where there is no evidence, on a log scale beside the threshold.

    For the eye alone: the numbers are in the table around it.
    """
    parts = [
        _line(place(decade) * E_WIDTH, 2, E_HEIGHT - 2, "one" if decade == 1 else "decade") for decade in DECADES[1:-1]
    ]
    for top, kind, found in ((4, "advance", signal.advance), (16, "drop", signal.drop)):
        if found is not None:
            left, right = sorted((place(1.0), found.position))
            shown = " shown" if found.is_shown else ""
            parts.append(
                f'<rect class="{kind}{shown}" x="{left * E_WIDTH:.1f}" y="{top}" '
                f'width="{max((right - left) * E_WIDTH, 1.5):.1f}" height="10" rx="2"/>'
            )
    parts.append(_line(signal.threshold.position * E_WIDTH, 0, E_HEIGHT, "threshold"))
    return _svg(E_WIDTH, E_HEIGHT, "evidence", parts)


def evidence_axis() -> Markup:
    """Draw the axis of `evidence_bars`."""
    labels = {0.01: "0.01", 1: "1", 100: "100"}
    parts = [
        f'<text x="{place(at) * E_WIDTH:.1f}" y="11" text-anchor="middle">{text}</text>' for at, text in labels.items()
    ]
    return _svg(E_WIDTH, 14, "evidence", parts)


def share_bars(traffic: TrafficView) -> Markup:
    """Draw the challenger's wanted share of the traffic above the actual one."""
    parts = []
    for top, percent, kind in ((0, traffic.wanted, "wanted"), (16, traffic.actual, "actual")):
        parts.append(f'<rect class="track" x="0" y="{top}" width="400" height="12" rx="3"/>')
        if percent:
            parts.append(f'<rect class="{kind}" x="1" y="{top + 1}" width="{4 * percent - 2}" height="10" rx="2"/>')
    return _svg(400, 28, "share", parts, stretched=True)


def latency_lines(points: Sequence[Mapping[str, float | None]], kinds: Mapping[str, str], size: int) -> Markup:
    """Draw a line for each version through its p95 in `points` (oldest first, at most `size`), labelled at its end.

    `kinds` maps a version to its CSS class.
    """
    values = [value for point in points for value in point.values() if value is not None]
    top = max([1.0, *values]) * 1.15
    right = LINE_WIDTH - 40

    def x(index: int) -> float:
        return LINE_LEFT + (right - LINE_LEFT) * (index + size - len(points)) / max(1, size - 1)

    def y(value: float) -> float:
        return LINE_HEIGHT - 12 - (LINE_HEIGHT - 24) * value / top

    parts = [
        f'<line class="decade" x1="{LINE_LEFT}" x2="{right}" y1="{y(value):.1f}" y2="{y(value):.1f}"/>'
        f'<text x="{LINE_LEFT - 8}" y="{y(value) + 4:.1f}" text-anchor="end">{value:.3g}</text>'
        for value in (0.0, top / 2, top)
    ]
    for version, kind in kinds.items():
        path, last, is_down = "", None, False
        for index, point in enumerate(points):
            value = point.get(version)
            if value is None:
                is_down = False
                continue
            # A single point is drawn too: a line of no length with a round cap.
            path += f"L{x(index):.1f} {y(value):.1f}" if is_down else f"M{x(index):.1f} {y(value):.1f}h.01"
            is_down, last = True, (index, value)
        if last is not None:
            parts.append(f'<path class="{escape(kind)}" d="{path}"/>')
            parts.append(f'<text x="{x(last[0]) + 6:.1f}" y="{y(last[1]) + 4:.1f}">v{escape(version)}</text>')
    return _svg(LINE_WIDTH, LINE_HEIGHT, "latency", parts)


def _line(x: float, top: float, bottom: float, kind: str) -> str:
    return f'<line class="{kind}" x1="{x:.1f}" x2="{x:.1f}" y1="{top}" y2="{bottom}"/>'


def _svg(width: int, height: int, kind: str, parts: Sequence[str], *, stretched: bool = False) -> Markup:
    box = f'viewBox="0 0 {width} {height}"' + (' preserveAspectRatio="none"' if stretched else "")
    # Its texts are escaped above; all else is numbers and class names of ours.
    return Markup(f'<svg class="{kind}" {box} aria-hidden="true" focusable="false">{"".join(parts)}</svg>')  # noqa: S704
