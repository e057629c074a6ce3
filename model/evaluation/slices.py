"""Slices of a metric by a key of its items' metadata: a part of the data may not get much worse unseen."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from sluice.model.evaluation.finding import GateFinding
from sluice.model.evaluation.item_checks import Rule, check_difference, not_paired, undecided
from sluice.model.evaluation.policy import SlicePolicy
from sluice.model.evaluation.results import Evaluation


@dataclass(frozen=True)
class Slices:
    """Findings by slice, and what was not judged."""

    findings: Sequence[GateFinding]
    not_judged: Sequence[str]


def check_slices(candidate: Evaluation, champion: Evaluation, rule: Rule, wanted: SlicePolicy) -> Slices:
    """Compare candidate and champion in every slice of one metric.

    A required slice must be shown to be worse by less than the margin. Any other only must not be shown to be worse by
    more: a few documents cannot show that they are not, and would hold every candidate.
    """
    rows, key = wanted.metric, wanted.key
    least_required = wanted.min_required_clusters or rule.policy.min_clusters
    rule = replace(rule, policy=rule.policy.model_copy(update={"min_clusters": 2, "min_items": None}))
    if fault := not_paired(f"{rows}[{key}]", candidate, champion, rule, wanted.margin):
        return Slices([GateFinding(fault)], ())
    value_of = {item.item: item.metadata.get(key) for item in candidate.items[rows]}
    values = sorted({value for value in value_of.values() if value is not None} | set(wanted.required))
    if not values:
        reason = f"{rows}[{key}]: no item has {key} in its metadata; name another key in the policy"
        return Slices([GateFinding(undecided(f"{rows}[{key}]", reason, wanted.margin, 0))], ())
    findings, not_judged = [], []
    for value in values:
        metric, required = f"{rows}[{key}={value}]", value in wanted.required
        members = {item for item, has in value_of.items() if has == value}
        ours, theirs = (_only(each, rows, members) for each in (candidate, champion))
        clusters = len({item.unit for item in ours.items[rows]})
        least = least_required if required else wanted.min_clusters
        if clusters < least:
            reason = f"{metric} clusters={clusters} < {least}"
            if required:
                findings.append(GateFinding(undecided(metric, reason, wanted.margin, len(members))))
            else:
                not_judged.append(reason)
            continue
        found = check_difference(metric, ours, theirs, rule, wanted.margin)
        if not required and found.check.outcome == "inconclusive":
            reason = f"{found.check.reason.partition(';')[0]}; not shown to be worse"
            found = replace(found, check=found.check.model_copy(update={"outcome": "not_judged", "reason": reason}))
        findings.append(found)
    return Slices(findings, not_judged)


def _only(evaluation: Evaluation, rows: str, members: set[str]) -> Evaluation:
    """The evaluation with those items of one metric alone, all of them planned."""
    kept = tuple(item for item in evaluation.items[rows] if item.item in members)
    planned = {**evaluation.results["planned"], rows: len(kept)}
    return replace(evaluation, results={**evaluation.results, "planned": planned}).with_items(rows, kept)
