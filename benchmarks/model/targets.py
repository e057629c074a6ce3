"""What was measured, held to what was asked for. Figures are rounded against us."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

from benchmarks.model.results import Comparison, Results

SAME_PRECISION, BEST, GENERATION = 1.15, 1.6, 2.0
"""Least factors over transformers."""
DEFAULT = "fp32, eager"
"""Of transformers."""


@dataclass(frozen=True)
class Target:
    """One line of the table: how many times as fast as the peer."""

    name: str
    times: float
    least: float

    @property
    def is_met(self) -> bool:
        # NaN compares false: what was not measured is not met.
        return self.times >= self.least


def targets(results: Results) -> list[Target]:
    """Every comparison that a bound was set for. ValueError where nothing was compared."""
    held = [
        *(target for each in results.training for target in _training(each)),
        *(target for each in results.generation for target in _generation(each)),
    ]
    if not held:
        raise ValueError("nothing was compared: run the benchmark without --accelerator-only once")
    return held


def same_settings(compared: Comparison) -> Iterator[tuple[str, float]]:
    """Settings that both libraries ran in, and our rate over theirs."""
    for name, ours in compared.candidates.items():
        peer = f"transformers, {ours.case.setting}"
        if ours.case.library == "sluice" and peer in compared.candidates:
            yield name.removeprefix("sluice, "), ours.rate / compared.candidates[peer].rate


def _training(compared: Comparison) -> Iterator[Target]:
    where = f"{compared.shape}, {compared.sequence} tokens"
    for setting, times in same_settings(compared):
        yield Target(f"Training {where}: {setting}, both", times, SAME_PRECISION)
    yield _best(f"Training {where}", compared, BEST)


def _generation(compared: Comparison) -> Iterator[Target]:
    where = f"{compared.shape}, {compared.sequence} tokens in all, batch 1"
    for setting, times in same_settings(compared):
        yield Target(f"Generating {where}: {setting}, both", times, GENERATION)
    yield _best(f"Generating {where}", compared, GENERATION)


def _best(work: str, compared: Comparison, least: float) -> Target:
    ours, theirs = compared.best("sluice"), compared.of("transformers", DEFAULT)
    return Target(f"{work}: our {ours.case.setting} beside its {DEFAULT}", ours.rate / theirs.rate, least)


def down(value: float, digits: int) -> float:
    return math.floor(value * 10**digits) / 10**digits
