"""Checks of a metric's rows: of their level, and of the difference from another model's rows on the same items.

Before anything is compared, rows must be finite, complete, each item once, from enough documents, and for a comparison
the same items as the other model's. NaN outranks missing data.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from sluice.core.check import Check, Side, compare_exact, not_finite, too_few
from sluice.core.clustered import ClusteredEstimate, ClusteredMean, ClusteredRate, ClusteredRateDifference
from sluice.core.intervals import Floats
from sluice.model.evaluation.finding import GateFinding, Show, judge
from sluice.model.evaluation.metric_policy import MetricPolicy, TailBound
from sluice.model.evaluation.results import Evaluation, Item

_CLUSTERS = {
    "bits_per_byte": "clusters: raise evaluate.documents, or give it more held-out text",
    "choice_accuracy": "clusters: raise evaluate.multiple_choice_items, or give it more held-out text",
}
"""Advice where there are fewer clusters than the policy wants, by metric: the setting that gives more."""

Role = Literal["champion", "baseline"]
"""Name, in reasons, of the model that a candidate is compared with: one that serves, or one that a user named."""


@dataclass(frozen=True)
class Rule:
    """One metric's rows and the policy for them."""

    rows: str
    """The metric of the rows, which is also the name of its own check."""
    policy: MetricPolicy
    alpha: float
    """Error of each one-sided check."""
    show: Show = "{:.3f}".format
    baseline: Role = "champion"

    @property
    def good(self) -> Side:
        return "above" if self.policy.direction == "higher" else "below"


def unusable(metric: str, evaluation: Evaluation, rule: Rule, bound: float, *, owner: str = "") -> Check | None:
    """Return the check, named `metric`, that says why the rows cannot be judged, or None where they can."""
    items, planned = evaluation.items.get(rule.rows, ()), evaluation.planned(rule.rows)
    label, n = f"{owner}{rule.rows}", len(items)
    broken = sum(not (math.isfinite(i.value) and math.isfinite(i.weight) and i.weight > 0) for i in items)
    if broken:
        return not_finite(metric, broken, n, bound, label=label)
    if n == 0 and rule.rows not in evaluation.results["planned"]:
        has = ", ".join(sorted(evaluation.results["planned"])) or "none"
        reason = f"no metric {rule.rows} in {owner or 'this '}evaluation; it has {has}"
        return undecided(metric, reason, bound, n)
    if n != planned or n == 0:
        return undecided(metric, f"{label} n={n} of {planned} planned items", bound, n)
    if rule.policy.min_items is not None and planned < rule.policy.min_items:
        return too_few(metric, planned, rule.policy.min_items, bound, unit="items", label=label)
    if (repeated := n - len({i.item for i in items})) > 0:
        return undecided(metric, f"{label}: {repeated} of {n} items occur twice; evaluate again", bound, n)
    if rule.policy.scale == "rate" and not all(0 <= i.value <= 1 and i.weight == 1 for i in items):
        reason = f"{label}: values are not all in [0, 1] with weight 1; set `scale: mean` in the policy"
        return undecided(metric, reason, bound, n)
    clusters = len({i.unit for i in items})
    if rule.policy.kind != "golden" and clusters < rule.policy.min_clusters:
        return too_few(
            metric, clusters, rule.policy.min_clusters, bound, unit=_CLUSTERS.get(rule.rows, "clusters"), label=label
        )
    return None


def not_paired(
    metric: str, candidate: Evaluation, other: Evaluation, rule: Rule, bound: float, *, owner: str | None = None
) -> Check | None:
    """Return the check that says why two models' rows cannot be compared, or None where they can.

    The same items with the same weights and clusters are paired data.
    """
    owner = owner or rule.baseline
    found = [unusable(metric, candidate, rule, bound), unusable(metric, other, rule, bound, owner=f"{owner}'s ")]
    faults = sorted((check for check in found if check), key=lambda check: check.outcome != "fail")
    if faults:
        return faults[0].model_copy(update={"n": len(candidate.items.get(rule.rows, ()))})
    keys = [{(i.item, i.weight, i.unit) for i in evaluation.items[rule.rows]} for evaluation in (candidate, other)]
    if keys[0] != keys[1]:
        n, shared = len(keys[0]), len(keys[0] & keys[1])
        reason = f"{rule.rows}: {owner} shares {shared} of {n} items; evaluate it on this set"
        return undecided(metric, reason, bound, n)
    return None


def undecided(metric: str, reason: str, bound: float, n: int) -> Check:
    """Return an inconclusive check for data that cannot be judged."""
    return Check(metric=metric, bound=bound, n=n, outcome="inconclusive", reason=reason)


def columns(items: Sequence[Item]) -> tuple[Floats, Floats, NDArray[np.int64]]:
    """Return values, weights and cluster numbers [items] in the order of the items' hashes, whatever that of rows."""
    ordered = sorted(items, key=lambda item: item.item)
    numbers: dict[str, int] = {}
    units = [numbers.setdefault(i.unit, len(numbers)) for i in ordered]
    return np.array([i.value for i in ordered]), np.array([i.weight for i in ordered]), np.array(units, dtype=np.int64)


def estimate(items: Sequence[Item], policy: MetricPolicy) -> ClusteredEstimate:
    """Estimate a metric's level from its rows."""
    values, weights, units = columns(items)
    return ClusteredRate(values, units) if policy.scale == "rate" else ClusteredMean(values, weights, units)


