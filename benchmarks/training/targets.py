"""What was measured, held to what was asked for. Figures are rounded against us."""

import math
import statistics
from collections.abc import Iterator
from dataclasses import dataclass

from benchmarks.model.shapes import ACCELERATOR_SHAPES
from benchmarks.training.case import Measured
from benchmarks.training.results import Results

DEFAULTS, BEST = 1.6, 1.1
"""Least factors over the Trainer."""
OVERHEAD = 0.05
"""Most share of the time that communication, data and checkpoints may take together, on one device."""
SOON = 10
"""Steps in which a resumed run is compared before rounding has grown."""
SAVE_EVERY = 100
"""Steps between checkpoints that the share counts with, those of the laptop's profile."""
SHAKESPEARE = 1.58
"""Nats a character."""
RESUMED = 1e-5
"""Most that losses and weights may differ, nats a token and in themselves, where another layout goes on."""
MFU = 0.5
"""Least share of a GPU's dense bf16 peak, by its data sheet."""
_TINY = 1e-3


@dataclass(frozen=True)
class Target:
    """One line of the table."""

    name: str
    value: float
    bound: float
    at_least: bool = True
    is_judged: bool = True
    """False for what a busy machine measured: it is shown, and is no pass."""

    @property
    def is_met(self) -> bool:
        # NaN compares false: what was not measured is not met.
        if not self.is_judged:
            return False
        return self.value >= self.bound if self.at_least else self.value <= self.bound

    @property
    def shown(self) -> str:
        if self.at_least:
            return f"{down(self.value, 2):.2f}"
        return _tiny(self.value) if 0 < self.value < _TINY else f"{0.0 - down(-self.value, 3):.3f}"


@dataclass(frozen=True)
class Shares:
    """Of the time of a run on one device with a checkpoint every `SAVE_EVERY` steps."""

    communication: float
    data: float
    checkpoints: float
    save_seconds: float
    """That a checkpoint takes from the run, its writing beside the steps included."""
    snapshot_seconds: float
    """Of those, what holds the steps up at once."""
    pace: float
    """Tokens a second with the checkpoints of the measured case, over those without."""

    @property
    def together(self) -> float:
        return self.communication + self.data + self.checkpoints


def targets(results: Results) -> Iterator[Target]:
    """Every figure that a bound was set for; NaN for those that this run did not take."""
    # As many processes as the Trainer has: two ranks that share the cores are told of by themselves.
    own = [each.rate for each in results.measured if each.case.library == "sluice" and each.case.ranks == 1]
    ours, quiet = max(own, default=math.nan), not results.busy_at("speed")
    defaults = results.of("transformers", "fp32", compiled=False)
    best = results.of("transformers", "bf16", compiled=True)
    over_defaults = ours / defaults.rate if defaults else math.nan
    over_best = ours / best.rate if best else math.nan
    yield Target("our best over the Trainer's defaults, times", over_defaults, DEFAULTS, is_judged=quiet)
    yield Target("our best over the Trainer's bf16 compiled, times", over_best, BEST, is_judged=quiet)
    found = shares(results)
    together = found.together if found else math.nan
    yield Target("share of communication, data and checkpoints", together, OVERHEAD, at_least=False, is_judged=quiet)
    shakespeare = results.shakespeare
    mean = statistics.fmean(shakespeare.ours) if shakespeare and shakespeare.is_tiny_shakespeare else math.nan
    yield Target("tiny Shakespeare, nats a character", mean, SHAKESPEARE, at_least=False)
    same = [each for each in results.resumed if each.same_layout]
    lost = max((len(each.resumed) - each.identical + (not each.weights_identical) for each in same), default=math.nan)
    yield Target("killed and resumed: losses of 50, and weights, that are not the same bits", lost, 0, at_least=False)
    moved = [each for each in results.resumed if not each.same_layout]
    soon = max((each.loss_apart_within(SOON) for each in moved), default=math.nan)
    yield Target(f"resumed in another layout: the next {SOON} losses apart", soon, RESUMED, at_least=False)
    apart = max((max(each.loss_apart, each.weights_apart) for each in moved), default=math.nan)
    yield Target("resumed in another layout: losses of 50, and weights, apart", apart, RESUMED, at_least=False)
    found_there = results.accelerated
    device, peak = (found_there.device, found_there.peak_flops) if found_there else ("a GPU", None)
    for shape in ACCELERATOR_SHAPES:
        # Without a data sheet there is nothing to hold it to.
        mfu = found_there.best(shape) / peak if found_there and peak else math.nan
        yield Target(f"MFU on {device}, {shape}", mfu, MFU)


def shares(results: Results) -> Shares | None:
    """From the runs with and without checkpoints in the Trainer's default setting; None where one was not made."""
    plain = results.of("sluice", "fp32", compiled=False)
    saving = results.of("sluice", "fp32", compiled=False, saves=True)
    if plain is None or saving is None:
        return None
    data = _largest(plain, "data_share")
    communication = _largest(plain, "communication_share")
    snapshot = _largest(saving, "snapshot_seconds")
    lost = plain.case.counted_tokens * (1 / saving.rate - 1 / plain.rate) / saving.case.saves
    # The pace of the two runs differs by chance too, but what held the steps up is known.
    each = max(lost, snapshot)
    step_seconds = plain.case.rows * plain.case.sequence / plain.rate
    share = each / (each + SAVE_EVERY * step_seconds)
    return Shares(communication, data, share, each, snapshot, saving.rate / plain.rate)


def _largest(measured: Measured, name: str) -> float:
    """Of all rounds; NaN where a round did not see it."""
    found = [getattr(each, name) for each in measured.rounds]
    return math.nan if None in found else max(found)


def _tiny(value: float) -> str:
    """Two digits of a number below one, rounded up."""
    exponent = math.floor(math.log10(value))
    return f"{math.ceil(value * 10 ** (1 - exponent)) / 10:.1f}e{exponent:03d}"


def down(value: float, digits: int) -> float:
    """Rounded down; not a number stays one."""
    return math.floor(value * 10**digits) / 10**digits if math.isfinite(value) else value
