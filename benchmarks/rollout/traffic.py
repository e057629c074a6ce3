"""Simulated replays: what two arms with known error rates and speeds answer."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

BLOCK = 512
FIRST_TOKEN_MS, BETWEEN_TOKENS_MS = 50.0, 20.0
BURST_EVERY_S, BURST_S, BURST_ERRORS = 300.0, 15.0, 0.5
"""Mean time between bursts that both arms share, their mean length, and the error rate of either arm in them."""


@dataclass(frozen=True)
class Scenario:
    """True rates of both arms. Times are log-normal with the standard deviation `latency_spread` of their logs."""

    true_errors: float = 0.005
    """Of the challenger."""
    champion_errors: float = 0.005
    latency_ratio: float = 1.0
    """Challenger's times over the champion's, at every quantile."""
    latency_spread: float = 0.5
    slow_signal: str = "both"
    """Which times the ratio applies to: first_token, between_tokens or both."""
    shared_errors: float = 0.0
    """Share of the prompts on which both arms fail for one cause."""
    bursts: bool = False
    replays_per_second: float = 2.5
    """Prompts replayed to both arms."""


@dataclass(frozen=True)
class Pair:
    """The answers of both arms, champion first, to one prompt."""

    failed: tuple[bool, bool]
    first_token_ms: tuple[float, float]
    between_tokens_ms: tuple[float, float]


def replays(scenario: Scenario, generator: np.random.Generator) -> Iterator[Pair]:
    """Yield pairs without end."""
    rates = np.array([scenario.champion_errors, scenario.true_errors])
    factors = [scenario.latency_ratio if scenario.slow_signal in (name, "both") else 1.0 for name in _BASE_MS]
    time_s, burst_at, burst_ends = 0.0, generator.exponential(BURST_EVERY_S), 0.0
    while True:
        failed = generator.random((BLOCK, 2)) < rates
        failed |= generator.random((BLOCK, 1)) < scenario.shared_errors
        times = []
        for base_ms, factor in zip(_BASE_MS.values(), factors, strict=True):
            drawn = base_ms * np.exp(scenario.latency_spread * generator.standard_normal((BLOCK, 2)))
            times.append((drawn * [1.0, factor]).tolist())
        burst_fails = (generator.random((BLOCK, 2)) < BURST_ERRORS).tolist()
        for each, is_bad, first, between in zip(failed.tolist(), burst_fails, *times, strict=True):
            if scenario.bursts and time_s >= burst_at:
                burst_ends = time_s + generator.exponential(BURST_S)
                burst_at = burst_ends + generator.exponential(BURST_EVERY_S)
            in_burst = time_s < burst_ends
            champion, challenger = (each[arm] or (in_burst and is_bad[arm]) for arm in (0, 1))
            yield Pair((champion, challenger), tuple(first), tuple(between))
            time_s += 1 / scenario.replays_per_second


_BASE_MS = {"first_token": FIRST_TOKEN_MS, "between_tokens": BETWEEN_TOKENS_MS}
