"""Service level objectives: each compares a measurement and its interval with a bound.

`pass`: the measurement keeps the bound. `fail`: its whole confidence interval lies beyond the bound, or a number is
NaN. `inconclusive`: too few requests, or beyond the bound but not clearly.
"""

import numpy as np
from numpy.typing import ArrayLike

from sluice.core.check import Check, compare_estimate, compare_exact, not_finite, too_few
from sluice.core.intervals import quantile_interval, wilson_interval

BURN_WINDOWS = ((14.4, 3600.0, 300.0), (6.0, 21_600.0, 1800.0))
"""Burn rate, long and short window in seconds: the paging alerts of the SRE workbook, chapter 5."""


def error_rate_slo(
    errors: int, requests: int, bound: float, *, min_requests: int, confidence: float = 0.95, name: str = "error_rate"
) -> Check:
    """Check the objective "error rate <= bound"."""
    if requests < max(min_requests, 1):
        return too_few(name, requests, min_requests, bound, unit="requests")
    return compare_estimate(
        name,
        errors / requests,
        wilson_interval(errors, requests, confidence),
        bound,
        good="below",
        n=requests,
        label=name.replace("_", " "),
        show="{:.2%}".format,
    )


def latency_slo(
    latencies_ms: ArrayLike,
    bound_ms: float,
    *,
    min_requests: int,
    quantile: float = 0.95,
    confidence: float = 0.95,
    name: str = "first_token_ms",
) -> Check:
    """Check the objective "this quantile of the latency <= bound"; `latencies_ms` [requests].

    Pass inf for a request that failed: a server that drops its slow requests must not look fast.
    """
    values = np.asarray(latencies_ms, dtype=np.float64)
    metric, label = f"{name}_p{quantile * 100:g}", f"{name} p{quantile * 100:g}"
    nans = int(np.isnan(values).sum())
    if nans:
        return not_finite(metric, nans, len(values), bound_ms, label=name)
    if len(values) < max(min_requests, 1):
        return too_few(metric, len(values), min_requests, bound_ms, unit="requests")
    value, interval = quantile_interval(values, quantile, confidence)
    show = "{:.0f} ms".format
    return compare_estimate(metric, value, interval, bound_ms, good="below", n=len(values), label=label, show=show)


def finite_slo(values: ArrayLike, *, min_requests: int, name: str) -> Check:
    """Check the objective "every value is finite" over `values` [requests]; one NaN or infinity fails."""
    numbers = np.asarray(values, dtype=np.float64)
    metric, bad = f"{name}_finite", int((~np.isfinite(numbers)).sum())
    if bad:
        return not_finite(metric, bad, len(numbers), 0.0, label=name)
    if len(numbers) < max(min_requests, 1):
        return too_few(metric, len(numbers), min_requests, 0.0, unit="requests")
    label = f"values of {name} that are NaN or infinite:"
    return compare_exact(metric, 0.0, 0.0, good="below", n=len(numbers), label=label, show="{:.0f}".format)


def burn_rate_slos(
    times_s: ArrayLike, failed: ArrayLike, *, now: float, budget: float, min_requests: int, confidence: float = 0.95
) -> list[Check]:
    """Check the multi-window burn rates of the error budget: error rate / `budget` in a long and in a short window.

    `times_s` [requests] epoch seconds, `failed` [requests] booleans. A check fails when the long window's interval lies
    beyond the burn rate and the short window is beyond it too, so that the burn goes on. There is no check for a long
    window with fewer than `min_requests` (a quiet hour burns nothing; the objective over the whole window is the one
    that needs data), nor for a burn rate that even an error rate of 100 % would not reach.
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
        check = compare_estimate(
            f"burn_rate_{long_s / 3600:g}h",
            float(recent.mean()) / budget,
            (low / budget, high / budget),
            factor,
            good="below",
            n=len(recent),
            label=f"burn rate over {long_s / 3600:g} h",
            show="{:.1f}x".format,
        )
        if check.outcome != "pass":
            latest_burn = float(latest.mean()) / budget if len(latest) else 0.0
            goes_on, sign = latest_burn > factor, ">" if latest_burn > factor else "<="
            reason = f"{check.reason}; over {short_s / 60:g} min {latest_burn:.1f}x {sign} {factor:g}x, n={len(latest)}"
            check = check.model_copy(update={"reason": reason, "outcome": check.outcome if goes_on else "pass"})
        checks.append(check)
    return checks
