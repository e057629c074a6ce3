"""The newest decision of a rollout as plain JSON, for its lease, `sluice rollout status` and the page. Pure."""

import math
from collections.abc import Mapping
from typing import Any

from sluice.monitoring.sequential import threshold
from sluice.serving.canary import RolloutDecision, signals
from sluice.serving.config import RolloutConfig
from sluice.serving.evidence import Evidence
from sluice.serving.signals import LARGEST_LOG, Signal


def rollout_progress(
    decision: RolloutDecision,
    evidence: Evidence,
    config: RolloutConfig,
    *,
    since: float,
    paused: bool = False,
    not_judged: Mapping[str, int] | None = None,
) -> dict[str, Any]:
    """Return the step, its reason, and each signal with its two e-values beside their common threshold.

    `since` is when the step began, in epoch seconds; `paused`: a person has paused the rollout. `not_judged` counts
    the attempts that judge neither arm, by class.
    """
    state, step = decision.state, config.steps[decision.state.step]
    found = {signal.metric: signal for signal in signals(evidence, config)}
    return {
        "step": state.step,
        "steps": [{"weight": each.weight, "shadow": each.shadow} for each in config.steps],
        "wanted_weight": step.weight,
        "reason": decision.reason,
        "checks": [
            {
                "metric": check.metric,
                "outcome": check.outcome,
                "value": check.value,
                "bound": check.bound,
                "n": check.n,
                "reason": check.reason,
                **_e_values(found[check.metric], state.peaks, config.alpha),
            }
            for check in decision.checks
        ],
        "replays": evidence.errors.n,
        "live": sum(each.challenger for each in evidence.live),
        "not_judged": dict(not_judged or {}),
        "paused": paused or decision.action in ("pause", "suspend"),
        "since": since,
    }


def _e_values(signal: Signal, peaks: Mapping[str, float], alpha: float) -> dict[str, float | None]:
    """Return the evidence for "bad" and for "good" as e-values with one threshold; None where there is no such test.

    It is the largest so far where a test was shown by it, otherwise that of the present totals. Where "bad" takes
    several tests, the weakest counts, each relative to its own level. Evidence for "good" counts only while the totals
    still speak for it.
    """
    least, bad = threshold(alpha), []
    for test in signal.drops:
        above = max(test.log_e, peaks.get(test.name, 0.0)) - threshold(test.levels * alpha)
        bad.append(least + (above if above >= 0 else test.log_e - threshold(test.levels * alpha)))
    good = None
    if (advance := signal.advances) is not None:
        peak = max(advance.log_e, peaks.get(advance.name, 0.0))
        good = peak if peak >= least and advance.log_e >= 0 else advance.log_e
    return {
        "e_advance": None if good is None else math.exp(min(good, LARGEST_LOG)),
        "e_drop": math.exp(min(*bad, LARGEST_LOG)),
        "threshold": 1 / alpha,
    }
