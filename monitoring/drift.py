"""Drift tests between reference and current traffic; their p-values are corrected together (Holm 1979).

None depends on the order of the rows. Too few rows are `inconclusive`, a NaN is a `fail`.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import BaseModel, ConfigDict
from scipy import stats
from scipy.spatial.distance import cdist

from sluice.monitoring.slo import Outcome


class Drift(BaseModel):
    """One test. `pass`: no drift shown at the level; `fail`: drift, or NaN among the values."""

    model_config = ConfigDict(frozen=True)

    name: str
    test: str
    statistic: float | None = None
    p_value: float | None = None
    adjusted_p_value: float | None = None
    """After Holm's correction over the tests of one call of `correct`."""
    n_reference: int
    n_current: int
    outcome: Outcome
    reason: str


def embedding_drift(
    name: str,
    reference: ArrayLike,
    current: ArrayLike,
    *,
    permutations: int,
    min_rows: int,
    seed: int,
    max_rows: int = 500,
) -> Drift:
    """Maximum mean discrepancy under an RBF kernel (Gretton et al., JMLR 13, 2012), p-value by permutation.

    `reference` [n, width] and `current` [m, width]; of each at most `max_rows`, drawn by the seed, enter the kernel.
    The bandwidth is the median distance of the pooled rows.
    """
    x, y = _rows(reference), _rows(current)
    early = _not_testable(name, "mmd", x, y, min_rows)
    if early:
        return early
    if x.shape[1] != y.shape[1]:
        raise ValueError(
            f"{name}: reference width {x.shape[1]} != current width {y.shape[1]}: they are of other models"
        )
    generator = np.random.default_rng(seed)
    x, y = _draw(x, max_rows, generator), _draw(y, max_rows, generator)
    kernel = _rbf_kernel(np.concatenate([x, y]))
    weights = np.concatenate([np.full(len(x), 1 / len(x)), np.full(len(y), -1 / len(y))])

    def discrepancy(rows: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.einsum("pi,pi->p", rows @ kernel, rows)

    observed = float(discrepancy(weights[None])[0])
    shuffled = discrepancy(generator.permuted(np.tile(weights, (permutations, 1)), axis=1))
    p_value = _monte_carlo_p(observed, shuffled)
    return _tested(name, "mmd", observed, p_value, (len(x), len(y)))


def numeric_drift(name: str, reference: ArrayLike, current: ArrayLike, *, min_rows: int) -> Drift:
    """Two-sample Kolmogorov-Smirnov test of `reference` [n] and `current` [m]; conservative where values tie."""
    x, y = np.asarray(reference, dtype=np.float64), np.asarray(current, dtype=np.float64)
    early = _not_testable(name, "ks", x, y, min_rows)
    if early:
        return early
    result = stats.ks_2samp(x, y, method="asymp")
    return _tested(name, "ks", float(result.statistic), float(result.pvalue), (len(x), len(y)))


def categorical_drift(
    name: str, reference: Sequence[str], current: Sequence[str], *, permutations: int, min_rows: int, seed: int
) -> Drift:
    """Chi-squared test of homogeneity; its p-value from drawn tables of the same margins, so rare categories count."""
    x, y = list(reference), list(current)
    early = _not_testable(name, "chi2", np.zeros(len(x)), np.zeros(len(y)), min_rows)
    if early:
        return early
    categories = sorted(set(x) | set(y))
    table = np.array([[side.count(category) for category in categories] for side in (x, y)], dtype=np.float64)
    rows, columns = table.sum(axis=1), table.sum(axis=0)
    expected = np.outer(rows, columns) / table.sum()
    draws = stats.random_table(rows, columns, seed=seed).rvs(size=permutations)
    observed = float(((table - expected) ** 2 / expected).sum())
    p_value = _monte_carlo_p(observed, ((draws - expected) ** 2 / expected).sum(axis=(1, 2)))
    return _tested(name, "chi2", observed, p_value, (len(x), len(y)))


def correct(drifts: Sequence[Drift], alpha: float) -> list[Drift]:
    """Decides the tests together: drift is shown where Holm's adjusted p-value is at most alpha.

    So no drift at all is mistaken for some with probability at most alpha, however the tests depend on each other.
    Tests without a p-value keep their outcome.
    """
    tested = sorted((drift.p_value, index) for index, drift in enumerate(drifts) if drift.p_value is not None)
    corrected, largest = list(drifts), 0.0
    for position, (p_value, index) in enumerate(tested):
        largest = max(largest, min(1.0, (len(tested) - position) * p_value))
        drift, outcome = drifts[index], "fail" if largest <= alpha else "pass"
        sign = "<=" if outcome == "fail" else ">"
        reason = (
            f"{drift.name}: {drift.test} {drift.statistic:.3g}, adjusted p {largest:.2g} {sign} {alpha:g}, "
            f"n={drift.n_current} against {drift.n_reference}"
        )
        update = {"adjusted_p_value": largest, "outcome": outcome, "reason": reason}
        corrected[index] = drift.model_copy(update=update)
    return corrected


def _rows(values: ArrayLike) -> NDArray[np.float64]:
    rows = np.asarray(values, dtype=np.float64)
    return rows if rows.ndim == 2 else rows.reshape(len(rows), -1)


def _draw(rows: NDArray[np.float64], count: int, generator: np.random.Generator) -> NDArray[np.float64]:
    """At most `count` of the rows, in an order that depends on their values alone."""
    ordered = rows[np.lexsort(rows.T)]
    return ordered[np.sort(generator.choice(len(rows), count, replace=False))] if len(rows) > count else ordered


def _rbf_kernel(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    squared = cdist(rows, rows, "sqeuclidean")
    distances = squared[np.triu_indices(len(rows), 1)]
    positive = distances[distances > 0]
    # With more than half of the rows alike the median is 0, which is no bandwidth.
    bandwidth = np.median(distances) or (np.median(positive) if len(positive) else 1.0)
    return np.exp(-squared / bandwidth)


def _monte_carlo_p(observed: float, drawn: NDArray[np.float64]) -> float:
    """Never 0: the observed arrangement is one of those possible. Ties up to rounding count against drift."""
    return (1 + int((drawn >= observed - 1e-9 * max(abs(observed), 1e-3)).sum())) / (1 + len(drawn))


def _not_testable(name: str, test: str, x: NDArray[np.float64], y: NDArray[np.float64], min_rows: int) -> Drift | None:
    sizes = {"n_reference": len(x), "n_current": len(y)}
    bad = [int((~np.isfinite(side)).reshape(len(side), -1).any(axis=1).sum()) if len(side) else 0 for side in (x, y)]
    if any(bad):
        reason = f"{name}: {bad[1]} current and {bad[0]} reference rows are NaN or infinite"
        return Drift(name=name, test=test, **sizes, outcome="fail", reason=reason)
    if min(sizes.values()) < max(min_rows, 2):
        reason = f"{name}: n={len(y)} against {len(x)} in the reference, {max(min_rows, 2)} of each are needed"
        return Drift(name=name, test=test, **sizes, outcome="inconclusive", reason=reason)
    return None


def _tested(name: str, test: str, statistic: float, p_value: float, sizes: tuple[int, int]) -> Drift:
    """A test before `correct` decides it; until then it shows nothing."""
    return Drift(
        name=name,
        test=test,
        statistic=statistic,
        p_value=p_value,
        n_reference=sizes[0],
        n_current=sizes[1],
        outcome="inconclusive",
        reason=f"{name}: p {p_value:.2g}, not corrected yet",
    )
