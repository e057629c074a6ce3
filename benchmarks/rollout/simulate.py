"""Simulated rollouts, and what became of them."""

from collections.abc import Sequence
from statistics import median

import numpy as np

from benchmarks.rollout.rules import PEERS, Ending
from benchmarks.rollout.screen import Totals, ours
from benchmarks.rollout.traffic import Replays, Scenario
from sluice.serving.config import RolloutConfig

RULES = ("ours", *PEERS)


def simulate(
    scenario: Scenario, rollouts: int, seed: int, rule: str = "ours", max_error_increase: float | None = None
) -> list[Ending]:
    """Return the ends of simulated rollouts. Each has its own generator, so more rollouts keep the first ones."""
    config = RolloutConfig.model_validate({"max_error_increase": max_error_increase})
    return simulate_speeds(scenario, [scenario.replays_per_second], rollouts, seed, rule, config=config)[0]


def simulate_speeds(
    scenario: Scenario,
    replays_per_second: Sequence[float],
    rollouts: int,
    seed: int,
    rule: str,
    *,
    config: RolloutConfig,
) -> list[list[Ending]]:
    """Return `simulate` at each of the speeds, with the same answers of both arms."""
    endings: list[list[Ending]] = [[] for _ in replays_per_second]
    for number in range(rollouts):
        replays = Replays(scenario, np.random.default_rng([seed, number]))
        totals: Totals | None = None
        for speed, ends in zip(replays_per_second, endings, strict=True):
            if rule != "ours":
                ends.append(PEERS[rule](replays.pairs(speed), speed, config))
                continue
            # Bursts come by the clock; without them, the totals are the same at any speed.
            if totals is None or scenario.bursts:
                totals = Totals(replays, speed, config)
            ends.append(ours(totals, speed, config))
    return endings


def summary(endings: list[Ending]) -> dict[str, float | None]:
    """Return the share of each outcome, and the median requests of the challenger until it."""
    found: dict[str, float | None] = {}
    for outcome in ("promoted", "dropped", "open"):
        found[outcome] = sum(end.outcome == outcome for end in endings) / len(endings)
    for outcome in ("promoted", "dropped"):
        requests = [end.requests for end in endings if end.outcome == outcome]
        found[f"median_requests_{outcome}"] = median(requests) if requests else None
    return found
