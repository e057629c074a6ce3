"""A metric: what it measures of a model, how it summarizes it, and which checks the gate makes of it."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from sluice.core.check import Check, finite_or_none
from sluice.core.intervals import Interval, ratio_interval
from sluice.core.progress import Progress
from sluice.model.config import EvaluateConfig, GateSettings
from sluice.model.evaluation.results import Evaluation, Item

if TYPE_CHECKING:
    from sluice.model.architecture.transformer import Transformer
    from sluice.model.evaluation.held_out import HeldOut
    from sluice.model.text.prompt import PromptEncoder

DIGITS = 6  # of a result: what lies beyond is noise of float32 sums


@dataclass(frozen=True)
class Subject:
    """A model and the text to measure it on."""

    model: "Transformer"
    encoder: "PromptEncoder"
    held_out: "HeldOut"
    config: EvaluateConfig
    progress: Progress


@dataclass(frozen=True)
class Measured:
    """Outcome of a measurement. All but the timings is the same for the same model and text, to the byte."""

    items: Sequence[Item] = ()
    results: Mapping[str, Any] = field(default_factory=dict)
    """Further keys of results.json."""
    files: Mapping[str, Any] = field(default_factory=dict)
    """Further JSON files of the artifact, by name."""
    timings: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Metric:
    """One metric, as its file in sluice.model.evaluation.metrics defines it.

    `measure` imports what it needs (torch) itself: the gate and the run's summary import metrics, and measure nothing.
    """

    name: str
    title: str
    bounds: type[GateSettings]
    """The settings of the gate that this metric adds, as optional keys of the block `gate`."""
    measure: Callable[[Subject], Measured]
    check: Callable[[Evaluation, Any, float], Check]
    """(evaluation, bounds, confidence of an interval) -> check of the absolute bound."""
    compare: Callable[[Evaluation, Evaluation, Any, float], Check] | None = None
    """(candidate, champion, bounds, confidence of an interval) -> check of the paired difference."""
    intervals: int = 0
    """Confidence intervals in `check`."""
    paired_intervals: int = 0
    """Confidence intervals in `compare`."""
    summarize: Callable[[Sequence[Item], EvaluateConfig], dict[str, Any]] | None = None
    """Items -> value, n and interval in results.json; None for a metric without items."""
    report: Callable[[Mapping[str, Any]], Mapping[str, Any]] = lambda results: {}
    """results.json -> the figures of the step's report."""
    headline: Sequence[str] = ()
    """Figures of the report that the run's summary shows."""
    show: Callable[[float], str] = "{:.3f}".format


def summary(value: float, n: int, interval: Interval | None) -> dict[str, Any]:
    """Return a metric's entry in results.json."""
    return {"value": rounded(value), "n": n, "interval": [rounded(end) for end in interval] if interval else None}


def rounded(value: float) -> float | None:
    """Round to the digits of a result; None where it is not finite."""
    return finite_or_none(round(value, DIGITS) if np.isfinite(value) else value)


def mean(items: Sequence[Item]) -> float:
    """Return the mean value of the items, NaN without items."""
    return sum(item.value for item in items) / len(items) if items else math.nan


def bootstrap(items: Sequence[Item], config: EvaluateConfig) -> dict[str, Any]:
    """Summarize sum(value) / sum(weight) with its bootstrap interval."""
    values, weights = np.array([i.value for i in items]), np.array([i.weight for i in items])
    interval = ratio_interval(values, weights, config.confidence, config.resamples, config.seed)
    return summary(float(values.sum() / weights.sum()), len(items), interval)
