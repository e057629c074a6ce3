"""The summary of a suite's metric in results.json."""

import math
from collections.abc import Sequence
from typing import Any

from sluice.model.config import EvaluateConfig
from sluice.model.evaluation.metric import summarize, summary
from sluice.model.evaluation.metric_policy import MetricPolicy
from sluice.model.evaluation.results import Item

CONTAMINATED = "contaminated"
"""Metadata of an item: yes where its text stands in what the model may have been trained on."""


def summarize_suite_metric(items: Sequence[Item], config: EvaluateConfig) -> dict[str, Any]:
    """Return value, n, clusters and interval; with contaminated items also those of the others alone."""
    found = _summarize(items, config)
    marked = [item for item in items if item.metadata.get(CONTAMINATED) == "yes"]
    if any(CONTAMINATED in item.metadata for item in items):
        clean = [item for item in items if item.metadata.get(CONTAMINATED) != "yes"]
        found |= {"contaminated_items": len(marked), "without_contaminated": _summarize(clean, config)}
    return found


def _summarize(items: Sequence[Item], config: EvaluateConfig) -> dict[str, Any]:
    if not items:
        return summary(math.nan, 0, None) | {"clusters": 0}
    # Most are shares of right answers; a task of lm-eval also has bits over bytes, which no rate's interval fits.
    is_rate = all(item.weight == 1.0 and not (item.value < 0 or item.value > 1) for item in items)
    return summarize(items, MetricPolicy(scale="rate" if is_rate else "mean"), config.confidence)
