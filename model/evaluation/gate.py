"""The gate: a pure decision over a candidate's evaluation, the champion's, a pinned anchor's, and a policy.

| check | when | passes where |
|---|---|---|
| `<metric>` | the policy has a floor | the one-sided limit keeps the floor |
| `<metric>_over_reference` | first version, `beat_reference` | the reference is shown to be worse, paired |
| `<metric>_difference` | champion, `margin` | the candidate is shown to be worse by less than the margin, paired |
| `<metric>_tail` | champion, `tail` | the share of documents that lose much is shown to be small |
| `<metric>_lost` | champion, `max_lost` | no more answers are lost |
| `<metric>_budget` | champion, `budget` | as `_difference`, against the anchor |
| `<metric>[key=value]` | champion, slices | see sluice.model.evaluation.slices |
| `human_review` | suites of high risk | a person rated every answer; those that fail need a bound for `SUITE.review` |

Promote needs a pass of every check. A candidate that breaks one bound has to pass that check by chance, so each is
one-sided at the policy's alpha without correction, and alpha bounds the chance of a wrong promotion (intersection-union
test, Berger 1982). Reject needs one bound that is shown to be broken; there any one error is enough, so Holm's method
corrects over all checks, and alpha bounds the chance of a wrong rejection. NaN and values without sampling error fail
as they are. Between the two the candidate is held.
"""

from collections.abc import Iterator
from typing import Literal

from sluice.core.check import Check
from sluice.model.evaluation.finding import GateFinding, holm
from sluice.model.evaluation.item_checks import (
    Role,
    Rule,
    check_difference,
    check_floor,
    check_lost,
    check_reference,
    check_tail,
    undecided,
    unusable,
)
from sluice.model.evaluation.metric import Metric
from sluice.model.evaluation.metrics import METRICS
from sluice.model.evaluation.policy import Policy
from sluice.model.evaluation.results import Evaluation
from sluice.model.evaluation.review.record import failed_unbounded, unreviewed
from sluice.model.evaluation.slices import check_slices
from sluice.model.evaluation.suite_checks import barred
from sluice.model.evaluation.verdict import Verdict


def decide(
    candidate: Evaluation,
    baseline: Evaluation | None,
    policy: Policy,
    *,
    anchor: Evaluation | None = None,
    role: Role = "champion",
) -> Verdict:
    """Promote, hold or reject `candidate`.

    `baseline` is the champion's evaluation on the same items, None while nothing serves yet. `anchor` is that of the
    pinned version against which the policy's budgets count; while none is pinned, the champion is the anchor. `role` is
    what the reasons call the baseline.
    """
    by_name = {metric.name: metric for metric in METRICS}
    bounds = {**policy.metrics, **policy.suites}
    rules = {
        name: Rule(
            name, each, each.alpha or policy.alpha, by_name[name].show if name in by_name else "{:.3f}".format, role
        )
        for name, each in bounds.items()
    }
    findings: list[GateFinding] = []
    unproven: set[str] = set()
    if reason := unreviewed(candidate.results) or failed_unbounded(candidate, policy.suites):
        review = Check(metric="human_review", bound=1.0, n=0, outcome="inconclusive", reason=reason)
        findings.append(GateFinding(review))
    for name, rule in rules.items():
        metric = by_name.get(name)
        if fault := barred(candidate.results, rule, policy.min_kappa):
            findings.append(fault)
            unproven.add(name)
            continue
        own = [*_check_alone(candidate, rule, metric, is_first=baseline is None)]
        if baseline is not None:
            own += _compare(candidate, baseline, anchor, rule)
        # A suite without a bound that applies, such as one with a margin alone in a first version, must still be there.
        if not own and metric is None and (missing := unusable(name, candidate, rule, 0.0)):
            own = [GateFinding(missing)]
        findings += own
    not_judged: list[str] = []
    for wanted in policy.slices:
        if baseline is not None and wanted.metric not in unproven:
            slices = check_slices(candidate, baseline, rules[wanted.metric], wanted)
            findings += slices.findings
            not_judged += slices.not_judged

    checks = _reject_by_holm(findings, policy.alpha)
    failed = [check.reason for check in checks if check.outcome == "fail"]
    open_reasons = [check.reason for check in checks if check.outcome == "inconclusive"]
    passed = [check.reason for check in checks if check.outcome == "pass"]
    not_judged += [check.reason for check in checks if check.outcome == "not_judged"]
    outcome: Literal["promote", "hold", "reject"]
    if baseline is not None and baseline.hashes["model"] == candidate.hashes["model"]:
        outcome, reason = "hold", f"model {candidate.hashes['model'][:12]} is already the {role}"
    elif failed:
        outcome, reason = "reject", "; ".join(failed)
    elif open_reasons or not passed:
        outcome, reason = "hold", "; ".join(open_reasons) or f"policy {policy.name} checks nothing; give it bounds"
    else:
        outcome, reason = "promote", "; ".join(passed)
    if not_judged:
        reason += f" (not judged: {', '.join(not_judged)})"
    if policy.off:
        reason += f" (off in the policy: {', '.join(policy.off)})"

    hashes = {**candidate.hashes, "policy": policy.sha256}
    for prefix, other in (("champion", baseline), ("anchor", anchor)):
        hashes |= {f"{prefix}_{name}": value for name, value in other.hashes.items()} if other is not None else {}
    return Verdict(
        outcome=outcome,
        reason=reason,
        off=list(policy.off),
        checks=checks,
        confidence=1 - policy.alpha,
        correction=f"promote: each check one-sided at {policy.alpha:.1%}; reject: Holm over {len(findings)} checks",
        hashes=hashes,
        is_first_version=baseline is None,
    )


