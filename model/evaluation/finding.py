"""A check before the gate's verdict: passed or not at its own level, with its evidence that the bound is broken."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sluice.core.check import Check, Side, compare_interval
from sluice.core.clustered import ClusteredEstimate, interval
from sluice.model.evaluation.power import clusters_to_decide

Show = Callable[[float], str]


@dataclass(frozen=True)
class GateFinding:
    """A check whose failure by chance the gate still has to rule out, together with that of all others."""

    check: Check
    """`fail` only where it is certain: NaN, or a value without sampling error."""
    p_bad: float = 1.0
    """Evidence that the bound is broken: p-value of "it is kept"."""


def judge(
    metric: str,
    estimate: ClusteredEstimate,
    bound: float,
    *,
    good: Side,
    alpha: float,
    paired: tuple[float, float] | None = None,
    show: Show = "{:.3f}".format,
    note: str = "",
) -> GateFinding:
    """Compare an estimate with a bound: a pass where its one-sided limit at `alpha` keeps the bound."""
    ends = interval(estimate, alpha)
    check = compare_interval(
        metric,
        estimate.value,
        ends,
        bound,
        good=good,
        n=estimate.n,
        clusters=estimate.clusters,
        paired=paired,
        show=show,
        note=f", clusters={estimate.clusters}{note}",
    )
    if check.outcome == "pass" or math.isnan(estimate.value):
        return GateFinding(check)
    p_bad = estimate.p_value(bound, "above" if good == "below" else "below")
    decided_by = clusters_to_decide(estimate, ends, bound, good=good)
    reason = f"{check.reason}; {decided_by}" if check.outcome == "inconclusive" else check.reason
    return GateFinding(check.model_copy(update={"outcome": "inconclusive", "reason": reason}), p_bad)


def holm(p_values: Sequence[float]) -> list[float]:
    """Return the p-values adjusted by Holm's method (1979), in the given order.

    Written out because statsmodels' `multipletests` collects garbage, which costs more than the rest of a decision.
    """
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    adjusted, largest = [1.0] * len(p_values), 0.0
    for rank, at in enumerate(order):
        largest = max(largest, min((len(p_values) - rank) * p_values[at], 1.0))
        adjusted[at] = largest
    return adjusted
