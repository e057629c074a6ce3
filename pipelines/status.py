"""State of the last run and of what is served, as plain values."""

from typing import Any

from sluice.components.artifact import read_metrics
from sluice.components.events import read_events
from sluice.components.stores import open_ledger
from sluice.components.workspace import STEPS, Workspace
from sluice.pipelines.runner import alive, latest_run, step_record


def status(workspace: Workspace) -> dict[str, Any]:
    """`{"steps", "metrics", "verdict", "champion", "challenger", "ledger_ok"}`; safe to call at any moment, also during
    a run.
    """
    from sluice.serving.release import fold

    ledger = open_ledger(workspace)
    state = fold(ledger.history())
    run, lock = latest_run(workspace), workspace.state / "run.lock"
    events = [] if run is None else read_events(run.events)
    records = [step_record(events, step) for step in STEPS]
    if run is not None and not run.record.is_file() and not (lock.is_file() and alive(lock.read_text().strip())):
        # The run died without a word: what was running then is not running now.
        for record in records:
            record["state"] = "interrupted" if record["state"] == "running" else record["state"]
    return {
        "steps": [{name: record[name] for name in ("name", "state", "seconds", "cached")} for record in records],
        "metrics": {step: metrics for step in STEPS if (metrics := read_metrics(workspace, step))},
        "verdict": read_metrics(workspace, "gate").get("outcome"),
        "champion": state.champion,
        "challenger": state.challenger,
        "ledger_ok": ledger.verify().ok,
    }
