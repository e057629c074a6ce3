"""The monitor's decision: checks and drift tests in, one verdict out (ok, alert or rollback)."""

from collections.abc import Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict

from sluice.core.check import Check
from sluice.monitoring.config import MonitorConfig
from sluice.monitoring.drift import Drift

EMBEDDING = "embedding"


class MonitorVerdict(BaseModel):
    """The monitor's decision and the comparisons behind it."""

    model_config = ConfigDict(frozen=True)

    outcome: Literal["ok", "alert", "rollback"]
    reason: str


def judge(checks: Sequence[Check], drifts: Sequence[Drift], config: MonitorConfig) -> MonitorVerdict:
    """Decide rollback when an objective clearly fails, alert when one is in doubt, data is missing or inputs drifted.

    Drift alone never rolls back: another version would meet the same traffic.
    """
    failed = [check.reason for check in checks if check.outcome == "fail"]
    if failed:
        return MonitorVerdict(outcome="rollback", reason="; ".join(failed))
    doubts = [check.reason for check in checks if check.outcome == "inconclusive"]
    doubts += [drift.reason for drift in drifts if drift.outcome == "inconclusive"]
    # Drift of the embedding alone alerts; of the columns, which move together, a share must drift.
    drifted = [drift for drift in drifts if drift.outcome == "fail"]
    doubts += [drift.reason for drift in drifted if drift.metric == EMBEDDING or drift.p_value is None]
    columns = [drift for drift in drifts if drift.metric != EMBEDDING]
    moved = [drift.reason for drift in drifted if drift.metric != EMBEDDING]
    if moved and len(moved) >= config.min_drift_share * len(columns):
        share = f"{len(moved)} of {len(columns)} columns >= {config.min_drift_share:.0%}"
        doubts.append(f"drift in {share} ({'; '.join(moved)})")
    doubts += [
        f"no {kind}: nothing was measured"
        for kind, measured in (("checks", checks), ("drift tests", drifts))
        if not measured
    ]
    if doubts:
        return MonitorVerdict(outcome="alert", reason="; ".join(doubts))
    reasons = [*(check.reason for check in checks), f"drift in {len(drifted)} of {len(drifts)} tests"]
    return MonitorVerdict(outcome="ok", reason="; ".join(reasons))
