"""Whether the rows of a suite may decide at all: it must not be overdue, and its scorer has to agree with people."""

from collections.abc import Mapping
from typing import Any

from sluice.model.evaluation.finding import GateFinding
from sluice.model.evaluation.item_checks import Rule, check_agreement, undecided


def barred(results: Mapping[str, Any], rule: Rule, min_kappa: float) -> GateFinding | None:
    """Return the inconclusive finding of rows that may not decide, or None where they may.

    A judge, and a scorer that estimates what people would say, have their kappa in results.json and need it whatever
    the policy's kind; one that the policy names needs it too.
    """
    scorer, agreed = rule.policy.scorer, results.get("scorers", {})
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
        # First the judge of these rows, so that a policy cannot name another scorer in its place.
        scorer = entry.get("judged", {}).get(rule.rows) or scorer or _estimating_scorer(name, entry, rule.rows)
    return check_agreement(agreed, rule, scorer, min_kappa) if scorer is not None else None


def _estimating_scorer(suite: str, entry: Mapping[str, Any], metric: str) -> str | None:
    """Return the scorer that gave the rows, if it is one that has a kappa."""
    used = entry.get("settings", {}).get("scorers", [])
    named = [name for name in used if f"{metric}.".startswith(f"{suite}.{name}.")]
    return next((name for name in named or used[:1] if name in entry.get("scorers", {})), None)
