"""Drift tests between reference and current traffic, and the decision on all of them together (Holm, 1979).

No test depends on the order of the rows. Too few rows are `inconclusive`, a NaN is a `fail`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats
from scipy.spatial.distance import cdist

from sluice.core.check import Check, Outcome


@dataclass(frozen=True)
class DriftTest:
    """Result of one test before `correct` decides on it."""

    metric: str
    test: str
    n_reference: int
    n_current: int
    statistic: float | None = None
    p_value: float | None = None
    not_testable: tuple[Outcome, str] | None = None
    """Outcome and reason where there is no p-value."""


class Drift(Check):
    """One drift test as a check: `fail` is drift, or NaN among the values; `n` counts the current rows.

    `value` is the p-value after Holm's correction, and `bound` the level of all tests together.
    """

    test: str
    statistic: float | None = None
    p_value: float | None = None
    n_reference: int


def embedding_drift(
    metric: str,
    reference: ArrayLike,
    current: ArrayLike,
    *,
    permutations: int,
    min_rows: int,
    seed: int,
    max_rows: int = 500,
) -> DriftTest:
    """Maximum mean discrepancy under an RBF kernel (Gretton et al., JMLR 13, 2012), p-value by permutation.

    `reference` [n, width] and `current` [m, width]; of each at most `max_rows`, drawn by the seed, enter the kernel.
    The bandwidth is the median distance of the pooled rows.
    """
    x, y = _rows(reference), _rows(current)
    early = _not_testable(metric, "mmd", x, y, min_rows)
    if early:
        return early
    if x.shape[1] != y.shape[1]:
        raise ValueError(
            f"{metric}: reference width {x.shape[1]} != current width {y.shape[1]}: they are of other models"
        )
    generator = np.random.default_rng(seed)
    x, y = _draw(x, max_rows, generator), _draw(y, max_rows, generator)
    pooled = np.concatenate([x, y])
    squared = cdist(pooled, pooled, "sqeuclidean")
    distances = squared[np.triu_indices(len(pooled), 1)]
    positive = distances[distances > 0]
    # With more than half of the rows alike the median is 0, which is no bandwidth.
    bandwidth = np.median(distances) or (np.median(positive) if len(positive) else 1.0)
    kernel = np.exp(-squared / bandwidth)
    weights = np.concatenate([np.full(len(x), 1 / len(x)), np.full(len(y), -1 / len(y))])

    def discrepancy(rows: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.einsum("pi,pi->p", rows @ kernel, rows)

    observed = float(discrepancy(weights[None])[0])
    shuffled = discrepancy(generator.permuted(np.tile(weights, (permutations, 1)), axis=1))
    p_value = _monte_carlo_p(observed, shuffled)
    return DriftTest(metric, "mmd", len(x), len(y), observed, p_value)


def numeric_drift(metric: str, reference: ArrayLike, current: ArrayLike, *, min_rows: int) -> DriftTest:
    """Two-sample Kolmogorov-Smirnov test of `reference` [n] and `current` [m]; conservative where values tie."""
    x, y = np.asarray(reference, dtype=np.float64), np.asarray(current, dtype=np.float64)
    early = _not_testable(metric, "ks", x, y, min_rows)
    if early:
        return early
    result = stats.ks_2samp(x, y, method="asymp")
    return DriftTest(metric, "ks", len(x), len(y), float(result.statistic), float(result.pvalue))


def categorical_drift(
    metric: str, reference: Sequence[str], current: Sequence[str], *, permutations: int, min_rows: int, seed: int
) -> DriftTest:
    """Chi-squared test of homogeneity, its p-value from drawn tables of the same margins, so rare categories count."""
    x, y = list(reference), list(current)
    early = _not_testable(metric, "chi2", np.zeros(len(x)), np.zeros(len(y)), min_rows)
    if early:
        return early
    categories = sorted(set(x) | set(y))
    table = np.array([[side.count(category) for category in categories] for side in (x, y)], dtype=np.float64)
    rows, columns = table.sum(axis=1), table.sum(axis=0)
    expected = np.outer(rows, columns) / table.sum()
    draws = stats.random_table(rows, columns, seed=seed).rvs(size=permutations)
    observed = float(((table - expected) ** 2 / expected).sum())
    p_value = _monte_carlo_p(observed, ((draws - expected) ** 2 / expected).sum(axis=(1, 2)))
    return DriftTest(metric, "chi2", len(x), len(y), observed, p_value)


def correct(tests: Sequence[DriftTest], alpha: float) -> list[Drift]:
    """Decide all tests together: drift is shown where Holm's adjusted p-value is at most alpha.

    Where there is no drift at all, some is shown with probability at most alpha, however the tests depend on each
    other. A test without a p-value keeps its outcome.
    """
    from statsmodels.stats.multitest import multipletests

    p_values = [test.p_value for test in tests if test.p_value is not None]
    adjusted = iter(multipletests(p_values, method="holm")[1] if p_values else ())
    drifts = []
    for test in tests:
        value = None
        if test.not_testable:
            outcome, reason = test.not_testable
        else:
            value = float(next(adjusted))
            outcome, sign = ("fail", "<=") if value <= alpha else ("pass", ">")
            reason = (
                f"{test.metric}: {test.test} {test.statistic:.3g}, adjusted p {value:.2g} {sign} {alpha:g}, "
                f"n={test.n_current} against {test.n_reference}"
            )
        drifts.append(
            Drift(
                metric=test.metric,
                value=value,
                bound=alpha,
                n=test.n_current,
                outcome=outcome,
                reason=reason,
                test=test.test,
                statistic=test.statistic,
                p_value=test.p_value,
                n_reference=test.n_reference,
            )
        )
    return drifts


def _rows(values: ArrayLike) -> NDArray[np.float64]:
    rows = np.asarray(values, dtype=np.float64)
    return rows if rows.ndim == 2 else rows.reshape(len(rows), -1)


def _draw(rows: NDArray[np.float64], count: int, generator: np.random.Generator) -> NDArray[np.float64]:
    """At most `count` of the rows, in an order that depends on their values alone."""
    ordered = rows[np.lexsort(rows.T)]
    return ordered[np.sort(generator.choice(len(rows), count, replace=False))] if len(rows) > count else ordered


def _monte_carlo_p(observed: float, drawn: NDArray[np.float64]) -> float:
    """Never 0: the observed arrangement is one of those possible. Ties up to rounding count against drift."""
    return (1 + int((drawn >= observed - 1e-9 * max(abs(observed), 1e-3)).sum())) / (1 + len(drawn))


def _not_testable(
    metric: str, test: str, x: NDArray[np.float64], y: NDArray[np.float64], min_rows: int
) -> DriftTest | None:
    bad = [int((~np.isfinite(side)).reshape(len(side), -1).any(axis=1).sum()) if len(side) else 0 for side in (x, y)]
    if any(bad):
        reason = f"{metric}: {bad[1]} current and {bad[0]} reference rows are NaN or infinite"
        return DriftTest(metric, test, len(x), len(y), not_testable=("fail", reason))
    least = max(min_rows, 2)
    if min(len(x), len(y)) < least:
        reason = f"{metric}: n={len(y)} against {len(x)} in the reference, {least} of each are needed"
        return DriftTest(metric, test, len(x), len(y), not_testable=("inconclusive", reason))
    return None
