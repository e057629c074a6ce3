"""The page and its regions as HTML. All text is escaped; the charts escape their own."""

import dataclasses
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from sluice.serving.page import charts
from sluice.serving.page.view_model import PageView

FOLDER = Path(__file__).parent
REGIONS = (
    "health", "announcement", "notices", "traffic", "actions", "rollout", "signals", "versions", "latency", "verdict",
    "alerts", "entries",
)  # fmt: skip
"""Parts of the page that live updates replace, each by the element of that id."""
HISTORY_POINTS = 90


@dataclasses.dataclass(frozen=True)
class Latencies:
    """Each version's p95 over the last minute, in ms, at successive times."""

    points: tuple[Mapping[str, float | None], ...] = ()
    kinds: tuple[tuple[str, str], ...] = ()
    """Version and CSS class of its line."""


def regions(view: PageView, latencies: Latencies, *, may_release: bool) -> dict[str, Any]:
    """Return what each region shows. A region has to be drawn again only if this has changed."""
    found = {name: getattr(view, name) for name in REGIONS if name != "latency"}
    return {
        **found,
        "rollout": (view.rollout, view.traffic),
        "latency": latencies,
        "actions": (view.actions, may_release),
    }


def render_region(name: str, shown: Any) -> str:
    """Return the HTML inside the region `name`."""
    return _environment().get_template(f"{name}.html.j2").render(shown=shown)


def render_page(shown: Mapping[str, Any], *, csrf: str, key_name: str, role: str) -> str:
    """Return the whole page. `csrf` goes with every request that changes something."""
    html = {name: render_region(name, each) for name, each in shown.items()}
    return _environment().get_template("page.html.j2").render(regions=html, csrf=csrf, key_name=key_name, role=role)


def render_login(message: str = "") -> str:
    """Return the log-in form, with the reason why the last key was refused."""
    return _environment().get_template("login.html.j2").render(message=message)


def latencies_of(points: Sequence[Mapping[str, float | None]], view: PageView) -> Latencies:
    """Return the lines to draw: those of the versions that serve or were measured, by their role."""
    measured = {name for point in points for name, value in point.items() if value is not None}
    kinds = {each.name.removeprefix("v"): each.role for each in view.versions}
    return Latencies(
        tuple(points),
        tuple((name, kinds.get(name, "gone").replace(" ", "-")) for name in sorted(measured)),
    )


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(FOLDER / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    environment.globals |= {
        "evidence_bars": charts.evidence_bars,
        "evidence_axis": charts.evidence_axis,
        "share_bars": charts.share_bars,
        "latency_lines": charts.latency_lines,
        "history_points": HISTORY_POINTS,
    }
    return environment
