"""A measured value compared with a bound: pass, fail or inconclusive, and the comparison in words.

Tokenizer gate, evaluation gate, canary, service level objectives and drift all return `Check`. The functions here are
the comparisons they share. They differ in what a pass needs:

| function | pass | fail | inconclusive |
|---|---|---|---|
| `compare_interval` | the whole interval lies on the good side | the whole interval lies on the bad side | otherwise |
| `compare_estimate` | the estimate keeps the bound | the whole interval lies on the bad side | otherwise |
| `compare_exact` | the value keeps the bound | it does not | never |

NaN fails. Without enough items the outcome is inconclusive (`too_few`), never a pass.
"""

import math
from collections.abc import Callable
from typing import Literal

from pydantic import BaseModel, ConfigDict

Outcome = Literal["pass", "fail", "inconclusive", "not_judged"]
"""`not_judged`: too little data for a check that nothing waits for, such as one of the gate's optional slices."""
Side = Literal["below", "above"]
"""A side of a number. The good one of a bound is `below` for a maximum, `above` for a minimum."""


class Check(BaseModel):
    """One comparison of a measured value with a bound."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    metric: str
    value: float | None = None
    """None where there is no finite number; the reason then says why."""
    baseline: float | None = None
    """The other model's value on the same items, where the check compares two models."""
    interval: tuple[float | None, float | None] | None = None
    """Confidence interval of the value, or of value minus baseline where there is a baseline; None for an exact value,
    and None at an end that is not finite.
    """
    bound: float
    n: int
    clusters: int | None = None
    """Independent groups among the `n` items, where items of one group are alike."""
    outcome: Outcome
    reason: str
    """The comparison, such as `bytes_per_token 3.1 < 3.5, n=40`."""

    @property
    def passed(self) -> bool:
        return self.outcome == "pass"


def finite_or_none(value: float) -> float | None:
    """Replace NaN and infinity by None, because JSON has neither."""
    return float(value) if math.isfinite(value) else None


def too_few(metric: str, n: int, least: int, bound: float, *, unit: str = "samples", label: str = "") -> Check:
    """Return the inconclusive check for fewer items than are needed."""
    reason = f"{label or metric} n={n} < {max(least, 1)} {unit}"
    return Check(metric=metric, bound=bound, n=n, outcome="inconclusive", reason=reason)


def not_finite(metric: str, bad: int, n: int, bound: float, *, label: str = "") -> Check:
    """Return the failed check for `bad` values among `n` that are NaN or infinite."""
    reason = f"{bad} of {n} values of {label or metric} are NaN or infinite"
    return Check(metric=metric, bound=bound, n=n, outcome="fail", reason=reason)


def compare_interval(
    metric: str,
    value: float,
    interval: tuple[float, float],
    bound: float,
    *,
    good: Side,
    n: int,
    clusters: int | None = None,
    paired: tuple[float, float] | None = None,
    show: Callable[[float], str] = "{:.3f}".format,
    note: str = "",
) -> Check:
    """Pass or fail only where the whole interval lies on one side of the bound.

    `paired` is (value, baseline) of two models whose difference `value` and `interval` measure; `note` ends the reason.
    """
    low, high = interval
    under, over = high < bound, low > bound
    passed, failed = (under, over) if good == "below" else (over, under)
    outcome: Outcome = "pass" if passed else "fail" if failed else "inconclusive"
    if any(map(math.isnan, (value, low, high))):
        outcome = "fail"
    relation = "<" if under else ">" if over else "straddles"
    return Check(
        metric=metric,
        value=finite_or_none(paired[0] if paired else value),
        baseline=finite_or_none(paired[1]) if paired else None,
        interval=(finite_or_none(low), finite_or_none(high)),
        bound=bound,
        n=n,
        clusters=clusters,
        outcome=outcome,
        reason=f"{metric} {show(value)} [{show(low)}, {show(high)}] {relation} {show(bound)}, n={n}{note}",
    )


def compare_estimate(
    metric: str,
    value: float,
    interval: tuple[float, float],
    bound: float,
    *,
    good: Side,
    n: int,
    clusters: int | None = None,
    label: str = "",
    show: Callable[[float], str] = "{:.3f}".format,
) -> Check:
    """Pass where the estimate keeps the bound; fail only where the whole interval lies beyond it."""
    low, high = interval
    kept, sign = _kept(value, bound, good)
    nearest = low if good == "below" else high
    beyond = low > bound if good == "below" else high < bound
    outcome: Outcome = "pass" if kept else "fail" if beyond or math.isnan(value) else "inconclusive"
    end = "begins" if good == "below" else "ends"
    doubt = f" (but the interval {end} at {show(nearest)})" if outcome == "inconclusive" else ""
    return Check(
        metric=metric,
        value=finite_or_none(value),
        interval=(finite_or_none(low), finite_or_none(high)),
        bound=bound,
        n=n,
        clusters=clusters,
        outcome=outcome,
        reason=f"{label or metric} {show(value)} {sign} {show(bound)}{doubt}, n={n}",
    )


def compare_exact(
    metric: str,
    value: float,
    bound: float,
    *,
    good: Side,
    n: int,
    label: str = "",
    show: Callable[[float], str] = "{:.3f}".format,
) -> Check:
    """Pass where the value keeps the bound, fail otherwise: for a value that has no sampling error."""
    kept, sign = _kept(value, bound, good)
    name = label or metric
    reason = f"{name} {show(value)} {sign} {show(bound)}, n={n}"
    if math.isnan(value):
        reason = f"{name} is NaN, bound {show(bound)}, n={n}"
    return Check(
        metric=metric,
        value=finite_or_none(value),
        bound=bound,
        n=n,
        outcome="pass" if kept else "fail",
        reason=reason,
    )


def _kept(value: float, bound: float, good: Side) -> tuple[bool, str]:
    """Return whether `value` keeps a bound that it may equal, and the sign of the comparison."""
    if good == "below":
        return value <= bound, "<=" if value <= bound else ">"
    return value >= bound, ">=" if value >= bound else "<"
