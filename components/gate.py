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
    gate_policy,
    keep_candidate,
    policy_in_force,
    write_page,
)
from sluice.components.stores import open_releases
from sluice.components.workspace import Workspace
from sluice.model.evaluation.report import REPORT_FILE
from sluice.model.evaluation.verdict import ComparedModel, Verdict, read_verdict, write_verdict


def gate(root: str | Path | Workspace) -> str:
    """Write the signed verdict and return its outcome, `promote | hold | reject`."""
    workspace = root if isinstance(root, Workspace) else Workspace(Path(root))
    return str(run_effect_step(workspace, "gate", lambda: _work(workspace, datetime.now(UTC)))["outcome"])


def _work(workspace: Workspace, now: datetime) -> dict[str, Any]:
    from sluice.model.evaluation.gate import decide

    check_artifact(workspace.artifact("evaluate"), rehash=True)
    policy = gate_policy(workspace)
    candidate = candidate_evaluation(workspace)
    releases = open_releases(workspace)
    champion = releases.state().champion
    baseline = evaluation_of(workspace, releases.model_folder(champion)) if champion is not None else None
    verdict = decide(candidate, baseline, policy)
    verdict = verdict.model_copy(
        update={
            "hashes": {**verdict.hashes, "evaluate_artifact": artifact_hash(workspace.artifact("evaluate"))},
            "policy": policy_in_force(workspace),
            "baseline": ComparedModel(model=baseline.hashes["model"], version=champion or "") if baseline else None,
            "time": now.isoformat(timespec="seconds"),
        }
    )
    if verdict.outcome == "promote":
        keep_candidate(workspace)
    sha256 = _write(verdict, workspace)
    write_page(workspace, verdict, workspace.verdict.with_name(REPORT_FILE))
    return {
        "outcome": verdict.outcome,
        "reason": verdict.reason,
        "champion": champion,
        "is_champion": baseline is not None and baseline.hashes["model"] == candidate.hashes["model"],
        "checks": {check.metric: check.outcome for check in verdict.checks},
        "verdict_sha256": sha256,
    }


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