def estimate_difference(
    items: Sequence[Item], others: Sequence[Item], policy: MetricPolicy
) -> tuple[ClusteredEstimate, tuple[float, float]]:
    """Estimate the paired difference of two models' rows, and return both models' levels beside it."""
    ours, weights, units = columns(items)
    theirs, _, _ = columns(others)
    levels = float(ours.sum() / weights.sum()), float(theirs.sum() / weights.sum())
    if policy.scale == "rate":
        return ClusteredRateDifference(ours, theirs, units), levels
    return ClusteredMean(ours - theirs, weights, units), levels


def check_floor(evaluation: Evaluation, rule: Rule, bound: float) -> GateFinding:
    """Compare a metric's level with its absolute bound. A golden set is complete, so its rate has no sampling error."""
    if fault := unusable(rule.rows, evaluation, rule, bound):
        return GateFinding(fault)
    found = estimate(evaluation.items[rule.rows], rule.policy)
    if rule.policy.kind == "golden":
        return GateFinding(compare_exact(rule.rows, found.value, bound, good=rule.good, n=found.n))
    return judge(rule.rows, found, bound, good=rule.good, alpha=rule.alpha)


def check_difference(
    metric: str, candidate: Evaluation, other: Evaluation, rule: Rule, margin: float, *, owner: str | None = None
) -> GateFinding:
    """Non-inferiority: the limit of the paired difference on the worse side must stay within `margin`."""
    bound = -margin if rule.good == "above" else margin
    if fault := not_paired(metric, candidate, other, rule, bound, owner=owner):
        return GateFinding(fault)
    return _judge_pair(metric, candidate.items[rule.rows], other.items[rule.rows], rule, bound)


def check_tail(candidate: Evaluation, champion: Evaluation, rule: Rule, tail: TailBound) -> GateFinding:
    """Bound the share of items that are worse than the champion's by more than `tail.beyond`."""
    metric = f"{rule.rows}_tail"
    if fault := not_paired(metric, candidate, champion, rule, tail.share):
        return GateFinding(fault)
    ours, weights, units = columns(candidate.items[rule.rows])
    theirs, _, _ = columns(champion.items[rule.rows])
    loss = (ours - theirs) / weights * (1 if rule.good == "below" else -1)
    worse = ClusteredRate((loss > tail.beyond).astype(np.float64), units)
    note = f" ({int(worse.values.sum())} worse by over {tail.beyond:g})"
    return judge(metric, worse, tail.share, good="below", alpha=rule.alpha, show="{:.1%}".format, note=note)


def check_lost(candidate: Evaluation, champion: Evaluation, rule: Rule, max_lost: int) -> GateFinding:
    """Count items that the champion got right and the candidate did not: exact, item by item. Of a rate of harm, 0 is
    right.
    """
    metric = f"{rule.rows}_lost"
    if fault := not_paired(metric, candidate, champion, rule, max_lost):
        return GateFinding(fault)
    best = 1.0 if rule.good == "above" else 0.0
    right = {i.item for i in champion.items[rule.rows] if i.value == best}
    lost = [i for i in candidate.items[rule.rows] if i.item in right and i.value != best]
    return GateFinding(compare_exact(metric, len(lost), max_lost, good="below", n=len(right), show="{:.0f}".format))


def check_reference(evaluation: Evaluation, rule: Rule, reference: Mapping[str, float]) -> GateFinding:
    """Superiority over a reference measured on the same items, such as a byte n-gram model; `reference` is by item."""
    metric = f"{rule.rows}_over_reference"
    if fault := unusable(metric, evaluation, rule, 0.0):
        return GateFinding(fault)
    items = evaluation.items[rule.rows]
    if missing := sum(i.item not in reference for i in items):
        reason = f"{metric}: {missing} of {len(items)} items have no reference; evaluate again"
        return GateFinding(undecided(metric, reason, 0.0, len(items)))
    others = [Item(i.metric, i.item, reference[i.item], i.weight, i.cluster) for i in items]
    if broken := sum(not math.isfinite(i.value) for i in others):
        return GateFinding(not_finite(metric, broken, len(items), 0.0))
    return _judge_pair(metric, items, others, rule, 0.0)


def check_agreement(agreed: Mapping[str, Any], rule: Rule, scorer: str, min_kappa: float) -> GateFinding | None:
    """Return the finding that the rows' scorer may not decide, or None where it agrees enough with people.

    agreed: entries of scorers and judges by name, with `kappa_low`.
    """
    kappa = agreed.get(scorer, {}).get("kappa_low")
    measured = isinstance(kappa, int | float) and math.isfinite(kappa)
    if measured and kappa >= min_kappa:
        return None
    shown = f"kappa_low {kappa:.2f}" if measured else "no kappa"
    reason = (
        f"{rule.rows}: scorer {scorer} has {shown} against people and needs {min_kappa:.2f}; label more "
        "items, or take the suite out of the policy"
    )
    return GateFinding(undecided(rule.rows, reason, rule.policy.floor or 0.0, 0))


def _judge_pair(metric: str, items: Sequence[Item], others: Sequence[Item], rule: Rule, bound: float) -> GateFinding:
    found, pair = estimate_difference(items, others, rule.policy)
    note = f" ({pair[0]:.3f} against {pair[1]:.3f})"
    return judge(metric, found, bound, good=rule.good, alpha=rule.alpha, paired=pair, show="{:+.3f}".format, note=note)
