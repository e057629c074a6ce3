"""Geometry of the evaluation page's drawings, in pixels: the template only writes them down."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sluice.core.check import Check

CHECK_WIDTH, CHECK_HEIGHT = 260, 40
_MARGIN = 14
BAR_LEFT, BAR_WIDTH, BAR_ROW = 150, 330, 30
PLOT = 200


@dataclass(frozen=True)
class CheckDrawing:
    """A check on its own scale: its value, interval and bound from left to right."""

    bound: float
    anchor: str
    """Side of the bound's label on which the text is anchored: start, middle or end."""
    point: float | None
    low: float | None
    high: float | None
    is_open_low: bool
    """Whether the interval has no end on this side."""
    is_open_high: bool


def draw_check(check: Check) -> CheckDrawing:
    """Place a check's numbers on a line. A paired check is drawn as its difference, as its interval is."""
    point = check.value
    if point is not None and check.baseline is not None:
        point -= check.baseline
    low, high = check.interval or (None, None)
    known = [each for each in (point, low, high, check.bound) if each is not None]
    span = max(known) - min(known) or abs(check.bound) or 1.0
    left, scale = min(known) - 0.05 * span, (CHECK_WIDTH - 2 * _MARGIN) / (1.1 * span)

    def place(value: float | None) -> float | None:
        return None if value is None else _MARGIN + (value - left) * scale

    at = place(check.bound)
    assert at is not None
    anchor = "start" if at < CHECK_WIDTH / 3 else "end" if at > 2 * CHECK_WIDTH / 3 else "middle"
    has_interval = check.interval is not None and point is not None
    return CheckDrawing(
        at,
        anchor,
        place(point),
        (place(low) if low is not None else 2.0) if has_interval else None,
        (place(high) if high is not None else CHECK_WIDTH - 2.0) if has_interval else None,
        has_interval and low is None,
        has_interval and high is None,
    )


def draw_bars(results: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the bars of bits per byte in pixels from the left edge of the chart, the model's with its interval."""
    own = results.get("metrics", {}).get("bits_per_byte")
    if own is None:
        return []
    entries = [("this model", own["value"], own["interval"])]
    entries += [(name, baseline["bits_per_byte"], None) for name, baseline in results.get("baselines", {}).items()]
    known = [end for _, value, ends in entries for end in (value, *(ends or ())) if end is not None]
    scale = BAR_WIDTH / max(known, default=1.0)
    bars = []
    for name, value, ends in entries:
        length = None if value is None else scale * value
        whisker = None if ends is None or None in ends else [scale * end for end in ends]
        reach = None if length is None else max([length, *(whisker or [])[1:]])
        bars.append({"name": name, "value": value, "length": length, "whisker": whisker, "reach": reach})
    return bars


def draw_reliability(bins: Sequence[Mapping[str, Any]]) -> list[dict[str, float]]:
    """Return the bars of a reliability table on a square of PLOT pixels: share of right answers by confidence.

    A bar's `weight` grows with its answers, for its opacity.
    """
    most = max((each["n"] for each in bins), default=1)
    return [
        {
            "x": PLOT * each["low"],
            "width": PLOT * (each["high"] - each["low"]),
            "y": PLOT * (1 - each["accuracy"]),
            "height": PLOT * each["accuracy"],
            "confidence": PLOT * each["confidence"],
            "n": each["n"],
            "weight": 0.3 + 0.7 * each["n"] / most,
        }
        for each in bins
        if each["n"] and each.get("accuracy") is not None
    ]
