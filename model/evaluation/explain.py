"""A verdict in plain words: what decided, and what would be needed for another outcome."""

from sluice.core.check import Check
from sluice.model.evaluation.verdict import Verdict


def summary_line(verdict: Verdict) -> str:
    """Say in one sentence what decided."""
    of = sum(check.outcome != "not_judged" for check in verdict.checks)
    failed = sum(check.outcome == "fail" for check in verdict.checks)
    undecided = sum(check.outcome == "inconclusive" for check in verdict.checks)
    if verdict.outcome == "promote":
        return f"All {of} checks pass."
    if verdict.outcome == "reject":
        return f"{failed} of {of} checks {'fails' if failed == 1 else 'fail'}: the candidate is shown to break a bound."
    if undecided:
        return f"{undecided} of {of} checks {'is' if undecided == 1 else 'are'} undecided, and none fails."
    return f"Nothing to decide: {verdict.reason}."


def explain(verdict: Verdict) -> list[str]:
    """Return the lines of an explanation."""
    meaning = {
        "promote": "The candidate may ship: every check that it needs shows that its bound is kept.",
        "hold": "The candidate stays where it is: the data show neither that it may ship nor that it may not.",
        "reject": "The candidate may not ship.",
    }
    lines = [f"{verdict.outcome}: {summary_line(verdict)}", meaning[verdict.outcome]]
    if verdict.baseline is not None:
        baseline = describe(verdict.baseline.version, verdict.baseline.model, role_of_baseline(verdict))
        lines.append(f"It was compared with {baseline}.")
    else:
        lines.append("There was no other model to compare it with.")
    if verdict.anchor is not None:
        anchor = describe(verdict.anchor.version, verdict.anchor.model, "anchor")
        lines.append(f"Its total loss was counted from {anchor}.")
    if verdict.off:
        lines.append(f"The policy asks nothing of {', '.join(verdict.off)}: off.")
    titles = {"fail": "Shown to be broken", "inconclusive": "Missing", "pass": "Kept", "not_judged": "Not judged"}
    for outcome, title in titles.items():
        reasons = [named_reason(check) for check in verdict.checks if check.outcome == outcome]
        if reasons:
            lines += ["", f"{title}:", *(f"  {reason}" for reason in reasons)]
    return lines


def named_reason(check: Check) -> str:
    """Return a check's reason beginning with its name: several checks may have one reason, such as missing rows."""
    return check.reason if check.reason.startswith(check.metric) else f"{check.metric}: {check.reason}"


def role_of_baseline(verdict: Verdict) -> str:
    """Say what the model that the candidate was compared with is: a version that served, or one that a user named."""
    return "baseline" if verdict.baseline is not None and not verdict.baseline.version else "champion"


def describe(version: str, model: str, role: str) -> str:
    """Name a compared model."""
    return f"the {role}, version {version} (model {model[:12]})" if version else f"the {role}, model {model[:12]}"
