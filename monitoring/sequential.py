"""Anytime-valid tests of shares: look after every request, stop at any time, and keep the level.

An e-process starts at 1 and is, under its null hypothesis, a non-negative supermartingale; by Ville's inequality it
ever reaches 1/alpha with probability at most alpha (arXiv 2210.01948; for deployments 2205.14762). So no correction for
the number of looks is needed, where repeating a fixed-sample test at 0.05 over 20 looks falsely aborts about every
fourth healthy canary.

Each test is a mixture of likelihood ratios, alternatives on a fixed grid against the bound of the null hypothesis, and
depends on totals alone: neither the order of the observations nor the number of looks changes its value.

| function | null hypothesis |
|---|---|
| `log_e_above` | the share of bad ones is at most `limit` |
| `log_e_below` | the share of bad ones is at least `limit` |
| `log_e_uneven` | of the bad ones of two groups, the first has at most its part of the trials |
| `log_e_increase` | in pairs, the first is bad oftener than the second, by more than `bound` (or by less) |

Standard library only: the gateway imports this.
"""

import math
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Literal

ODDS_STEP = 1.25
"""Neighbouring alternatives to a share differ by this factor in odds."""
HIGHEST_SHARE = 0.99
LOWEST_FRACTION = 1 / 100
"""The lowest alternative below a limit, as a fraction of the limit."""
FACTORS = ((19.0, 0.75), (7.0, 0.10), (4.0, 0.07), (2.5, 0.05), (1.5, 0.03))
"""Alternatives of `log_e_uneven`: factor on the odds of the first group, and its prior weight.

The first weighs most, so that five bad trials on one side alone, of pairs, reach 20.
"""
STAKES = ((0.99, 0.85), (0.5, 0.10), (0.2, 0.05))
"""Stakes of `log_e_increase`, as parts of the highest one possible, and their prior weights."""


def threshold(alpha: float) -> float:
    """Return the log e-value at which a null hypothesis is rejected at level `alpha`."""
    if not 0 < alpha < 1:
        raise ValueError(f"alpha {alpha} must lie between 0 and 1")
    return -math.log(alpha)


def log_e_above(bad: int, n: int, limit: float) -> float:
    """Return the evidence (log e-value) that the share of bad ones exceeds `limit`."""
    return _log_e_share(bad, n, _alternatives(limit, "above"))


def log_e_below(bad: int, n: int, limit: float) -> float:
    """Return the evidence (log e-value) that the share of bad ones is below `limit`."""
    return _log_e_share(bad, n, _alternatives(limit, "below"))


def log_e_uneven(splits: Iterable[tuple[int, int, float]]) -> float:
    """Return the evidence (log e-value) that the first of two groups has more than its part of the bad trials.

    Each split is (bad trials of the first group, of the second, the first group's part of all trials). In pairs of
    which one is bad, the part is 1/2.
    """
    ratios = [_uneven_ratios(*split) for split in splits]
    return _log_mean([math.log(weight) for _, weight in FACTORS], [sum(each) for each in zip(*ratios, strict=True)])


@lru_cache(maxsize=65_536)
def _uneven_ratios(first: int, second: int, part: float) -> tuple[float, ...]:
    """Return the log likelihood ratio of each alternative."""
    _check_counts(first, first + second)
    if not 0 < part < 1:
        raise ValueError(f"part {part} must lie between 0 and 1")
    scales = [(factor, 1 - part + factor * part) for factor, _ in FACTORS]
    return tuple(first * math.log(factor / scale) - second * math.log(scale) for factor, scale in scales)


def log_e_increase(first: int, second: int, n: int, bound: float, shown: Literal["above", "below"]) -> float:
    """Return the evidence (log e-value) that an increase is above, or below, `bound`.

    Of `n` pairs, `first` have only their first trial bad and `second` only their second; the increase is the expected
    value of the difference. A stake on the difference of every pair is a fair game at the bound, and its capital is the
    e-value (arXiv 2010.09686).
    """
    _check_counts(first + second, n)
    if not 0 <= bound < 1:
        raise ValueError(f"bound {bound} must be at least 0 and below 1")
    sign = 1 if shown == "above" else -1
    highest = 1 / (1 + bound) if shown == "above" else 1 / (1 - bound)
    totals = []
    for part, _ in STAKES:
        stake = sign * part * highest
        totals.append(
            first * math.log1p(stake * (1 - bound))
            + second * math.log1p(stake * (-1 - bound))
            + (n - first - second) * math.log1p(-stake * bound)
        )
    return _log_mean([math.log(weight) for _, weight in STAKES], totals)


Alternatives = tuple[tuple[float, float, float], ...]
"""Per alternative: log prior weight, and the log likelihood ratio of one bad and of one good trial."""


@lru_cache(maxsize=64)
def _alternatives(limit: float, shown: Literal["above", "below"]) -> Alternatives:
    """Lay alternatives on a grid that is even in log odds, from next to the limit to nearly 1 or nearly 0."""
    if not 0 < limit < 1:
        raise ValueError(f"limit {limit} must lie between 0 and 1")
    shares: list[float] = []
    odds = limit / (1 - limit)
    if shown == "above":
        while (odds := odds * ODDS_STEP) / (1 + odds) < HIGHEST_SHARE:
            shares.append(odds / (1 + odds))
        shares.append(max(HIGHEST_SHARE, (1 + limit) / 2))
        # Near shares weigh more: they are slow to tell, and one early bad trial alone must not condemn a version.
        weights = [(1 - share) / share for share in shares]
    else:
        while (odds := odds / ODDS_STEP) / (1 + odds) > LOWEST_FRACTION * limit:
            shares.append(odds / (1 + odds))
        # Far shares weigh more: a version without any bad trial is then told soonest.
        weights = [((1 - share) / share) ** 0.7 for share in shares]
    return tuple(
        (math.log(weight / sum(weights)), math.log(share / limit), math.log1p(-share) - math.log1p(-limit))
        for share, weight in zip(shares, weights, strict=True)
    )


@lru_cache(maxsize=65_536)
def _log_e_share(bad: int, n: int, alternatives: Alternatives) -> float:
    _check_counts(bad, n)
    good = n - bad
    return _log_mean(
        [weight for weight, _, _ in alternatives],
        [bad * if_bad + good * if_good for _, if_bad, if_good in alternatives],
    )


def _check_counts(bad: int, n: int) -> None:
    if not 0 <= bad <= n:
        raise ValueError(f"the number of bad trials {bad} must lie between 0 and that of all, {n}")


def _log_mean(log_weights: Sequence[float], logs: Sequence[float]) -> float:
    """Return the log of the weighted mean of exp(logs)."""
    terms = [weight + log for weight, log in zip(log_weights, logs, strict=True)]
    largest = max(terms)
    return largest + math.log(sum(math.exp(term - largest) for term in terms))
