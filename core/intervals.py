"""Confidence intervals. Two models on the same items are paired data and are compared as such.

scipy is imported where it is used: settings and checks import this module and compute nothing.
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]


class Interval(NamedTuple):
    """Two-sided confidence interval; both ends NaN where an input was not finite."""

    low: float
    high: float


UNDEFINED = Interval(float("nan"), float("nan"))


def wilson_interval(successes: int, n: int, confidence: float) -> Interval:
    """Score interval of a proportion (Wilson, 1927); [0, 1] without a trial.

    It ends at 0 exactly where nothing succeeded, and at 1 exactly where everything did.
    """
    from scipy.stats import binomtest

    assert 0 <= successes <= n
    if n == 0:
        return Interval(0.0, 1.0)
    found = binomtest(successes, n).proportion_ci(confidence, method="wilson")
    return Interval(float(found.low), float(found.high))


def quantile_interval(values: ArrayLike, quantile: float, confidence: float) -> tuple[float, Interval]:
    """Estimate a quantile with its interval by order statistics, whatever the distribution.

    The ranks come from the binomial count of values below the true quantile; an end for which the sample has no value
    far enough out is -inf or inf. `values` [n] may hold inf, not NaN.
    """
    from scipy.stats import binom

    ordered = np.sort(np.asarray(values, dtype=np.float64))
    n = len(ordered)
    if n == 0 or np.isnan(ordered[-1]):
        raise ValueError(f"a quantile needs values, none of them NaN; got n={n}")
    tail = (1 - confidence) / 2
    low_rank = int(binom.ppf(tail, n, quantile))
    high_rank = int(binom.ppf(1 - tail, n, quantile)) + 1
    estimate = float(ordered[max(math.ceil(quantile * n), 1) - 1])
    low = float(ordered[low_rank - 1]) if low_rank >= 1 else -math.inf
    high = float(ordered[high_rank - 1]) if high_rank <= n else math.inf
    return estimate, Interval(low, high)


def tango_score(candidate_only: float, champion_only: float, n: float, difference: float) -> float:
    """Score statistic of H0: rate(candidate) - rate(champion) = difference (Tango, 1998, equations 8-11)."""
    linear = (2 * n - candidate_only + champion_only) * difference - candidate_only - champion_only
    constant = -champion_only * difference * (1 - difference)
    champion_only_rate = (math.sqrt(max(linear * linear - 8 * n * constant, 0.0)) - linear) / (4 * n)
    variance = n * (2 * champion_only_rate + difference * (1 - difference))
    surplus = candidate_only - champion_only - n * difference
    if variance <= 0:
        return 0.0 if surplus == 0 else math.copysign(math.inf, surplus)
    return surplus / math.sqrt(variance)


def paired_score_limit(candidate_only: float, champion_only: float, n: float, z: float) -> float:
    """Difference of rates at which Tango's score is |z|: the upper limit for positive `z`, the lower for negative.

    The counts may be effective ones, and so fractions.
    """
    inside, outside = (candidate_only - champion_only) / n, math.copysign(1.0, z)
    for _ in range(50):  # halves [-1, 1] below 1e-15
        middle = (inside + outside) / 2
        reached = abs(tango_score(candidate_only, champion_only, n, middle)) >= abs(z)
        inside, outside = (inside, middle) if reached else (middle, outside)
    return (inside + outside) / 2


def percentile(samples: Floats, q: float) -> float:
    """Nearest-rank percentile: an observed sample, never a value between two. NaN without samples."""
    return float(np.quantile(samples, q, method="inverted_cdf")) if len(samples) else float("nan")
