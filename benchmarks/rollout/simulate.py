"""Simulated rollouts, and what became of them."""

from statistics import median

import numpy as np

from benchmarks.rollout.rules import RULES, Ending
from benchmarks.rollout.traffic import Scenario, replays
from sluice.serving.config import RolloutConfig


def simulate(
    scenario: Scenario, rollouts: int, seed: int, rule: str = "ours", max_error_increase: float | None = None
) -> list[Ending]:
    """Return the ends of simulated rollouts. Each has its own generator, so more rollouts keep the first ones."""
    config = RolloutConfig.model_validate({"max_error_increase": max_error_increase})
    return [
        RULES[rule](replays(scenario, np.random.default_rng([seed, number])), scenario.replays_per_second, config)
        for number in range(rollouts)
    ]


def summary(endings: list[Ending]) -> dict[str, float | None]:
    """Return the share of each outcome, and the median requests of the challenger until it."""
    found: dict[str, float | None] = {}
    for outcome in ("promoted", "dropped", "open"):
        found[outcome] = sum(end.outcome == outcome for end in endings) / len(endings)
    for outcome in ("promoted", "dropped"):
        requests = [end.requests for end in endings if end.outcome == outcome]
        found[f"median_requests_{outcome}"] = median(requests) if requests else None
    return found
