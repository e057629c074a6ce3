"""Rules that end a rollout: ours, at every poll (benchmarks/rollout/screen.py is the fast way), and its peers."""

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Literal, NamedTuple

import numpy as np
from scipy.stats import mannwhitneyu

from benchmarks.rollout.traffic import Pair
from sluice.monitoring.sequential import log_e_above
from sluice.serving.canary import RolloutDecision, RolloutState, decide
from sluice.serving.config import RolloutConfig
from sluice.serving.evidence import ReplayTotals, Reply

PAIRS_A_POLL = 2
"""The executor polls once four answers have come, with its default concurrency."""
TOKENS = 24


class Ending(NamedTuple):
    """The end of one rollout."""

    outcome: Literal["promoted", "dropped", "open"]
    requests: int
    """Requests to the challenger."""
    reason: str = ""


def ended(decision: RolloutDecision, requests: int) -> Ending | None:
    """Return the end that a decision makes of a rollout; None if it goes on. One that stays paused is open."""
    outcomes: dict[str, Literal["promoted", "dropped", "open"]] = {
        "promote": "promoted",
        "abort": "dropped",
        "suspend": "open",
    }
    outcome = outcomes.get(decision.action)
    return outcome and Ending(outcome, requests, decision.reason)


def every_poll(pairs: Iterator[Pair], replays_per_second: float, config: RolloutConfig) -> Ending:
    """Our rule: the real decision function, polled as the executor does."""
    totals, state, began = ReplayTotals(config), RolloutState(), 0
    for number, pair in enumerate(pairs, 1):
        totals.add(*(_reply(pair, arm) for arm in (0, 1)))
        if number % PAIRS_A_POLL:
            continue
        decision = decide(replace(state, elapsed_s=(number - began) / replays_per_second), totals.evidence, config)
        if (ending := ended(decision, number)) is not None:
            return ending
        if decision.action == "advance":
            began = number
        state = decision.state
    raise AssertionError("replays do not end")


def _reply(pair: Pair, arm: int) -> Reply:
    if pair.failed[arm]:
        return Reply("model_fault")
    return Reply("answered", pair.first_token_ms[arm], pair.between_tokens_ms[arm])


STEPS, REQUESTS_A_STEP, STEP_TIMEOUT_S, MAX_ERRORS, MAX_RATIO, ALPHA = 3, 30, 120.0, 0.02, 1.5, 0.05


def estimates(pairs: Iterator[Pair], replays_per_second: float, _: RolloutConfig) -> Ending:
    """The rule of earlier versions: a pass needs the point estimates alone, a drop an e-process or a bootstrap."""
    times: tuple[list[float], list[float]] = ([], [])
    step = errors = before = looks = next_look = 0
    peak, generator = 0.0, np.random.default_rng(1234)
    for number, pair in enumerate(pairs, 1):
        errors += pair.failed[1]
        for arm in (0, 1):
            if not pair.failed[arm]:
                times[arm].append(_per_token_ms(pair, arm))
        if number % PAIRS_A_POLL:
            continue
        peak = max(peak, log_e_above(errors, number, MAX_ERRORS))
        if peak >= -math.log(ALPHA / 2):
            return Ending("dropped", number, "errors")
        is_over = (number - before) / replays_per_second >= STEP_TIMEOUT_S
        is_due = min(map(len, times)) >= REQUESTS_A_STEP and len(times[1]) >= next_look
        if number - before >= REQUESTS_A_STEP and errors <= MAX_ERRORS * number and is_due:
            looks, next_look = looks + 1, 2 * len(times[1])
            point, lower = _p95_ratio(times, ALPHA / 2 * 6 / (math.pi * looks) ** 2, generator)
            if lower > MAX_RATIO:
                return Ending("dropped", number, "latency")
            if point <= MAX_RATIO:
                step, before, next_look = step + 1, number, 0
                if step == STEPS:
                    return Ending("promoted", number)
                continue
        if is_over:
            return Ending("dropped", number, "inconclusive")
    raise AssertionError("replays do not end")


def _p95_ratio(
    times: tuple[list[float], list[float]], alpha: float, generator: np.random.Generator
) -> tuple[float, float]:
    """Return the ratio of the p95s and the lower end of its bootstrap interval, resamples drawn as order statistics."""
    points, drawn = [], []
    for arm in times:
        values = np.sort(arm)
        k = math.ceil(0.95 * len(values))
        ranks = np.floor(len(values) * generator.beta(k, len(values) - k + 1, 10_000)).astype(int)
        points.append(values[k - 1])
        drawn.append(values[np.minimum(ranks, len(values) - 1)])
    return float(points[1] / points[0]), float(np.quantile(drawn[1] / drawn[0], alpha))


INTERVAL_S, INTERVALS, FAILURE_LIMIT = 30.0, 10, 3


def argo(pairs: Iterator[Pair], replays_per_second: float, _: RolloutConfig) -> Ending:
    """Thresholds on each interval, as an Argo Rollouts AnalysisTemplate has them (failureLimit 3)."""
    size, failures = max(1, round(INTERVAL_S * replays_per_second)), 0
    for interval in range(1, INTERVALS + 1):
        seen = [next(pairs) for _ in range(size)]
        errors = sum(pair.failed[1] for pair in seen) / size
        p95s = [
            np.quantile([_per_token_ms(pair, arm) for pair in seen if not pair.failed[arm]] or [math.inf], 0.95)
            for arm in (0, 1)
        ]
        failures += errors > MAX_ERRORS or p95s[1] > MAX_RATIO * p95s[0]
        if failures > FAILURE_LIMIT:
            return Ending("dropped", interval * size)
    return Ending("promoted", INTERVALS * size)


LOOKS, PAIRS_A_LOOK = 20, 15


def mann_whitney(pairs: Iterator[Pair], _: float, __: RolloutConfig) -> Ending:
    """One-sided Mann-Whitney tests of errors and times at 0.05, at each of 20 looks, on all answers so far."""
    seen: list[Pair] = []
    for look in range(1, LOOKS + 1):
        seen += [next(pairs) for _ in range(PAIRS_A_LOOK)]
        values = [[[float(pair.failed[arm]), _per_token_ms(pair, arm)] for pair in seen] for arm in (0, 1)]
        champion, challenger = (np.array(arm) for arm in values)
        levels = mannwhitneyu(challenger, champion, alternative="greater", method="asymptotic", axis=0).pvalue
        if np.nanmin(np.nan_to_num(levels, nan=1.0)) < ALPHA:
            return Ending("dropped", look * PAIRS_A_LOOK)
    return Ending("promoted", LOOKS * PAIRS_A_LOOK)


def _per_token_ms(pair: Pair, arm: int) -> float:
    return (pair.first_token_ms[arm] + (TOKENS - 1) * pair.between_tokens_ms[arm]) / TOKENS


PEERS = {"every-poll": every_poll, "estimates": estimates, "argo": argo, "mann-whitney": mann_whitney}
