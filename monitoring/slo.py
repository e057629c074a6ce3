"""Service level objectives: each check compares a measurement and its interval with a bound, and says so.

`pass`: the measurement keeps the bound. `fail`: its whole confidence interval lies beyond the bound, or a number is
NaN. `inconclusive`: too few requests, or beyond the bound but not clearly. What no data can show is never a pass.
"""

import math
from collections.abc import Callable
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike
from pydantic import BaseModel, ConfigDict
from scipy import special, stats

Outcome = Literal["pass", "fail", "inconclusive"]

BURN_WINDOWS = ((14.4, 3600.0, 300.0), (6.0, 21_600.0, 1800.0))
"""Burn rate, long and short window in seconds: the paging alerts of the SRE workbook, chapter 5."""


class Check(BaseModel):
    """One comparison. `value` and the ends of its interval are None where there is no finite number."""

    model_config = ConfigDict(frozen=True)

    name: str
    value: float | None = None
    low: float | None = None
    high: float | None = None
    bound: float
    n: int
    outcome: Outcome
    reason: str


def wilson_interval(errors: int, requests: int, confidence: float = 0.95) -> tuple[float, float]:
    """Two-sided interval of a rate (Wilson 1927): sane for few requests and for no errors at all."""
    if requests < 1 or not 0 <= errors <= requests:
        raise ValueError(f"errors {errors} must lie between 0 and requests {requests}, which must be at least 1")
    z = float(special.ndtri(0.5 + confidence / 2))
    rate, weight = errors / requests, z * z / requests
    centre = (rate + weight / 2) / (1 + weight)
    half = z / (1 + weight) * math.sqrt(rate * (1 - rate) / requests + weight / requests / 4)
    # At 0 and 1 the formula is exact, floating point is not.
    return 0.0 if errors == 0 else centre - half, 1.0 if errors == requests else centre + half


def quantile_interval(values: ArrayLike, quantile: float, confidence: float = 0.95) -> tuple[float, float, float]:
    """(estimate, low, high) of a quantile by order statistics, whatever the distribution.

    The ranks come from the binomial count of values below the true quantile; an end for which the sample has no value
    far enough out is -inf or inf. `values` [n] may hold inf, not NaN.
    """
    ordered = np.sort(np.asarray(values, dtype=np.float64))
    n = len(ordered)
    if n == 0 or np.isnan(ordered[-1]):
        raise ValueError(f"a quantile needs values, none of them NaN; got n={n}")
    tail = (1 - confidence) / 2
    low_rank = int(stats.binom.ppf(tail, n, quantile))
    high_rank = int(stats.binom.ppf(1 - tail, n, quantile)) + 1
    estimate = ordered[max(math.ceil(quantile * n), 1) - 1]
    low = ordered[low_rank - 1] if low_rank >= 1 else -math.inf
    high = ordered[high_rank - 1] if high_rank <= n else math.inf
    return float(estimate), float(low), float(high)


def error_rate_slo(
    errors: int, requests: int, bound: float, *, min_requests: int, confidence: float = 0.95, name: str = "error_rate"
) -> Check:
    """The objective "error rate <= bound"."""
    if requests < max(min_requests, 1):
        return _too_few(name, bound, requests, min_requests)
    measured = (errors / requests, *wilson_interval(errors, requests, confidence))
    return _compare(name, name.replace("_", " "), measured, bound, n=requests, show="{:.2%}".format)


def latency_slo(
    latencies_ms: ArrayLike,
    bound_ms: float,
    *,
    min_requests: int,
    quantile: float = 0.95,
    confidence: float = 0.95,
    name: str = "first_token_ms",
) -> Check:
    """The objective "this quantile of the latency <= bound"; `latencies_ms` [requests].

    Give a request that failed as inf: a server that drops its slow requests must not look fast.
    """
    values = np.asarray(latencies_ms, dtype=np.float64)
    label = f"{name} p{quantile * 100:g}"
    not_a_number = int(np.isnan(values).sum())
    if not_a_number:
        return non_finite(label.replace(" ", "_"), name, not_a_number, len(values), bound_ms)
    if len(values) < max(min_requests, 1):
        return _too_few(label.replace(" ", "_"), bound_ms, len(values), min_requests)
    measured = quantile_interval(values, quantile, confidence)
    return _compare(label.replace(" ", "_"), label, measured, bound_ms, n=len(values), show="{:.0f} ms".format)


