"""How much data a decision needs: from the observed variance of a check, or before anything is measured."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from sluice.core.check import Side
from sluice.core.clustered import ClusteredEstimate
from sluice.core.intervals import Interval, paired_score_limit

POWER = 0.8
_UNREACHABLE = 1_000_000  # clusters


def clusters_to_decide(estimate: ClusteredEstimate, ends: Interval, bound: float, *, good: Side) -> str:
    """Say how many items would decide with a chance of POWER if the value stayed as it is, from its own variance."""
    from scipy.special import ndtri

    gap = abs(estimate.value - bound)
    within = estimate.value < bound if good == "below" else estimate.value > bound
    towards = ends.high if estimate.value < bound else ends.low
    reach = abs(towards - estimate.value) + float(ndtri(POWER)) * estimate.standard_error
    needed = estimate.clusters * (reach / gap) ** 2 if gap > 0 else math.inf
    if not needed < _UNREACHABLE:
        return "the value lies at the bound, so more items would hardly decide"
    clusters = max(int(needed) + 1, estimate.clusters + 1)
    items = round(clusters * estimate.n / estimate.clusters)
    outcome = "pass" if within else "fail"
    return f"about {items:,} items in {clusters:,} clusters would decide (as a {outcome}, if it stays so)"


@dataclass(frozen=True)
class PowerRow:
    """Chance that an equal candidate passes a margin."""

    documents: int
    items: int
    power: float


def mean_power(margin: float, documents: int, *, sd: float, alpha: float) -> float:
    """Power of the margin of an unbounded mean, such as bits per byte.

    sd: standard deviation of the difference between documents, which are taken as equally large.
    """
    from scipy.stats import nct, t

    if documents < 2:
        return 0.0
    if sd == 0:
        return float(margin > 0)
    return float(nct.sf(t.isf(alpha, documents - 1), documents - 1, margin / sd * math.sqrt(documents)))


def rate_power(margin: float, documents: int, items: int, *, icc: float, discordant: float, alpha: float) -> float:
    """Power of the margin of a paired rate, such as accuracy.

    icc: correlation of the differences of two items of one document, evenly spread over documents. discordant: share of
    items that one of two equal models answers rightly.
    """
    from scipy.special import ndtr
    from scipy.stats import t

    if documents < 2:
        return 0.0
    design_effect = max(1 + (items / documents - 1) * icc, 1.0)
    n, z = items / design_effect, float(t.isf(alpha, documents - 1))

    def passes(difference: float) -> bool:
        churn = max(discordant, abs(difference))
        ours, theirs = (churn + difference) / 2, (churn - difference) / 2
        return paired_score_limit(ours * n, theirs * n, n, -z) > -margin

    low, high = -1.0, 1.0
    for _ in range(40):  # the smallest observed difference that passes
        middle = (low + high) / 2
        low, high = (low, middle) if passes(middle) else (middle, high)
    return float(ndtr(-high / math.sqrt(discordant / n))) if discordant > 0 else float(high <= 0)


def power_table(
    margin: float,
    *,
    scale: str,
    documents: int,
    items_per_document: float = 1.0,
    sd: float = 0.05,
    icc: float = 0.1,
    discordant: float = 0.1,
    size_cv: float = 0.7,
    alpha: float = 0.05,
    factors: Sequence[float] = (0.5, 1, 2, 4, 8),
) -> list[PowerRow]:
    """Power by number of documents: multiples of `documents`, and the smallest number with POWER.

    scale: `mean` or `rate`, as in a policy. size_cv: deviation of the documents' sizes (their bytes, or their items)
    over their mean, 0.7 in the default corpus: unequal documents count as fewer (Kish, 1965).

    Raises ValueError for figures that no data can have.
    """
    for name, value, allowed in (
        ("margin", margin, margin > 0),
        ("documents", documents, documents >= 2),
        ("items_per_document", items_per_document, items_per_document > 0),
        ("sd", sd, sd >= 0),
        ("icc", icc, 0 <= icc <= 1),
        ("discordant", discordant, 0 <= discordant <= 1),
        ("size_cv", size_cv, size_cv >= 0),
        ("alpha", alpha, 0 < alpha < 0.5),
    ):
        if not (allowed and math.isfinite(value)):
            raise ValueError(f"{name}={value:g} is out of range: {_ALLOWED[name]}")

    unequal = 1 + size_cv**2

    def row(size: int) -> PowerRow:
        items = max(round(size * items_per_document), 1)
        if scale == "mean":
            return PowerRow(size, items, mean_power(margin, int(size / unequal), sd=sd, alpha=alpha))
        alike = icc * max(items / size * unequal - 1, 0) / max(items / size - 1, 1e-9) if items > size else 0.0
        power = rate_power(margin, size, items, icc=alike, discordant=discordant, alpha=alpha)
        return PowerRow(size, items, power)

    sizes = {max(round(documents * factor), 2) for factor in factors}
    if row(_UNREACHABLE).power >= POWER:
        low, high = 1, _UNREACHABLE
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if row(middle).power >= POWER else (middle, high)
        sizes.add(high)
    return [row(size) for size in sorted(sizes)]


_ALLOWED = {
    "margin": "give a number above 0",
    "documents": "give at least 2",
    "items_per_document": "give a number above 0",
    "sd": "give a number from 0",
    "icc": "give a correlation from 0 to 1",
    "discordant": "give a share from 0 to 1",
    "size_cv": "give a number from 0",
    "alpha": "give a number between 0 and 0.5",
}
