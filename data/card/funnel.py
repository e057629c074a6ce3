"""The funnel of documents through the gates of refine: rules, evaluation sets, duplicates."""

from collections.abc import Mapping

from sluice.data.card.cascade import cascade
from sluice.data.card.numbers import count, label
from sluice.data.card.sankey import Flow, Gate, fold, sankey
from sluice.data.report import RefineReport

_SOURCES = 9
_DROPS = 13
_GATES = (("quality", "pass the rules"), ("contaminated", "uncontaminated"), ("duplicate", "distinct"))


def group_of(rule: str) -> str:
    """Return the gate of a rule: `quality`, `contaminated` or `duplicate`."""
    if rule.endswith("duplicate") or rule in ("repeated_pieces", "repeated_substrings"):
        return "duplicate"
    return "contaminated" if rule.startswith("contaminat") else "quality"


def ordered_drops(dropped: Mapping[str, int]) -> list[tuple[str, int]]:
    """Return the rules that dropped something, gate by gate, the largest first."""
    place = {group: number for number, (group, _) in enumerate(_GATES)}
    found = [(rule, amount) for rule, amount in dropped.items() if amount]
    return sorted(found, key=lambda each: (place[group_of(each[0])], -each[1], each[0]))


def funnel(report: RefineReport) -> str:
    """Draw the diagram twice, for wide and narrow pages; CSS shows one. ValueError if the numbers do not add up."""
    sources = [Flow(name, tally.documents_in) for name, tally in report.by_source.items() if tally.documents_in]
    if not sources:
        return ""
    if report.documents_in - sum(report.dropped.values()) != report.documents_kept:
        raise ValueError(
            f"report.json: {report.documents_in} documents in, {sum(report.dropped.values())} dropped and "
            f"{report.documents_kept} kept do not add up: build the folder again"
        )
    gates: list[Gate] = []
    for group, behind in _GATES:
        drops = [Flow(label(r), n, group) for r, n in ordered_drops(report.dropped) if group_of(r) == group]
        if drops:
            gates.append(Gate(behind, fold(drops, _DROPS, "other rules")))
    # After the last gate, all documents are kept.
    gates = [*gates[:-1], Gate("kept", gates[-1].drops if gates else [])]
    texts = {
        "title": "From sources to clean documents",
        "description": f"{count(report.documents_in)} documents come in, {count(report.documents_kept)} are kept",
    }
    largest = fold(sources, _SOURCES, "other sources")
    return f"{sankey(largest, gates, **texts)}\n{cascade(largest, gates, **texts)}"
