"""What was measured, held to what was asked for. Figures are rounded against us."""

import math
import statistics
from collections.abc import Iterator
from dataclasses import dataclass

from benchmarks.training.case import Results

DEFAULTS, BEST = 1.6, 1.1
"""Least factors over the Trainer."""
OVERHEAD = 0.05
"""Most share of a step that data and checkpoints may take together, on one device."""
SHAKESPEARE = 1.58
"""Nats a character."""


@dataclass(frozen=True)
class Target:
    """One line of the table."""

    name: str
    value: float
    bound: float
    at_least: bool = True

    @property
    def is_met(self) -> bool:
        # NaN compares false: what was not measured is not met.
        return self.value >= self.bound if self.at_least else self.value <= self.bound

    @property
    def shown(self) -> str:
        return f"{down(self.value, 2):.2f}" if self.at_least else f"{-down(-self.value, 3):.3f}"


def targets(results: Results) -> Iterator[Target]:
    """Every figure that a bound was set for; NaN for those that this run did not take."""
    ours = max((each.rate for each in results.measured if each.case.library == "sluice"), default=math.nan)
    defaults = results.of("transformers", "fp32", compiled=False)
    best = results.of("transformers", "bf16", compiled=True)
    yield Target(
        "our best over the Trainer's defaults, times", ours / defaults.rate if defaults else math.nan, DEFAULTS
    )
    yield Target("our best over the Trainer's bf16 compiled, times", ours / best.rate if best else math.nan, BEST)
    yield Target("share of a step for data and checkpoints", overhead(results), OVERHEAD, at_least=False)
    shakespeare = results.shakespeare
    mean = statistics.fmean(shakespeare.ours) if shakespeare and shakespeare.is_tiny_shakespeare else math.nan
    yield Target("tiny Shakespeare, nats a character", mean, SHAKESPEARE, at_least=False)


def overhead(results: Results) -> float:
    """Share of data and checkpoints on one device, in the Trainer's default setting."""
    found = results.of("sluice", "fp32", compiled=False)
    if found is None or results.data_share is None:
        return math.nan
    shares = [each.checkpoint_share for each in found.rounds if each.checkpoint_share is not None]
    return results.data_share + max(shares) if shares else math.nan


def down(value: float, digits: int) -> float:
    """Rounded down; not a number stays one."""
    return math.floor(value * 10**digits) / 10**digits if math.isfinite(value) else value
