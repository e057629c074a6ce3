"""One-sided inference where items come in clusters: a mean, a proportion, and the difference of two proportions.

Items of one document are alike, so the document is the unit: each estimate counts `clusters`, and its error follows
Student's t with clusters - 1 degrees of freedom. `end(alpha, side)` is a confidence limit that errs in `alpha` of
cases; `p_value(bound, side)` is small where the true value is shown to lie on that side of `bound`. The two agree: the
limit on the other side lies beyond the bound where the p-value is below alpha.

| estimate | of | method |
|---|---|---|
| `ClusteredMean` | unbounded values over weights | ratio, jackknife over clusters, the wider of t and bootstrap-t |
| `ClusteredRate` | values in [0, 1] | Wilson's score test at the effective sample size (Korn & Graubard, 1998) |
| `ClusteredRateDifference` | two models' values in [0, 1] | Tango's score test at the effective sample size |
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from sluice.core.check import Side
from sluice.core.intervals import Floats, Interval, paired_score_limit, tango_score

RESAMPLES = 4_000
_SEED = 1234
_CACHED = 500_000  # doubles of one matrix of resamples; larger ones are drawn again


class ClusteredEstimate(Protocol):
    """An estimate with one-sided limits."""

    @property
    def value(self) -> float: ...

    @property
    def n(self) -> int:
        """Items."""

    @property
    def clusters(self) -> int: ...

    @property
    def standard_error(self) -> float:
        """Standard error, for power calculations."""

    def end(self, alpha: float, side: Side) -> float:
        """Limit on that side of the value, missed by the truth in `alpha` of cases."""

    def p_value(self, bound: float, side: Side) -> float:
        """Evidence that the truth lies on that side of `bound`: small where it does."""


def interval(estimate: ClusteredEstimate, alpha: float) -> Interval:
    """Both one-sided limits: an interval of confidence 1 - 2 alpha."""
    return Interval(estimate.end(alpha, "below"), estimate.end(alpha, "above"))


def cluster_sums(units: NDArray[np.int64], *columns: Floats) -> tuple[Floats, ...]:
    """Sums of each column [items] by cluster [clusters]; `units` numbers the cluster of each item from 0."""
    clusters = int(units.max()) + 1 if len(units) else 0
    return tuple(np.bincount(units, column, clusters).astype(np.float64) for column in columns)


@dataclass(frozen=True)
class ClusteredMean:
    """sum(values) / sum(weights): bits over bytes, or the difference of two models' bits over bytes.

    The variance is the jackknife's over clusters, which allows for large ones. Student's t errs where few skewed losses
    decide, in the direction that promotes; bootstrap-t over clusters corrects for skewness to second order (Hall,
    The Bootstrap and Edgeworth Expansion, 1992). A limit is the farther of the two, so neither can narrow the other.
    """

    values: Floats
    weights: Floats
    units: NDArray[np.int64]

    @property
    def n(self) -> int:
        return len(self.values)

    @property
    def clusters(self) -> int:
        return len(self._sums[0])

    @property
    def value(self) -> float:
        return float(self.values.sum() / self.weights.sum())

    @cached_property
    def _sums(self) -> tuple[Floats, ...]:
        return cluster_sums(self.units, self.values, self.weights)

    @cached_property
    def standard_error(self) -> float:
        sums, sizes = self._sums
        if self.clusters < 2:
            return np.inf
        share = sizes / sizes.sum()
        moves = (sums - self.value * sizes) / sizes.sum() / (1 - share)  # of the value, when one cluster is left out
        error = float(np.sqrt((self.clusters - 1) / self.clusters * (moves**2).sum()))
        noise = 1e-12 * max(float(np.abs(sums / sizes).max()), 1e-300)  # of rounding, where all clusters agree
        return error if error > noise else 0.0

    @cached_property
    def _studentized(self) -> Floats:
        """Sorted t statistics of resampled clusters about the value."""
        sums, sizes = self._sums
        share = sizes / sizes.sum()
        centred = sums / sizes.sum() - self.value * share
        columns = np.stack([centred, share, centred**2, centred * share, share**2], axis=1)
        clusters, found = self.clusters, []
        for counts in _resamples(clusters):
            move, size, square, product, size_square = (counts @ columns).T
            ratio = move / size
            variance = np.maximum(square - 2 * ratio * product + ratio**2 * size_square, 0) / size**2
            with np.errstate(divide="ignore", invalid="ignore"):
                found.append(ratio / np.sqrt(variance * clusters / (clusters - 1)))
        drawn = np.concatenate(found)
        return np.sort(drawn[~np.isnan(drawn)])

    def end(self, alpha: float, side: Side) -> float:
        from scipy.special import stdtrit

        sign = 1 if side == "above" else -1
        if self.clusters < 2:
            return sign * np.inf
        if self.standard_error == 0:
            return self.value
        student = -float(stdtrit(self.clusters - 1, alpha))
        drawn = self._studentized if side == "above" else -self._studentized[::-1]
        resampled = -float(drawn[max(int(alpha * (len(drawn) + 1)) - 1, 0)])
        return self.value + sign * max(student, resampled) * self.standard_error

    def p_value(self, bound: float, side: Side) -> float:
        from scipy.special import stdtr

        gap = self.value - bound if side == "above" else bound - self.value
        if self.clusters < 2:
            return 1.0
        if self.standard_error == 0:
            return 0.0 if gap > 0 else 1.0
        statistic = gap / self.standard_error
        student = float(stdtr(self.clusters - 1, -statistic))
        # "Above the bound" is shown by the lower limit, which the upper tail of the statistics gives.
        drawn = self._studentized if side == "above" else -self._studentized[::-1]
        beyond = len(drawn) - int(np.searchsorted(drawn, statistic, side="left"))
        return max(student, (beyond + 1) / (len(drawn) + 1))


class _EffectiveSize(ABC):
    """Number of independent items that carry as much information as items in clusters."""

    units: NDArray[np.int64]

    @property
    @abstractmethod
    def n(self) -> int: ...

    @property
    @abstractmethod
    def design_effect(self) -> float: ...

    @property
    def clusters(self) -> int:
        return _count(self.units)

    @property
    def effective_n(self) -> float:
        return self.n / self.design_effect


@dataclass(frozen=True)
class ClusteredRate(_EffectiveSize):
    """Mean of values in [0, 1], such as the share of questions answered right or of documents that lose much."""

    values: Floats
    units: NDArray[np.int64]

    @property
    def n(self) -> int:
        return len(self.values)

    @property
    def value(self) -> float:
        return float(self.values.mean())

    @cached_property
    def design_effect(self) -> float:
        return design_effect(self.values - self.value, self.n * self.value * (1 - self.value), self.units)

    @cached_property
    def _skewness(self) -> float:
        return excess_skewness(self.values - self.value, self.units, self.effective_n)

    @property
    def standard_error(self) -> float:
        return float(np.sqrt(max(self.value * (1 - self.value), 0.0) / self.effective_n))

    def end(self, alpha: float, side: Side) -> float:
        sign = 1 if side == "above" else -1
        if self.clusters < 2:
            return 1.0 if side == "above" else 0.0
        z2, n, p = _quantile(alpha, self.clusters, sign * self._skewness) ** 2, self.effective_n, self.value
        middle = p + z2 / (2 * n)
        spread = np.sqrt(max(z2 * (p * (1 - p) / n + z2 / (4 * n * n)), 0.0))
        found = (middle + sign * spread) / (1 + z2 / n)
        # Rounding must not leave 0 or 1 where nothing, or everything, succeeded.
        return float(min(found, p) if side == "below" else max(found, p))

    def p_value(self, bound: float, side: Side) -> float:
        if not 0 <= bound <= 1:
            return 0.0 if (bound < 0) == (side == "above") else 1.0
        gap = self.value - bound if side == "above" else bound - self.value
        error = float(np.sqrt(bound * (1 - bound) / self.effective_n))
        return _score_p(gap, error, self.clusters, self._skewness * (-1 if side == "above" else 1))


@dataclass(frozen=True)
class ClusteredRateDifference(_EffectiveSize):
    """Mean difference of two models' values in [0, 1] on the same items, `ours` minus `theirs`.

    Values between 0 and 1 count as that share of a discordant pair, which overstates their variance and so is safe.
    """

    ours: Floats
    theirs: Floats
    units: NDArray[np.int64]

    @property
    def n(self) -> int:
        return len(self.ours)

    @property
    def value(self) -> float:
        return float((self.ours - self.theirs).mean())

    @property
    def discordant(self) -> tuple[float, float]:
        """Items that ours alone, and theirs alone, got right."""
        difference = self.ours - self.theirs
        return float(difference.clip(min=0).sum()), float((-difference).clip(min=0).sum())

    @cached_property
    def design_effect(self) -> float:
        difference = self.ours - self.theirs
        return design_effect(difference - self.value, sum(self.discordant) - self.n * self.value**2, self.units)

    @cached_property
    def _skewness(self) -> float:
        return excess_skewness(self.ours - self.theirs - self.value, self.units, self.effective_n)

    @property
    def standard_error(self) -> float:
        return float(np.sqrt(max(sum(self.discordant) / self.n - self.value**2, 0.0) / self.effective_n))

    @property
    def _effective(self) -> tuple[float, float, float]:
        ours, theirs = self.discordant
        return ours / self.design_effect, theirs / self.design_effect, self.effective_n

    def end(self, alpha: float, side: Side) -> float:
        if self.clusters < 2:
            return 1.0 if side == "above" else -1.0
        sign = 1 if side == "above" else -1
        return paired_score_limit(*self._effective, sign * _quantile(alpha, self.clusters, sign * self._skewness))

    def p_value(self, bound: float, side: Side) -> float:
        if not -1 <= bound <= 1:
            return 0.0 if (bound < -1) == (side == "above") else 1.0
        score = tango_score(*self._effective, bound)
        sign = 1 if side == "above" else -1
        return _score_p(sign * score, 1.0, self.clusters, -sign * self._skewness)


def design_effect(residuals: Floats, independent: float, units: NDArray[np.int64]) -> float:
    """Variance of a mean by cluster, as a multiple of that of independent items; never below 1.

    residuals [items] are about the mean; `independent` is their sum of squares if items were independent. One more
    item is counted whose cluster is entirely alike: without any disagreement the data say nothing about likeness, and
    then the clusters count, not the items (Dean & Pagano, J. Survey Stat. Methodol. 3, 2015, compare such rules).
    """
    (totals,), sizes = cluster_sums(units, residuals), np.bincount(units).astype(float)
    clusters, n = len(sizes), len(residuals)
    if clusters < 2:
        return float(n)
    alike = float((sizes**2).sum() / n)
    by_cluster = clusters / (clusters - 1) * float((totals**2).sum())
    return max((by_cluster + alike) / (n / (n - 1) * max(independent, 0.0) + 1), 1.0)


def excess_skewness(residuals: Floats, units: NDArray[np.int64], effective_n: float) -> float:
    """Skewness of a mean by cluster beyond that of `effective_n` independent items with the same values.

    Where few clusters decide, a sample without them has both a better mean and a smaller design effect. Score tests
    allow for the skewness of independent items alone.
    """
    squares = float((residuals**2).sum())
    if squares <= 0:
        return 0.0
    (totals,), n = cluster_sums(units, residuals), len(residuals)
    by_cluster = float((totals**3).sum()) / float((totals**2).sum()) ** 1.5 if (totals**2).sum() > 0 else 0.0
    independent = float((residuals**3).sum()) / n / (squares / n) ** 1.5 / np.sqrt(effective_n)
    return by_cluster - independent


def _count(units: NDArray[np.int64]) -> int:
    return int(units.max()) + 1 if len(units) else 0


def _quantile(alpha: float, clusters: int, skewness: float) -> float:
    """Student's quantile, widened where the tail on this side is long: the estimated variance goes with the mean.

    Of the Edgeworth expansion of a studentized mean, t + t^2 / 2 * skewness is what this dependence adds.
    """
    from scipy.special import stdtrit

    student = -float(stdtrit(clusters - 1, alpha))
    return student + student**2 / 2 * max(skewness, 0.0)


def _score_p(gap: float, error: float, clusters: int, skewness: float) -> float:
    """Inverse of `_quantile`: the level at which a gap of that many standard errors is reached."""
    from scipy.special import stdtr

    if clusters < 2:
        return 1.0
    if error == 0:
        return 0.0 if gap > 0 else 1.0
    score, skewness = gap / error, max(skewness, 0.0)
    if score > 0:
        score = 2 * score / (1 + np.sqrt(1 + 2 * skewness * score))
    return float(stdtr(clusters - 1, -score))


def _resamples(clusters: int) -> list[Floats]:
    """How often each cluster is drawn, in blocks of [resamples, clusters]: the same for the same number of clusters."""
    if RESAMPLES * clusters <= _CACHED:
        return _cached_resamples(clusters)
    return _draw(clusters)


@lru_cache(maxsize=32)
def _cached_resamples(clusters: int) -> list[Floats]:
    return _draw(clusters)


def _draw(clusters: int) -> list[Floats]:
    generator, share = np.random.default_rng(_SEED), np.full(clusters, 1 / clusters)
    return [generator.multinomial(clusters, share, size=RESAMPLES // 4).astype(np.float64) for _ in range(4)]
