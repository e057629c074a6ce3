"""Step 8, gate: the candidate against the bounds and the live champion, measured on the same held-out items.

The gate reads only evidence that it has verified: every file is hashed again and compared with a signature made when it
was measured (sluice.components.evidence).
"""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sluice.components.artifact import artifact_hash, check_artifact
from sluice.components.effect import run_effect_step
from sluice.components.evidence import (
    candidate_evaluation,
    evaluation_of,
    keep_candidate,
    policy_in_force,
    write_page,
)
from sluice.components.stores import open_releases
from sluice.components.workspace import Workspace
from sluice.core.manifest import file_hash
from sluice.model.evaluation.evidence import AttestedEvaluation
from sluice.model.evaluation.parity import PARITY_FILE
from sluice.model.evaluation.policy import Policy
from sluice.model.evaluation.report import REPORT_FILE
from sluice.model.evaluation.verdict import Verdict, read_verdict, write_verdict
from sluice.serving.releases import Releases


def gate(root: str | Path | Workspace) -> str:
    """Write the signed verdict and return its outcome, `promote | hold | reject`."""
    workspace = root if isinstance(root, Workspace) else Workspace(Path(root))
    return str(run_effect_step(workspace, "gate", lambda: _work(workspace, datetime.now(UTC)))["outcome"])


def _work(workspace: Workspace, now: datetime) -> dict[str, Any]:
    from sluice.model.evaluation.judgement import judge

    check_artifact(workspace.artifact("evaluate"), rehash=True)
    policy = policy_in_force(workspace)
    candidate = candidate_evaluation(workspace)
    releases = open_releases(workspace)
    state = releases.state()
    baseline = anchor = None
    if state.champion is not None:
        baseline = evaluation_of(workspace, releases.model_folder(state.champion), state.champion)
        pinned = policy.anchor or state.first_champion or state.champion
        anchor = baseline if pinned == state.champion else _anchor(workspace, releases, pinned, policy)
    verdict = judge(candidate, baseline, policy, anchor=anchor, now=now)
    artifact = {"evaluate_artifact": artifact_hash(workspace.artifact("evaluate"))}
    if (kept := workspace.artifact("evaluate") / PARITY_FILE).is_file():
        artifact["parity"] = file_hash(kept)
    verdict = verdict.model_copy(update={"hashes": verdict.hashes | artifact})
    if verdict.outcome == "promote":
        keep_candidate(workspace)
    sha256 = _write(verdict, workspace)
    write_page(workspace, verdict, workspace.verdict.with_name(REPORT_FILE))
    return {
        "outcome": verdict.outcome,
        "reason": verdict.reason,
        "champion": state.champion,
        "is_champion": baseline is not None and baseline.model == candidate.model,
        "checks": {check.metric: check.outcome for check in verdict.checks},
        "verdict_sha256": sha256,
    }


def _anchor(workspace: Workspace, releases: Releases, version: str, policy: Policy) -> AttestedEvaluation | None:
    """The evaluation of the pinned version; None where the policy has no budget to count from it."""
    if all(bounds.budget is None for bounds in (*policy.metrics.values(), *policy.suites.values())):
        return None
    try:
        return evaluation_of(workspace, releases.model_folder(version), version)
    except ValueError as error:
        raise ValueError(
            f"version {version}, from which the budgets of policy {policy.name} count, cannot be measured: {error}; "
            "restore it, or name another version by `anchor` in the policy"
        ) from error


def _write(verdict: Verdict, workspace: Workspace) -> str:
    """Write the verdict, and return its sha256.

    One that an earlier attempt wrote, and that differs in its time alone, keeps that time: it may be registered
    already, and a killed run that goes on registers no second version.
    """
    try:
        earlier = read_verdict(workspace.verdict, workspace.keys)
    except ValueError:
        earlier = None
    if earlier and earlier == verdict.model_copy(update={"time": earlier.time, "key_id": earlier.key_id}):
        verdict = earlier
    return write_verdict(verdict, workspace.verdict, workspace.keys)
