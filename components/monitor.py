"""Step 11, monitor: compare the champion's traffic with its objectives and the reference; may roll back."""

import time
from pathlib import Path
from typing import Any

from sluice.components.effect import run_effect_step
from sluice.components.events import EventProgress
from sluice.components.params import load_block
from sluice.components.stores import open_releases, server_ready
from sluice.components.workspace import Workspace
from sluice.monitoring.config import MonitorConfig
from sluice.serving.releases import ReleaseRefused


def monitor(root: str | Path | Workspace) -> str:
    """Returns `ok | alert | rollback`; a rollback is complete when this returns, if there is an earlier version."""
    workspace = root if isinstance(root, Workspace) else Workspace(Path(root))
    return str(run_effect_step(workspace, "monitor", lambda: _work(workspace))["outcome"])


def _work(workspace: Workspace) -> dict[str, Any]:
    from sluice.monitoring.monitor import monitor as judge

    config = load_block(workspace, MonitorConfig)
    releases = open_releases(workspace, "monitor")
    champion = releases.state().champion
    if champion is None:
        return {"outcome": "alert", "reason": "nothing serves: there is no champion to watch"}
    out = workspace.monitoring / time.strftime("%Y%m%d-%H%M%S")
    out.mkdir(parents=True)
    progress = EventProgress("monitor")
    report = judge(config, workspace.traffic, workspace.reference, champion, out, now=time.time(), progress=progress)
    outcome, reason = report.verdict.outcome, report.verdict.reason
    if outcome == "rollback":
        try:
            back = releases.rollback(reason, version=champion, ready=server_ready(workspace)).champion
            reason = f"v{champion} rolled back to v{back}: {reason}"
        except ReleaseRefused as refusal:
            outcome, reason = "alert", f"{refusal}; {reason}"
    return {
        "outcome": outcome,
        "reason": reason,
        "version": champion,
        "records": report.records,
        "reference_records": report.reference_records,
        "report": str(out.relative_to(workspace.root)),
        "timings": report.timings,
    }
