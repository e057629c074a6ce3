"""Simulated replays: what two arms with known error rates and speeds answer."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

BLOCK = 256
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


class Block(NamedTuple):
    """`BLOCK` prompts, each array of the shape [prompts, arms], champion first."""

    failed: npt.NDArray[np.bool_]
    burst_failed: npt.NDArray[np.bool_]
    """Who fails on them in a burst, besides."""
    first_token_ms: npt.NDArray[np.float64]
    between_tokens_ms: npt.NDArray[np.float64]


@dataclass(frozen=True)
class Pair:
    """The answers of both arms, champion first, to one prompt."""

    failed: tuple[bool, bool]
    first_token_ms: tuple[float, float]
    between_tokens_ms: tuple[float, float]


class Replays:
    """Prompts of one rollout without end, the same at any speed but for the bursts, which come by the clock."""

    def __init__(self, scenario: Scenario, generator: np.random.Generator) -> None:
        self._scenario = scenario
        self._generator, self._burst_generator = generator, generator.spawn(1)[0]
        self._blocks: list[Block] = []
        self._burst_edges = np.zeros(1)
        """The start, and by turns the beginning and the end of each burst, in seconds."""

    def block(self, index: int) -> Block:
        """Return the block `index`, drawing those before it as needed."""
        while len(self._blocks) <= index:
            self._blocks.append(self._draw())
        return self._blocks[index]

    def failed(self, index: int, replays_per_second: float) -> npt.NDArray[np.bool_]:
        """Return who failed in the block `index` if the prompts are replayed at that speed."""
        block = self.block(index)
        if not self._scenario.bursts:
            return block.failed
        times_s = (index * BLOCK + np.arange(BLOCK)) / replays_per_second
        while self._burst_edges[-1] <= times_s[-1]:
            pause_s, burst_s = (self._burst_generator.exponential(mean) for mean in (BURST_EVERY_S, BURST_S))
            begins_s = self._burst_edges[-1] + pause_s
            self._burst_edges = np.append(self._burst_edges, [begins_s, begins_s + burst_s])
        in_burst = np.searchsorted(self._burst_edges, times_s, side="right") % 2 == 0
        return block.failed | (block.burst_failed & in_burst[:, np.newaxis])

    def pairs(self, replays_per_second: float) -> Iterator[Pair]:
        """Yield the prompts one by one, without end."""
        index = 0
        while True:
            block, failed = self.block(index), self.failed(index, replays_per_second)
            columns = (each.tolist() for each in (failed, block.first_token_ms, block.between_tokens_ms))
            for each, first, between in zip(*columns, strict=True):
                yield Pair(tuple(each), tuple(first), tuple(between))
            index += 1

    def _draw(self) -> Block:
        scenario, generator = self._scenario, self._generator
        failed = generator.random((BLOCK, 2)) < [scenario.champion_errors, scenario.true_errors]
        failed |= generator.random((BLOCK, 1)) < scenario.shared_errors
        times = []
        for name, base_ms in (("first_token", FIRST_TOKEN_MS), ("between_tokens", BETWEEN_TOKENS_MS)):
            factor = scenario.latency_ratio if scenario.slow_signal in (name, "both") else 1.0
            drawn = np.exp(scenario.latency_spread * generator.standard_normal((BLOCK, 2)))
            times.append(base_ms * drawn * [1.0, factor])
        return Block(failed, generator.random((BLOCK, 2)) < BURST_ERRORS, *times)
