"""The gate: a pure decision over a candidate's evaluation, the champion's, and the bounds.

Every metric (sluice.model.evaluation.metrics) gives a check of the candidate and, where there is a champion, of their
paired difference. A check with an interval passes or fails where the whole interval lies on one side of the bound;
where it straddles the bound, or data is missing, it is inconclusive. One failure rejects, one inconclusive check holds,
and only a pass of all promotes. So the chance of a wrong promote or reject is that of an interval missing its true
value, which Bonferroni's correction keeps below 1 - confidence over all intervals together.
"""

from typing import Literal

from sluice.core.intervals import bonferroni
from sluice.model.config import GateSettings
from sluice.model.evaluation.metrics import METRICS
from sluice.model.evaluation.results import Evaluation
from sluice.model.evaluation.verdict import Verdict


def decide(candidate: Evaluation, champion: Evaluation | None, bounds: GateSettings) -> Verdict:
    """Promote, hold or reject `candidate`; `champion` is None while nothing serves yet. `bounds` is a GateConfig."""
    # Counted from the metrics, never from the data at hand: losing data must not narrow an interval.
    intervals = sum(metric.intervals for metric in METRICS)
    if champion is not None:
        intervals += sum(metric.paired_intervals for metric in METRICS)
    confidence = bonferroni(bounds.confidence, intervals)

    checks = [metric.check(candidate, bounds, confidence) for metric in METRICS]
    hashes = dict(candidate.hashes)
    if champion is not None:
        checks += [metric.compare(candidate, champion, bounds, confidence) for metric in METRICS if metric.compare]
        hashes |= {f"champion_{name}": value for name, value in champion.hashes.items()}

    outcome: Literal["promote", "hold", "reject"]
    failed = [check.reason for check in checks if check.outcome == "fail"]
    undecided = [check.reason for check in checks if check.outcome == "inconclusive"]
    if champion is not None and champion.hashes["model"] == candidate.hashes["model"]:
        outcome, reason = "hold", f"model {candidate.hashes['model'][:12]} is already the champion"
    elif failed:
        outcome, reason = "reject", "; ".join(failed)
    elif undecided:
        outcome, reason = "hold", "; ".join(undecided)
    else:
        outcome, reason = "promote", "; ".join(check.reason for check in checks)
    return Verdict(
        outcome=outcome,
        reason=reason,
        checks=checks,
        confidence=bounds.confidence,
        correction=f"Bonferroni over {intervals} intervals: each at {confidence:.2%}",
        hashes=hashes,
        is_first_version=champion is None,
    )
