"""Agreement of a judge with people (Cohen's kappa), and of people among themselves (Krippendorff's alpha).

A scorer or judge may decide a gate only if it was compared with people: `deciding` is the rule.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from sluice.core.check import finite_or_none
from sluice.core.intervals import UNDEFINED, Floats, Interval

LEAST_KAPPA = 0.6
"""Substantial agreement (Landis and Koch, 1977), which the whole interval has to reach."""
_PSEUDO_LABELS = 2.0
"""Spread evenly over the cells of the table before the interval is computed: the delta method alone has no width where
all labels agree, and decides 5 to 9 % of judges at the bound where 2.5 % are meant.
"""

Level = Literal["nominal", "ordinal", "interval"]


@dataclass(frozen=True)
class Agreement:
    """An agreement statistic with its confidence interval. 0 is chance, 1 is perfect."""

    value: float
    """NaN where it is not defined: alpha of ratings that are all the same."""
    interval: Interval
    n: int
    """Items that enter."""
    clusters: int
    """Independent groups of items."""

    def summary(self) -> dict[str, Any]:
        """Return what results.json stores."""
        low, high = map(finite_or_none, self.interval)
        return {"value": finite_or_none(self.value), "interval": [low, high], "n": self.n, "clusters": self.clusters}


def deciding(kappa: Interval) -> bool:
    """Return whether a scorer or judge may decide a gate: the lower end of its kappa with people is at least 0.6."""
    return kappa.low >= LEAST_KAPPA


def cohens_kappa(
    judged: Sequence[str], people: Sequence[str], clusters: Sequence[str] | None = None, confidence: float = 0.95
) -> Agreement:
    """Compare a judge's labels with people's by Cohen's kappa (1960), with a cluster-robust interval.

    judged, people: one label for each item; an answer that the judge failed to judge is a label of its own, so that it
    counts as disagreement. clusters: what items share, such as their prompt; None: items are independent.

    Variance by the delta method (Fleiss, Cohen and Everitt, 1969) from the sums of clusters, quantile of Student's t
    with clusters - 1 degrees of freedom. Labels that are all alike are no evidence of agreement: kappa 0.
    ValueError where the lists differ in length.
    """
    groups = _cluster_numbers(clusters, len(judged))
    if len(people) != len(judged):
        raise ValueError(f"{len(judged)} labels of the judge, but {len(people)} of people: give one of each per item")
    labels = {label: number for number, label in enumerate(sorted({*judged, *people}))}
    count = int(groups.max(initial=-1)) + 1
    if len(labels) < 2:
        return Agreement(0.0, Interval(-1.0, 1.0), len(judged), count)
    size = len(labels) ** 2
    cells = np.array([labels[a] * len(labels) + labels[b] for a, b in zip(judged, people, strict=True)])
    by_cluster = np.bincount(groups * size + cells, minlength=count * size).reshape(count, size).astype(np.float64)
    table = by_cluster.sum(axis=0)
    value, _ = _kappa(table)
    if count < 2:
        return Agreement(value, Interval(-1.0, 1.0), len(judged), count)
    from scipy.special import stdtrit

    pseudo = _PSEUDO_LABELS / len(table)
    centre, influence = _kappa(table + pseudo)
    # Clusters that happen to be alike do not make the interval narrower than that of independent items.
    squares = max(((by_cluster @ influence) ** 2).sum(), table @ influence**2) + pseudo * (influence**2).sum()
    error = np.sqrt(squares * count / (count - 1)) / (len(judged) + _PSEUDO_LABELS)
    margin = float(stdtrit(count - 1, (1 + confidence) / 2) * error)
    interval = Interval(max(min(value, centre - margin), -1.0), min(max(value, centre + margin), 1.0))
    return Agreement(value, interval, len(judged), count)


def _kappa(table: Floats) -> tuple[float, Floats]:
    """Return kappa of a flattened square table of counts, and the influence of one more item in each cell."""
    size = int(np.sqrt(len(table)))
    share = table.reshape(size, size) / table.sum()
    rows, columns = share.sum(axis=1), share.sum(axis=0)
    observed, expected = float(np.trace(share)), float(rows @ columns)
    slope = (np.eye(size) * (1 - expected) - (columns[:, None] + rows[None, :]) * (1 - observed)) / (1 - expected) ** 2
    return (observed - expected) / (1 - expected), (slope - (slope * share).sum()).ravel()


def krippendorffs_alpha(
    units: Sequence[Sequence[float | str]],
    level: Level = "nominal",
    clusters: Sequence[str] | None = None,
    *,
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Agreement:
    """Compute Krippendorff's alpha (Content Analysis, 2004, chapter 11) of any number of raters, some of them absent.

    units: the values that each item got; those with fewer than two do not enter. level: `nominal` values are equal or
    not, `ordinal` ones are ranked, `interval` ones are numbers. clusters: what items share; None: items are
    independent. The interval is a bootstrap over clusters. NaN where all values are the same.
    """
    groups = _cluster_numbers(clusters, len(units))
    rated = [number for number, unit in enumerate(units) if len(unit) >= 2]
    values = sorted({value for number in rated for value in units[number]}, key=lambda value: (str(type(value)), value))
    numbers = {value: number for number, value in enumerate(values)}
    counts = np.zeros((len(rated), len(values)))
    for row, number in enumerate(rated):
        for value in units[number]:
            counts[row, numbers[value]] += 1
    kept, places = np.unique(groups[rated], return_inverse=True)
    if not rated:
        return Agreement(float("nan"), UNDEFINED, 0, 0)
    pairs = counts[:, :, None] * counts[:, None, :] - counts[:, :, None] * np.eye(len(values))
    coincidences = np.zeros((len(kept), len(values), len(values)))
    np.add.at(coincidences, places, pairs / (counts.sum(axis=1) - 1)[:, None, None])
    value = float(_alpha(coincidences.sum(axis=0), values, level))
    if len(kept) < 2 or np.isnan(value):
        return Agreement(value, UNDEFINED, len(rated), len(kept))
    from scipy.special import ndtr, stdtrit

    draws = np.random.default_rng(seed).multinomial(len(kept), np.full(len(kept), 1 / len(kept)), size=resamples)
    drawn = _alpha(np.tensordot(draws.astype(np.float64), coincidences, 1), values, level)
    # Widened to Student's t for few clusters (Hesterberg, arXiv 1411.5279).
    tail = float(ndtr(np.sqrt(len(kept) / (len(kept) - 1)) * stdtrit(len(kept) - 1, (1 - confidence) / 2)))
    low, high = np.nanquantile(drawn, [tail, 1 - tail])
    return Agreement(value, Interval(float(low), float(high)), len(rated), len(kept))


def _alpha(coincidences: Floats, values: Sequence[float | str], level: Level) -> Floats:
    """Return alpha of coincidence matrices [.., values, values]."""
    totals = coincidences.sum(axis=-1)
    if level == "nominal":
        squares = 1 - np.eye(len(values))
    elif level == "interval":
        points = np.asarray(values, dtype=np.float64)
        squares = (points[:, None] - points[None, :]) ** 2
    else:
        middles = np.cumsum(totals, axis=-1) - totals / 2
        squares = (middles[..., :, None] - middles[..., None, :]) ** 2
    observed = (coincidences * squares).sum(axis=(-2, -1))
    expected = (totals[..., :, None] * totals[..., None, :] * squares).sum(axis=(-2, -1)) / (totals.sum(axis=-1) - 1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(expected > 0, 1 - observed / expected, np.nan)


def _cluster_numbers(clusters: Sequence[str] | None, n: int) -> NDArray[np.intp]:
    """Return the number of each item's cluster. ValueError where there is not one name for each of `n` items."""
    if clusters is None:
        return np.arange(n)
    if len(clusters) != n:
        raise ValueError(f"{len(clusters)} clusters for {n} items: name one for each item")
    return np.unique(np.asarray(clusters, dtype=object).astype(str), return_inverse=True)[1]
