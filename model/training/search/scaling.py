"""Scaling law of the loss: a power law fitted to small runs, and its recommendation for the next budget.

L(N, D) = E + A / N^alpha + B / D^beta (Hoffmann et al., arXiv 2203.15556, approach 3), a training FLOP count of 6 N D.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize
from scipy.special import logsumexp

LEAST_POINTS = 6
"""One more than the law has parameters."""
_HUBER = 1e-3
_STARTS = [
    (e, a, b, alpha, beta)
    for e in (-0.5, 0.5)
    for a in (2.0, 6.0)
    for b in (2.0, 6.0)
    for alpha in (0.3, 0.8)
    for beta in (0.3, 0.8)
]
_LIMITS = {"maxiter": 1000}
_BOUNDS = [(-8.0, 3.0), (-5.0, 30.0), (-5.0, 30.0), (0.02, 3.0), (0.02, 3.0)]


@dataclass(frozen=True)
class Run:
    """One small run."""

    parameters: int
    tokens: int
    loss: float
    """Nats a token, held out."""

    @property
    def flops(self) -> float:
        return 6.0 * self.parameters * self.tokens


@dataclass(frozen=True)
class Law:
    """The fitted parameters; the losses are nats a token."""

    irreducible: float
    """E."""
    a: float
    b: float
    alpha: float
    beta: float

    def loss(self, parameters: float, tokens: float) -> float:
        return float(self.irreducible + self.a * parameters**-self.alpha + self.b * tokens**-self.beta)

    def best(self, flops: float) -> tuple[float, float]:
        """(parameters, tokens) of the least loss that `flops` buy."""
        budget = flops / 6
        ratio = self.alpha * self.a / (self.beta * self.b)
        parameters = ratio ** (1 / (self.alpha + self.beta)) * budget ** (self.beta / (self.alpha + self.beta))
        return parameters, budget / parameters


@dataclass(frozen=True)
class Estimate:
    """A value and its confidence band."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Advice:
    """Recommended size and data for a budget."""

    flops: float
    parameters: Estimate
    tokens: Estimate
    loss: Estimate
    beyond: float
    """Budget over that of the largest run measured: how far the law is stretched."""


def fit(runs: Sequence[Run], start: Law | None = None) -> Law:
    """The law of least Huber loss in log L, from many starts, or only from `start`.

    Raises ValueError for fewer runs than the law needs, or runs of one size or one length.
    """
    if len(runs) < LEAST_POINTS or len({run.parameters for run in runs}) < 2 or len({run.tokens for run in runs}) < 2:
        raise ValueError(
            f"{len(runs)} runs of {len({run.parameters for run in runs})} sizes: the law needs at least {LEAST_POINTS} "
            "runs, of two sizes and two lengths or more"
        )
    logs = np.log(np.array([[run.parameters, run.tokens, run.loss] for run in runs], dtype=float))
    starts = _STARTS
    if start is not None:
        starts = [(math.log(start.irreducible), math.log(start.a), math.log(start.b), start.alpha, start.beta)]
    descents = (
        minimize(_objective, each, args=(logs,), method="L-BFGS-B", bounds=_BOUNDS, jac=True, options=_LIMITS)
        for each in starts
    )
    e, a, b, alpha, beta = map(float, min(descents, key=lambda each: float(each.fun)).x)
    return Law(math.exp(e), math.exp(a), math.exp(b), alpha, beta)


def bootstrap(runs: Sequence[Run], law: Law, resamples: int, seed: int) -> list[Law]:
    """Laws fitted to `resamples` draws of the residuals around `law`, from which bands are read.

    Residuals in log L are drawn rather than runs: a draw of runs would often lack a size of the ladder.
    """
    generator = np.random.default_rng(seed)
    fitted = np.array([law.loss(run.parameters, run.tokens) for run in runs])
    residuals = np.log([run.loss for run in runs]) - np.log(fitted)
    # Of n runs and five parameters fitted to them, the residuals are too small by this.
    residuals = (residuals - residuals.mean()) * math.sqrt(len(runs) / max(1, len(runs) - 5))
    laws = []
    for _ in range(resamples):
        drawn = fitted * np.exp(generator.choice(residuals, len(runs)))
        made = [Run(run.parameters, run.tokens, float(loss)) for run, loss in zip(runs, drawn, strict=True)]
        laws.append(fit(made, law))
    return laws


def advise(runs: Sequence[Run], law: Law, laws: Sequence[Law], flops: float, confidence: float = 0.9) -> Advice:
    """Recommended size and data for `flops`, with the band of the bootstrapped `laws`."""
    best = [each.best(flops) for each in laws]
    losses = [each.loss(*size) for each, size in zip(laws, best, strict=True)]
    parameters, tokens = law.best(flops)
    return Advice(
        flops,
        _interval(parameters, [size[0] for size in best], confidence),
        _interval(tokens, [size[1] for size in best], confidence),
        _interval(law.loss(parameters, tokens), losses, confidence),
        flops / max(run.flops for run in runs),
    )


def frontier(law: Law, flops: Sequence[float]) -> np.ndarray:
    """Least loss of each budget, [n]."""
    return np.array([law.loss(*law.best(each)) for each in flops])


def _interval(value: float, drawn: Sequence[float], confidence: float) -> Estimate:
    low, high = np.quantile(drawn, [(1 - confidence) / 2, (1 + confidence) / 2])
    # The fit itself may lie outside its own band where a parameter is at a bound.
    return Estimate(value, float(min(low, value)), float(max(high, value)))


def _objective(packed: np.ndarray, logs: np.ndarray) -> tuple[float, np.ndarray]:
    """Huber loss of log L and its gradient."""
    e, a, b, alpha, beta = packed
    terms = np.stack([np.full(len(logs), e), a - alpha * logs[:, 0], b - beta * logs[:, 1]])
    total = logsumexp(terms, axis=0)
    away = total - logs[:, 2]
    inside = np.abs(away) <= _HUBER
    value = np.where(inside, away**2 / 2, _HUBER * (np.abs(away) - _HUBER / 2)).sum()
    slope = np.clip(away, -_HUBER, _HUBER)
    weight = np.exp(terms - total)
    gradient = np.array(
        [
            (slope * weight[0]).sum(),
            (slope * weight[1]).sum(),
            (slope * weight[2]).sum(),
            -(slope * weight[1] * logs[:, 0]).sum(),
            -(slope * weight[2] * logs[:, 1]).sum(),
        ]
    )
    # Scaled: at the values themselves the optimizer would stop early.
    return float(value * 1e6), gradient * 1e6
