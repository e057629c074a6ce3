"""How much data a decision needs: from the observed variance of a check, or before anything is measured."""

from sluice.core.check import Side
from sluice.core.clustered import ClusteredEstimate
from sluice.core.intervals import Interval

POWER = 0.8
_UNREACHABLE = 1_000_000  # clusters


def clusters_to_decide(estimate: ClusteredEstimate, ends: Interval, bound: float, *, good: Side) -> str:
    """Say how many items would decide with a chance of POWER if the value stayed as it is, from its own variance."""
    from scipy.special import ndtri

    gap = abs(estimate.value - bound)
    within = estimate.value < bound if good == "below" else estimate.value > bound
    towards = ends.high if estimate.value < bound else ends.low
    reach = abs(towards - estimate.value) + float(ndtri(POWER)) * estimate.standard_error
    needed = estimate.clusters * (reach / gap) ** 2 if gap > 0 else float("inf")
    if not needed < _UNREACHABLE:
        return "the value lies at the bound, so more items would hardly decide"
    clusters = max(int(needed) + 1, estimate.clusters + 1)
    items = round(clusters * estimate.n / estimate.clusters)
    outcome = "pass" if within else "fail"
    return f"about {items:,} items in {clusters:,} clusters would decide (as a {outcome}, if it stays so)"
