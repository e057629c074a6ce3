"""A metric: what it measures of a model, how it summarizes it, and by which bounds the gate judges it by default."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from sluice.core.check import finite_or_none
from sluice.core.clustered import interval
from sluice.core.intervals import Interval
from sluice.core.progress import Progress
from sluice.model.config import EvaluateConfig
from sluice.model.evaluation.finding import GateFinding
from sluice.model.evaluation.item_checks import estimate
from sluice.model.evaluation.metric_policy import MetricPolicy
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
    policy: MetricPolicy
    """Default bounds and scale; a policy file may change each."""
    measure: Callable[[Subject], Measured]
    floor: Callable[[Evaluation, MetricPolicy], float | None] = lambda evaluation, policy: policy.floor
    """The absolute bound, where it depends on the evaluation: chance of a multiple choice."""
    reference: Callable[[Evaluation], Mapping[str, float]] | None = None
    """Values of a reference by item (a byte n-gram model), which a first version must beat."""
    planned: "Callable[[HeldOut, EvaluateConfig], int] | None" = None
    """Items that the settings and the text plan, whatever came back; None for a metric without items."""
    file_hash: str | None = None
    """Key of the evaluation's hashes that covers the file of the metric's items; None: they come from the data."""
    check: Callable[[Evaluation, MetricPolicy], GateFinding] | None = None
    """The check of the absolute bound of a metric without items; None: the gate's own check of the items."""
    summarize: Callable[[Sequence[Item], EvaluateConfig], dict[str, Any]] | None = None
    """Items -> value, n, clusters and interval in results.json; None for a metric without items."""
    report: Callable[[Mapping[str, Any]], Mapping[str, Any]] = lambda results: {}
    """results.json -> the figures of the step's report."""
    headline: Sequence[str] = ()
    """Figures of the report that the run's summary shows."""
    show: Callable[[float], str] = "{:.3f}".format


def summarize(items: Sequence[Item], policy: MetricPolicy, confidence: float) -> dict[str, Any]:
    """Summarize sum(value) / sum(weight) with its interval by cluster."""
    finite = all(math.isfinite(item.value) for item in items)
    found = estimate(items, policy)
    ends = interval(found, (1 - confidence) / 2) if finite else Interval(math.nan, math.nan)
    return summary(found.value, found.n, ends) | {"clusters": found.clusters}


def summary(value: float, n: int, ends: Interval | None) -> dict[str, Any]:
    """Return a metric's entry in results.json."""
    return {"value": rounded(value), "n": n, "interval": [rounded(end) for end in ends] if ends else None}


def rounded(value: float) -> float | None:
    """Round to the digits of a result; None where it is not finite."""
    return finite_or_none(round(value, DIGITS) + 0.0 if np.isfinite(value) else value)  # -0.0 is 0


def mean(items: Sequence[Item]) -> float:
    """Return the mean value of the items, NaN without items."""
    return sum(item.value for item in items) / len(items) if items else math.nan
