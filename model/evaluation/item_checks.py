"""Conditions that a metric's rows meet before the gate compares anything: finite, complete, enough, and paired."""

import math
from collections.abc import Sequence

import numpy as np

from sluice.core.check import Check, not_finite, too_few
from sluice.core.intervals import Floats
from sluice.model.evaluation.results import Evaluation, Item


def unusable(
    metric: str, evaluation: Evaluation, rows: str, bound: float, *, min_samples: int, owner: str = ""
) -> Check | None:
    """Return the check that says why `evaluation`'s rows cannot be judged, or None where they can.

    `metric` names the check, `rows` the metric whose rows it needs. NaN outranks missing data.
    """
    items, planned = evaluation.items.get(rows, ()), evaluation.planned(rows)
    label, n = f"{owner}{rows}", len(items)
    broken = sum(not (math.isfinite(i.value) and math.isfinite(i.weight) and i.weight > 0) for i in items)
    if broken:
        return not_finite(metric, broken, n, bound, label=label)
    if n != planned:
        reason = f"{label} n={n} of {planned} planned items"
        return Check(metric=metric, bound=bound, n=n, outcome="inconclusive", reason=reason)
    if n < min_samples:
        return too_few(metric, n, min_samples, bound, label=label)
    return None


def not_paired(
    metric: str, candidate: Evaluation, champion: Evaluation, rows: str, bound: float, *, min_samples: int
) -> Check | None:
    """Return the check that says why two models' rows cannot be compared, or None where they can.

    The same items with the same weights are paired data.
    """
    found = [
        unusable(metric, candidate, rows, bound, min_samples=min_samples),
        unusable(metric, champion, rows, bound, min_samples=min_samples, owner="champion's "),
    ]
    faults = sorted((check for check in found if check), key=lambda check: check.outcome != "fail")
    if faults:
        return faults[0].model_copy(update={"n": len(candidate.items.get(rows, ()))})
    keys = [sorted((i.item, i.weight) for i in evaluation.items[rows]) for evaluation in (candidate, champion)]
    if keys[0] != keys[1]:
        shared = len(set(keys[0]) & set(keys[1]))
        reason = f"{rows}: champion shares {shared} of {len(keys[0])} items; evaluate it on this set"
        return Check(metric=metric, bound=bound, n=len(keys[0]), outcome="inconclusive", reason=reason)
    return None


def columns(items: Sequence[Item]) -> tuple[Floats, Floats]:
    """Return values [items] and weights [items] in the order of the items' hashes, whatever the order of the rows."""
    ordered = sorted(items, key=lambda item: item.item)
    return np.array([i.value for i in ordered]), np.array([i.weight for i in ordered])
