"""The charts of the card. Each is SVG, or empty where there is nothing to draw."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from sluice.data.card.charts import Bar, Series, Threshold, bars, histogram
from sluice.data.card.decisions import Observed
from sluice.data.card.numbers import count, label, number
from sluice.data.card.passes import RulePasses, spread_of
from sluice.data.quality.rules import LANGUAGE
from sluice.data.report import RefineReport

_ROWS = 12
"""Bars of a chart; the others become one bar."""
_SIMILARITY_BINS = 30


def bound_text(each: RulePasses) -> str:
    """Format the condition to pass: `words ≥ 40`."""
    if each.rule is LANGUAGE:
        return f"language in {', '.join(each.threshold)}"
    return f"{label(each.rule.score)} {'≥' if each.rule.is_minimum else '≤'} {number(each.threshold)}"


def score_charts(passes: Iterable[RulePasses]) -> list[tuple[str, str, str]]:
    """Draw (title, note, chart) of every score that a rule in force bounds, with all its bounds."""
    bounded: dict[str, list[RulePasses]] = {}
    for each in passes:
        # A single bar on the passing side would show nothing.
        if each.spread and (each.total.passed < each.total.documents or sum(map(bool, each.spread.counts)) > 1):
            bounded.setdefault(each.rule.score, []).append(each)
    charts = []
    for name, found in bounded.items():
        spread, total = found[0].spread, found[0].total.documents
        assert spread is not None
        failing = [
            f"{count(total - each.total.passed - spread.unknown)} {'below' if each.rule.is_minimum else 'above'} "
            f"{number(each.threshold)}"
            for each in found
        ]
        unknown = [f"{count(spread.unknown)} without a number"] if spread.unknown else []
        title, note = label(name), f"{', '.join([*failing, *unknown])}; of {count(total)} documents"
        chart = histogram(
            spread.edges,
            [Series("documents", spread.counts)],
            title=title,
            description=note,
            thresholds=[Threshold(float(each.threshold), each.rule.is_minimum) for each in found],
            log=spread.log,
        )
        charts.append((title, note, chart))
    return charts


def language_bars(report: RefineReport) -> str:
    """Draw the documents kept by language, of those read."""
    tallies = report.by_language
    names = sorted(tallies, key=lambda name: (-tallies[name].documents_kept, name))
    shown = [
        Bar(name, tally.documents_kept, f"{count(tally.documents_kept)} of {count(tally.documents_in)}")
        for name in names[:_ROWS]
        for tally in [tallies[name]]
    ]
    if rest := names[_ROWS:]:
        kept, read = (sum(getattr(tallies[name], f"documents_{end}") for name in rest) for end in ("kept", "in"))
        shown.append(Bar(f"{len(rest)} more", kept, f"{count(kept)} of {count(read)}", "soft"))
    return bars(shown, title="Languages", description="Documents kept of those read") if shown else ""


def length_histogram(observed: Observed) -> str:
    """Draw the characters of the documents read and kept."""
    if not len(observed.characters):
        return ""
    spread = spread_of(observed.characters)
    edges = np.array(spread.edges)
    kept, _ = np.histogram(np.clip(observed.characters[observed.kept], edges[0], edges[-1]), edges)
    return histogram(
        spread.edges,
        [Series("read", spread.counts, "soft"), Series("kept", kept.tolist())],
        title="Length",
        description="Characters of a document, after extraction",
        log=spread.log,
    )


def similarity_histogram(observed: Observed, floor: Any) -> str:
    """Draw the Jaccard similarities of near duplicates, starting at `floor`, the threshold."""
    if not len(observed.jaccard):
        return ""
    low = min(float(floor) if isinstance(floor, int | float) else 0.95, float(observed.jaccard.min()), 0.95)
    edges = np.linspace(low, 1, _SIMILARITY_BINS + 1)
    counts, _ = np.histogram(np.minimum(observed.jaccard, 1), edges)
    return histogram(
        edges.tolist(),
        [Series("removed", counts.tolist(), "duplicate")],
        title="Similarity",
        description=f"Jaccard similarity to the twin that is kept, of {count(len(observed.jaccard))} removed documents",
    )


def group_bars(observed: Observed) -> str:
    """Draw the groups of duplicates by size."""
    sizes = sorted(observed.group_sizes.items())
    shown = [Bar(f"{size} documents", groups, kind="duplicate") for size, groups in sizes[:_ROWS]]
    if rest := sizes[_ROWS:]:
        shown.append(Bar(f"{rest[0][0]} and more", sum(groups for _, groups in rest), kind="duplicate"))
    return bars(shown, title="Groups of duplicates", description="Groups by their size") if shown else ""


def amount_bars(amounts: Mapping[str, int], title: str, description: str, kind: str) -> str:
    """Draw the largest amounts as bars."""
    some = [(name, amount) for name, amount in amounts.items() if amount]
    ranked = sorted(some, key=lambda each: (-each[1], each[0]))
    shown = [Bar(name, amount, kind=kind) for name, amount in ranked[:_ROWS]]
    if rest := ranked[_ROWS:]:
        shown.append(Bar(f"{len(rest)} more", sum(amount for _, amount in rest), kind="soft"))
    return bars(shown, title=title, description=description) if shown else ""
