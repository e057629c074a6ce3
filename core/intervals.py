"""Confidence intervals and exact tests. Two models on the same items are paired data and are compared as such.

scipy is imported where it is used: settings and checks import this module and compute nothing.
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

_RESAMPLES_AT_ONCE = 1_000  # bounds the weight matrix: 1,000 x items doubles


class Interval(NamedTuple):
    """Two-sided confidence interval; both ends NaN where an input was not finite."""

    low: float
    high: float


UNDEFINED = Interval(float("nan"), float("nan"))


def bonferroni(confidence: float, intervals: int) -> float:
    """Return the confidence that each of `intervals` needs for `confidence` in all of them together."""
    assert 0 < confidence < 1 and intervals >= 1
    return 1 - (1 - confidence) / intervals


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


def ratio_interval(numerators: Floats, denominators: Floats, confidence: float, resamples: int, seed: int) -> Interval:
    """Bootstrap interval of sum(numerators) / sum(denominators), items drawn with replacement.

    numerators, denominators: [items]. With bits over bytes this is bits per byte with the document as the unit;
    with the difference of two models' bits on the same documents it is the paired interval of their difference.
    The percentiles are widened to Student's t for few items (Hesterberg, arXiv 1411.5279).
    The resamples depend on (items, resamples, seed) alone, so raising a numerator never lowers an end.
    """
    from scipy.special import ndtr, stdtrit

    assert numerators.shape == denominators.shape and numerators.ndim == 1
    items = len(numerators)
    if not (np.isfinite(numerators).all() and np.isfinite(denominators).all()) or not (denominators > 0).all():
        return UNDEFINED
    if items < 2:
        return Interval(-np.inf, np.inf)
    generator = np.random.default_rng(seed)
    share = np.full(items, 1 / items)
    ratios = np.empty(resamples)
    for start in range(0, resamples, _RESAMPLES_AT_ONCE):
        stop = min(start + _RESAMPLES_AT_ONCE, resamples)
        drawn = generator.multinomial(items, share, size=stop - start).astype(np.float64)
        ratios[start:stop] = (drawn @ numerators) / (drawn @ denominators)
    tail = float(ndtr(np.sqrt(items / (items - 1)) * stdtrit(items - 1, (1 - confidence) / 2)))
    low, high = np.quantile(ratios, [tail, 1 - tail])
    return Interval(float(low), float(high))


def mcnemar_exact(candidate_only: int, champion_only: int) -> float:
    """Two-sided exact p-value that both models are right equally often.

    candidate_only, champion_only: items only that model got right; items on which both agree do not enter.
    """
    from scipy.stats import binomtest

    discordant = candidate_only + champion_only
    return float(binomtest(candidate_only, discordant).pvalue) if discordant else 1.0


def tango_score(candidate_only: int, champion_only: int, n: int, difference: float) -> float:
    """Score statistic of H0: rate(candidate) - rate(champion) = difference (Tango, 1998, equations 8-11)."""
    linear = (2 * n - candidate_only + champion_only) * difference - candidate_only - champion_only
    constant = -champion_only * difference * (1 - difference)
    champion_only_rate = (np.sqrt(max(linear * linear - 8 * n * constant, 0.0)) - linear) / (4 * n)
    variance = n * (2 * champion_only_rate + difference * (1 - difference))
    surplus = candidate_only - champion_only - n * difference
    if variance <= 0:
        return 0.0 if surplus == 0 else float(np.copysign(np.inf, surplus))
    return float(surplus / np.sqrt(variance))


def paired_rate_interval(candidate_only: int, champion_only: int, n: int, confidence: float) -> Interval:
    """Interval of rate(candidate) - rate(champion) on the same `n` items (Tango, 1998).

    Unlike Wald's it keeps its coverage for few disagreements, and is not [0, 0] when there are none.
    """
    from scipy.special import ndtri

    assert candidate_only >= 0 and champion_only >= 0 and candidate_only + champion_only <= n
    if n == 0:
        return Interval(-1.0, 1.0)
    z = float(ndtri((1 + confidence) / 2))
    estimate = (candidate_only - champion_only) / n

    def crossing(outside: float, target: float) -> float:
        inside = estimate
        for _ in range(60):  # halves [-1, 1] below 1e-17
            middle = (inside + outside) / 2
            reached = abs(tango_score(candidate_only, champion_only, n, middle)) >= target
            inside, outside = (inside, middle) if reached else (middle, outside)
        return (inside + outside) / 2

    return Interval(crossing(-1.0, z), crossing(1.0, z))


def percentile(samples: Floats, q: float) -> float:
    """Nearest-rank percentile: an observed sample, never a value between two. NaN without samples."""
    return float(np.quantile(samples, q, method="inverted_cdf")) if len(samples) else float("nan")
