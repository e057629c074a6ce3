"""State of the last run and of what is served, as plain values."""

from typing import Any

from sluice.components.artifact import read_metrics
from sluice.components.events import read_events
from sluice.components.stores import open_releases
from sluice.components.workspace import STEPS, Workspace
from sluice.pipelines.runner import is_going, latest_run, run_state, step_record

_SHOWN = ("name", "state", "seconds", "cached", "outcome", "message")


def status(workspace: Workspace) -> dict[str, Any]:
    """The last run and what is served; safe to call at any moment, also during a run.

    `run` is its id and `state` one of `none | running | done | failed | interrupted`, with a `message` where it did not
    come to its end. `metrics` and `verdict` are those of steps that this run has done, not of an earlier one.
    `champion_forced` and `challenger_forced` are the reasons for which they were forced; `ledger` is checked against
    both anchors.
    """
    # Of a broken ledger, the release up to the last entry that is as it was written.
    release, check = open_releases(workspace).inspect()
    run = latest_run(workspace)
    steps = [step_record([] if run is None else read_events(run.events), step) for step in STEPS]
    state, message = run_state(steps, is_going=is_going(workspace)) if run else ("none", None)
    done = [step["name"] for step in steps if step["state"] == "done"]
    metrics = {step: found for step in done if (found := read_metrics(workspace, step))}
    return {
        "run": run.path.name if run else None,
        "state": state,
        "message": message,
        "steps": [{name: step[name] for name in _SHOWN} for step in steps],
        "metrics": metrics,
        "verdict": metrics.get("gate", {}).get("outcome"),
        "champion": release.champion,
        "champion_forced": release.champion_forced,
        "challenger": release.challenger,
        "challenger_forced": release.challenger_forced_reason,
        "challenger_weight": release.challenger_weight,
        "paused": release.paused,
        "ledger_ok": check.ok,
        "ledger": check.message,
    }
