"""The page's view of the release beyond its state: ledger, verdict and the controller's progress, as plain JSON.

The reconciler, which can read the registry, builds it and pushes it to the gateway with the routes.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from sluice.model.evaluation.verdict import Verdict
from sluice.serving.lease import LeaseRow
from sluice.serving.ledger_chain import RecordedEntry
from sluice.serving.release import ReleaseState

ENTRIES = 20
"""Entries of the ledger on the page."""


class ReleaseHistory(Protocol):
    """The release with its history (implemented by `sluice.serving.releases.Releases`)."""

    def state(self) -> ReleaseState: ...
    def newest(self, count: int) -> list[RecordedEntry]: ...
    def verdict(self, version: str) -> Verdict: ...


def build_view(
    releases: ReleaseHistory, lease: LeaseRow | None, alerts: Sequence[Mapping[str, Any]] = ()
) -> dict[str, Any]:
    """Return the last entries of the ledger, the verdict on the challenger (else the champion), and the rollout.

    The rollout is the newest decision of the controller that holds `lease`, None without one; `alerts` are the
    monitor's findings, as {outcome, title, text, time}. Reads the registry: call it only when one of them has changed.
    """
    state = releases.state()
    version = state.challenger or state.champion
    return {
        "entries": [_entry(entry) for entry in reversed(releases.newest(ENTRIES))],
        "rollout": {**lease.progress, "version": lease.version, "holder": lease.holder} if lease else None,
        "verdict": _verdict(releases, version) if version else None,
        "alerts": [dict(alert) for alert in alerts],
    }


def _entry(entry: RecordedEntry) -> dict[str, Any]:
    details = entry.details
    return {
        "sequence": entry.sequence,
        "time": entry.time,
        "action": entry.action,
        "version": entry.version,
        "actor": entry.actor,
        "reason": entry.reason,
        "forced": bool(details.get("forced")),
        "by_hand": bool(details.get("by_hand")),
        "percent": details.get("percent"),
        "to": details.get("to"),
    }


def _verdict(releases: ReleaseHistory, version: str) -> dict[str, Any]:
    try:
        verdict = releases.verdict(version)
    except ValueError as error:
        # It is shown, not acted on: the release itself checks verdicts before every change.
        return {"version": version, "outcome": "unreadable", "reason": str(error)}
    return {
        "version": version,
        "outcome": verdict.outcome,
        "reason": verdict.reason,
        "policy": verdict.policy.name if verdict.policy else "",
        "time": verdict.time,
        "checks": [
            {"metric": check.metric, "outcome": check.outcome, "reason": check.reason} for check in verdict.checks
        ],
    }