def _check_alone(candidate: Evaluation, rule: Rule, metric: Metric | None, *, is_first: bool) -> Iterator[GateFinding]:
    """Checks that need no other model. A suite has no `metric`: all about it is in the policy."""
    floor = metric.floor(candidate, rule.policy) if metric is not None else rule.policy.floor
    if floor is not None and metric is None and rule.policy.over_chance:
        suites = candidate.results.get("suites", {}).values()
        chance = next((each["chance"][rule.rows] for each in suites if rule.rows in each.get("chance", {})), None)
        if chance is None:
            reason = f"{rule.rows}: no chance is known of it; leave out over_chance and give the floor itself"
            yield GateFinding(undecided(rule.rows, reason, floor, 0))
            return
        floor += chance
    if floor is not None:
        own = metric.check if metric is not None else None
        yield own(candidate, rule.policy) if own is not None else check_floor(candidate, rule, floor)
    if is_first and rule.policy.beat_reference and metric is not None and metric.reference is not None:
        yield check_reference(candidate, rule, metric.reference(candidate))


def _compare(
    candidate: Evaluation, champion: Evaluation, anchor: Evaluation | None, rule: Rule
) -> Iterator[GateFinding]:
    """Checks against the champion, and of the budget against the anchor."""
    bounds = rule.policy
    if bounds.margin is not None:
        yield check_difference(f"{rule.rows}_difference", candidate, champion, rule, bounds.margin)
    if bounds.tail is not None:
        yield check_tail(candidate, champion, rule, bounds.tail)
    if bounds.max_lost is not None:
        yield check_lost(candidate, champion, rule, bounds.max_lost)
    if bounds.budget is not None:
        other, owner = (champion, rule.baseline) if anchor is None else (anchor, "anchor")
        yield check_difference(f"{rule.rows}_budget", candidate, other, rule, bounds.budget, owner=owner)


def _reject_by_holm(findings: list[GateFinding], alpha: float) -> list[Check]:
    """Let those checks fail whose bound is shown to be broken, all checks taken together."""
    adjusted = holm([finding.p_bad for finding in findings])
    return [
        finding.check.model_copy(update={"outcome": "fail", "reason": finding.check.reason.partition(";")[0]})
        if p <= alpha
        else finding.check
        for finding, p in zip(findings, adjusted, strict=True)
    ]
