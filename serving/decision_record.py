"""The inputs of a rollout's decision, as the ledger keeps them, and the decision computed again from them."""

import hashlib
from collections.abc import Mapping
from dataclasses import asdict
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from sluice.monitoring import sequential
from sluice.serving import canary, signals
from sluice.serving.canary import RolloutDecision, RolloutState, decide
from sluice.serving.config import RolloutConfig
from sluice.serving.evidence import Evidence
from sluice.serving.quality import signals as quality_signals


@cache
def code_version() -> str:
    """Return sluice's version and a hash of the modules that decide: where it is the same, so is each decision."""
    files = [Path(module.__file__ or "") for module in (canary, signals, quality_signals, sequential)]
    digest = hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()
    return f"{version('sluice')}+{digest[:12]}"


def record_decision(
    state: RolloutState, evidence: Evidence, config: RolloutConfig, decision: RolloutDecision
) -> dict[str, Any]:
    """Return a decision with its inputs, the settings and sluice's version, as plain values."""
    return {
        "code": code_version(),
        "state": {**asdict(state), "peaks": dict(state.peaks)},
        "evidence": evidence.as_json(),
        "settings": config.model_dump(mode="json"),
        "action": decision.action,
        "reason": decision.reason,
    }


def recompute(record: Mapping[str, Any]) -> RolloutDecision:
    """Return the decision that today's code makes on the recorded inputs.

    Raises ValueError if the record's settings are not those of this version.
    """
    return decide(
        RolloutState(**record["state"]),
        Evidence.from_json(record["evidence"]),
        RolloutConfig.model_validate(record["settings"]),
    )


def difference(record: Mapping[str, Any]) -> str:
    """Return how the decision computed again differs from the recorded one; empty if it is the same."""
    again = recompute(record)
    recorded, found = (record["action"], record["reason"]), (again.action, again.reason)
    return "" if recorded == found else f"recorded {recorded[0]}: {recorded[1]}; now {found[0]}: {found[1]}"
