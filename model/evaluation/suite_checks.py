"""Whether the rows of a suite may decide at all: it must not be overdue, and its scorer has to agree with people."""

from collections.abc import Mapping
from typing import Any

from sluice.model.evaluation.finding import GateFinding
from sluice.model.evaluation.item_checks import Rule, check_agreement, undecided
from sluice.model.evaluation.metrics import METRICS


def barred(results: Mapping[str, Any], rule: Rule, min_kappa: float) -> GateFinding | None:
    """Return the inconclusive finding of rows that may not decide, or None where they may.

    A judge, and every scorer that estimates what people would say and took part in the rows, have their kappa in
    results.json and need it whatever the policy's kind; one that the policy names needs it too.
    """
    if (pinned := rule.policy.sha256) is not None and (sha256 := _set_hash(results, rule.rows)) != pinned:
        measured = f"items of sha256 {sha256[:12]}" if sha256 else "no known items"
        reason = (
            f"{rule.rows}: measured with {measured}, and the policy pins {pinned[:12]}; evaluate with the pinned "
            "items, or pin these in the policy"
        )
        return GateFinding(undecided(rule.rows, reason, rule.policy.floor or 0.0, 0))
    scorers, agreed = [rule.policy.scorer] if rule.policy.scorer else [], results.get("scorers", {})
    for name, entry in results.get("suites", {}).items():
        is_review = rule.rows == f"{name}.review"
        if not is_review and rule.rows not in entry.get("planned", {}):
            continue
        if entry.get("overdue"):
            reason = f"{rule.rows}: suite {name} was due for renewal by {entry.get('refresh_by')}; renew its samples"
            return GateFinding(undecided(rule.rows, reason, rule.policy.floor or 0.0, 0))
        if is_review:  # by people
            continue
        agreed = {**agreed, **entry.get("scorers", {})}
        # Whoever gave these rows counts, so that a policy cannot name another scorer in its place.
        judge = entry.get("judged", {}).get(rule.rows)
        scorers = [judge] if judge else [*_estimating_scorers(name, entry, rule.rows), *scorers]
    found = (check_agreement(agreed, rule, scorer, min_kappa) for scorer in scorers)
    return next((finding for finding in found if finding is not None), None)


def _set_hash(results: Mapping[str, Any], rows: str) -> str | None:
    """Return the sha256 of the items that the rows were measured with, where they come from a file."""
    for name, entry in results.get("suites", {}).items():
        if rows == f"{name}.review" or rows in entry.get("planned", {}):
            return str(entry["sha256"])
    key = next((metric.file_hash for metric in METRICS if metric.name == rows), None)
    return results["hashes"].get(key) if key is not None else None


def _estimating_scorers(suite: str, entry: Mapping[str, Any], metric: str) -> list[str]:
    """Return the scorers that took part in the rows and are ones that have a kappa.

    Rows by one scorer are named SUITE.SCORER; pass@k is by the scorer that `spread_over_seeds` names; other rows may be
    by any scorer of the suite.
    """
    used = entry.get("settings", {}).get("scorers", [])
    took_part = [name for name in used if f"{metric}.".startswith(f"{suite}.{name}.")]
    if metric.startswith(f"{suite}.pass@"):
        drawn_by = entry.get("spread_over_seeds", {}).get("scorer")
        took_part = [name for name in used if name == drawn_by]
    return [name for name in took_part or used if name in entry.get("scorers", {})]
