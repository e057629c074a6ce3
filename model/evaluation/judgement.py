"""A judgement: verified evaluations and a policy in, a complete verdict out."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import date, datetime
from typing import Any

from sluice.model.evaluation.evidence import AttestedEvaluation
from sluice.model.evaluation.gate import decide
from sluice.model.evaluation.metrics import METRICS
from sluice.model.evaluation.policy import Policy
from sluice.model.evaluation.results import Evaluation
from sluice.model.evaluation.verdict import ComparedModel, PolicyIdentity, SuiteIdentity, Verdict


def judge(
    candidate: AttestedEvaluation,
    baseline: AttestedEvaluation | None,
    policy: Policy,
    *,
    anchor: AttestedEvaluation | None = None,
    now: datetime,
) -> Verdict:
    """Decide, and name everything that the decision rests on.

    ValueError where the evaluations are not of the same suites, or planned other items than their suites have.
    """
    others = {"baseline": baseline, "anchor": anchor}
    check_planned(candidate.evaluation, "the candidate")
    for role, other in others.items():
        if other is not None:
            check_planned(other.evaluation, f"the {role}")
            check_same_suites(candidate.evaluation, other.evaluation, role)
    verdict = decide(
        as_of(candidate.evaluation, now.date()),
        baseline.evaluation if baseline else None,
        policy,
        anchor=anchor.evaluation if anchor else None,
        role="champion" if baseline is None or baseline.version else "baseline",
    )
    found = {"candidate": candidate, **{role: other for role, other in others.items() if other is not None}}
    return verdict.model_copy(
        update={
            "policy": PolicyIdentity(name=policy.name, version=str(policy.version), sha256=policy.sha256),
            "suites": _suites(candidate.evaluation),
            "baseline": ComparedModel(model=baseline.model, version=baseline.version) if baseline else None,
            "anchor": ComparedModel(model=anchor.model, version=anchor.version) if anchor else None,
            "evidence": {role: each.attestation.sha256 for role, each in found.items()},
            "time": now.isoformat(timespec="seconds"),
        }
    )


def as_of(evaluation: Evaluation, today: date) -> Evaluation:
    """Return the evaluation with the suites overdue that are so today, whenever they were measured."""
    suites: Mapping[str, Mapping[str, Any]] = evaluation.results.get("suites", {})
    dated = {
        name: {**suite, "overdue": bool(suite.get("overdue")) or today.isoformat() > suite["refresh_by"]}
        if "refresh_by" in suite
        else suite
        for name, suite in suites.items()
    }
    return replace(evaluation, results={**evaluation.results, "suites": dated})


def check_planned(evaluation: Evaluation, owner: str) -> None:
    """Raise ValueError where planned counts do not come from the suites.

    A suite without items is none to refuse: a check of it is inconclusive, and a policy need not name it.
    """
    planned = evaluation.results["planned"]
    for name, suite in evaluation.results.get("suites", {}).items():
        for metric, count in suite["planned"].items():
            if planned.get(metric) != count:
                raise ValueError(
                    f"{owner}: {metric} plans {planned.get(metric, 'no')} items, and suite {name} has {count}; "
                    "evaluate again"
                )


def check_same_suites(candidate: Evaluation, other: Evaluation, role: str) -> None:
    """Raise ValueError where both were asked other things by a suite of the same name."""
    ours, theirs = _suites(candidate), _suites(other)
    for name in sorted(ours.keys() & theirs.keys()):
        if ours[name] != theirs[name]:
            raise ValueError(
                f"suite {name}: the candidate was measured with {ours[name].sha256[:12]} (version "
                f"{ours[name].version}), the {role} with {theirs[name].sha256[:12]} (version {theirs[name].version}); "
                "evaluate both with one suite and its prompts"
            )


def _suites(evaluation: Evaluation) -> dict[str, SuiteIdentity]:
    hashes = evaluation.hashes
    files = {metric.name: hashes.get(metric.file_hash) for metric in METRICS if metric.file_hash is not None}
    return {name: SuiteIdentity(sha256=sha256) for name, sha256 in files.items() if sha256 is not None} | {
        name: SuiteIdentity(sha256=suite["sha256"], version=str(suite["version"]), prompts={**suite.get("prompts", {})})
        for name, suite in evaluation.results.get("suites", {}).items()
    }