def numbers_slo(values: ArrayLike, *, min_requests: int, name: str) -> Check:
    """The objective "every value is finite"; one NaN or infinity among `values` [requests] is a failure."""
    numbers = np.asarray(values, dtype=np.float64)
    bad = int((~np.isfinite(numbers)).sum())
    if bad:
        return non_finite(f"{name}_finite", name, bad, len(numbers), 0.0)
    if len(numbers) < max(min_requests, 1):
        return _too_few(f"{name}_finite", 0.0, len(numbers), min_requests)
    reason = f"0 values of {name} are NaN or infinite, n={len(numbers)}"
    return Check(name=f"{name}_finite", value=0.0, bound=0.0, n=len(numbers), outcome="pass", reason=reason)


def burn_rate_slos(
    times_s: ArrayLike, failed: ArrayLike, *, now: float, budget: float, min_requests: int, confidence: float = 0.95
) -> list[Check]:
    """Multi-window burn rates of the error budget: error rate over `budget` in the long and in the short window.

    `times_s` [requests] epoch seconds, `failed` [requests] booleans. A check fails when the long window's interval lies
    beyond the burn rate and the short window shows that it goes on. No check is given for a long window with fewer than
    `min_requests` (a quiet hour burns nothing, and it is the objective over the whole window that may not do without
    data), nor for a burn rate that even an error rate of 100 % would not reach.
    """
    if not 0 < budget < 1:
        raise ValueError(f"error budget {budget} must lie between 0 and 1")
    times, bad = np.asarray(times_s, dtype=np.float64), np.asarray(failed, dtype=bool)
    checks = []
    for factor, long_s, short_s in BURN_WINDOWS:
        recent = bad[(times > now - long_s) & (times <= now)]
        latest = bad[(times > now - short_s) & (times <= now)]
        if len(recent) < max(min_requests, 1) or factor * budget >= 1:
            continue
        low, high = wilson_interval(int(recent.sum()), len(recent), confidence)
        burns = float(recent.mean()) / budget, low / budget, high / budget
        name, label = f"burn_rate_{long_s / 3600:g}h", f"burn rate over {long_s / 3600:g} h"
        check = _compare(name, label, burns, factor, n=len(recent), show="{:.1f}x".format)
        if check.outcome != "pass":
            latest_burn = float(latest.mean()) / budget if len(latest) else 0.0
            goes_on, sign = latest_burn > factor, ">" if latest_burn > factor else "<="
            reason = f"{check.reason}; over {short_s / 60:g} min {latest_burn:.1f}x {sign} {factor:g}x, n={len(latest)}"
            check = check.model_copy(update={"reason": reason, "outcome": check.outcome if goes_on else "pass"})
        checks.append(check)
    return checks


def non_finite(name: str, values_name: str, bad: int, n: int, bound: float) -> Check:
    """The failure that NaN or infinite values are."""
    reason = f"{bad} of {n} values of {values_name} are NaN or infinite"
    return Check(name=name, value=None, bound=bound, n=n, outcome="fail", reason=reason)


def _too_few(name: str, bound: float, n: int, least: int) -> Check:
    return Check(
        name=name, bound=bound, n=n, outcome="inconclusive", reason=f"{name}: n={n} < {max(least, 1)} requests"
    )


def _compare(
    name: str, label: str, measured: tuple[float, float, float], bound: float, *, n: int, show: Callable[[float], str]
) -> Check:
    """`measured` is the value and the low and high end of its interval."""
    value, low, high = measured
    outcome: Outcome = "pass" if value <= bound else "fail" if low > bound else "inconclusive"
    sign = "<=" if value <= bound else ">"
    doubt = f" (but the interval begins at {show(low)})" if outcome == "inconclusive" else ""
    return Check(
        name=name,
        value=_finite(value),
        low=_finite(low),
        high=_finite(high),
        bound=bound,
        n=n,
        outcome=outcome,
        reason=f"{label} {show(value)} {sign} {show(bound)}{doubt}, n={n}",
    )


def _finite(number: float) -> float | None:
    return float(number) if math.isfinite(number) else None
