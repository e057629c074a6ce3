"""Step 9, register: a candidate whose signed verdict promotes becomes a version of the registry and the challenger."""

import re
from pathlib import Path
from typing import Any

from sluice.components.artifact import read_metrics
from sluice.components.effect import run_effect_step
from sluice.components.lineage import lineage_tags
from sluice.components.stores import open_registry, open_releases
from sluice.components.workspace import Workspace


def register(root: str | Path | Workspace, forced_reason: str | None = None) -> str:
    """Version of the challenger; empty where nothing was registered, with the reason in the metrics.

    `forced_reason` takes a candidate past a verdict that does not promote; it is written into the ledger.
    """
    workspace = root if isinstance(root, Workspace) else Workspace(Path(root))
    return str(run_effect_step(workspace, "register", lambda: _work(workspace, forced_reason))["version"])


def _work(workspace: Workspace, forced_reason: str | None) -> dict[str, Any]:
    from sluice.model.evaluation.verdict import read_verdict

    verdict = read_verdict(workspace.verdict, workspace.keys)
    if verdict.outcome != "promote" and forced_reason is None:
        return {"outcome": "skipped", "version": "", "reason": f"verdict {verdict.outcome}: {verdict.reason}"}
    releases = open_releases(workspace)
    evaluation = read_metrics(workspace, "evaluate")
    metrics = {name: float(value) for name, value in evaluation.items() if isinstance(value, int | float)}
    for source, value in evaluation.get("bits_per_byte_by_source", {}).items():
        if value is not None:
            # MLflow accepts these characters alone in a metric's name.
            metrics[f"bits_per_byte/{re.sub(r'[^A-Za-z0-9_.-]', '_', source)}"] = float(value)
    version = open_registry(workspace).register(
        workspace.artifact("tune"),
        workspace.verdict,
        tags=lineage_tags(workspace),
        metrics=metrics,
        description=verdict.reason,
    )
    state = releases.reconcile()
    if version == state.champion:
        return {"outcome": "skipped", "version": "", "reason": f"v{version} is the champion already"}
    if state.challenger not in (None, version):
        # One release at a time holds the run's lock, so this rollout's process is dead.
        releases.drop(f"superseded by v{version} before its rollout ended")
    if state.challenger != version:
        reason = forced_reason or f"verdict promote: {verdict.reason}"
        releases.propose(version, workspace.verdict, reason, forced=forced_reason is not None)
    return {"outcome": "registered", "version": version, "reason": f"v{version} is the challenger"}
