"""evaluation.html: one page without outside assets, the same bytes for the same results."""

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from sluice.core.check import Check
from sluice.model.evaluation import drawings
from sluice.model.evaluation.explain import describe, named_reason, role_of_baseline, summary_line
from sluice.model.evaluation.lost_items import LostItem
from sluice.model.evaluation.metrics import METRICS
from sluice.model.evaluation.verdict import Verdict

REPORT_FILE = "evaluation.html"

BASELINE_TITLES = {"ngram_order_5": "byte n-gram, order 5", "xz_9": "xz -9"}
_KINDS = {
    "difference": ("difference", "candidate − {role}"),
    "over_reference": ("over reference", "candidate − byte n-gram"),
    "budget": ("budget", "candidate − anchor"),
    "tail": ("tail", "share of documents much worse"),
    "lost": ("lost", "answers lost"),
}
"""Addition to a metric's title, and the value measured, by the end of a check's name."""
_RATES = {"tail": "{:.1%}".format, "lost": "{:.0f}".format}
"""Numbers of checks that are not in the metric's unit."""
_CHECK = re.compile(rf"(?P<metric>.+?)(?:_(?P<kind>{'|'.join(_KINDS)}))?(?:\[(?P<slice>.+)\])?")


def render(
    results: Mapping[str, Any],
    golden: Sequence[Mapping[str, Any]],
    verdict: Verdict | None = None,
    lost: Sequence[LostItem] = (),
) -> str:
    """Render the page for results.json and golden.json.

    With a verdict, it has the gate's checks; `lost` are items that the champion answered and the candidate did not.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    # Prompts and answers are text of strangers and of a model: everything is escaped.
    page = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    page.filters |= {"number": number, "interval": interval, "title": title, "kind": kind, "draw": drawings.draw_check}
    page.filters["reason"] = named_reason
    checks = verdict.checks if verdict else []
    return page.get_template("evaluation.html.j2").render(
        results=results,
        golden=golden,
        verdict=verdict,
        summary=summary_line(verdict) if verdict else "",
        compared=_compared(verdict) if verdict else [],
        checks=sorted((each for each in checks if "[" not in each.metric), key=_order),
        slices=sorted((each for each in checks if "[" in each.metric), key=_order),
        lost=lost,
        role=role_of_baseline(verdict) if verdict else "baseline",
        bars=drawings.draw_bars(results),
        plots=_plots(results),
        size=drawings,
    )


def number(value: float | None, metric: str = "") -> str:
    """Show a number in the unit of a metric or of a check."""
    parts = _CHECK.fullmatch(metric)
    shows: dict[str, Callable[[float], str]] = {each.name: each.show for each in METRICS}
    default = shows.get(parts["metric"] if parts else "", "{:.3f}".format)
    return "none" if value is None else _RATES.get((parts and parts["kind"]) or "", default)(value)


def interval(ends: Sequence[float | None] | None, metric: str = "") -> str:
    """Show an interval; an end that is not bounded as an open one."""
    if not ends:
        return "exact"
    low, high = (number(end, metric) if end is not None else "" for end in ends)
    return f"{low} to {high}" if low and high else f"at least {low}" if low else f"at most {high}" if high else "none"


def title(name: str) -> str:
    """Return the title of a metric or of the metric of a check, with the slice where there is one."""
    parts = _CHECK.fullmatch(name)
    titles = BASELINE_TITLES | {metric.name: metric.title for metric in METRICS}
    found = titles.get(name) or titles.get(parts["metric"] if parts else name, parts["metric"] if parts else name)
    added = _KINDS[parts["kind"]][:1] if parts and parts["kind"] else ()
    return ", ".join([found, *added, *([parts["slice"]] if parts and parts["slice"] else [])])


def kind(name: str, role: str = "champion") -> str:
    """Say what a check measures of its metric; `role` is that of the model beside the candidate."""
    parts = _CHECK.fullmatch(name)
    if parts and parts["kind"]:
        return _KINDS[parts["kind"]][1].format(role=role)
    return f"candidate − {role}" if "[" in name else "the candidate alone"


def _order(check: Check) -> int:
    return ("fail", "inconclusive", "not_judged", "pass").index(check.outcome)


def _compared(verdict: Verdict) -> list[tuple[str, str]]:
    """Return what the verdict rests on, as pairs of name and value."""
    found = [("Candidate", f"model {verdict.hashes.get('model', '')[:12]}")]
    if verdict.baseline:
        found.append(
            ("Compared with", describe(verdict.baseline.version, verdict.baseline.model, role_of_baseline(verdict)))
        )
    if verdict.anchor:
        found.append(("Budget from", describe(verdict.anchor.version, verdict.anchor.model, "anchor")))
    if verdict.policy:
        policy = verdict.policy
        found.append(("Policy", f"{policy.name} {policy.version} ({policy.sha256[:12]})"))
    found += [("Off in the policy", ", ".join(verdict.off))] if verdict.off else []
    found += [("Judged at", verdict.time)] if verdict.time else []
    found += [("Signed by", f"key {verdict.key_id}")] if verdict.key_id else []
    return [*found, ("Errors", verdict.correction)]


def _plots(results: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the reliability plots of the suites whose choices have likelihoods."""
    return [
        {"suite": name, "scorer": scorer, **found, "bars": drawings.draw_reliability(found["bins"])}
        for name, suite in results.get("suites", {}).items()
        for scorer, found in suite.get("calibration", {}).items()
    ]
