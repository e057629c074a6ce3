"""Preferences between answers: win rate of one model over another, and Bradley-Terry strengths of several.

A tie counts as half a win of each. Preferences about one prompt are one cluster.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from sluice.core.clustered import ClusteredRate, interval
from sluice.core.intervals import Floats, Interval

Outcome = Literal["first", "second", "tie"]

_STEPS, _TOLERANCE = 100, 1e-10


@dataclass(frozen=True)
class Preference:
    """A preference of a person or judge between the answers of two models to one prompt."""

    first: str
    second: str
    """Names of the models."""
    outcome: Outcome
    prompt: str


@dataclass(frozen=True)
class WinRate:
    """Share of wins, ties as half."""

    value: float
    interval: Interval
    wins: int
    losses: int
    ties: int
    prompts: int


@dataclass(frozen=True)
class Strength:
    """A model's Bradley-Terry strength: log-odds of winning against an average model of the comparison."""

    value: float
    interval: Interval
    """Infinite at an end where no data bound it: a model that never lost has no upper end."""


def win_rate(preferences: Sequence[Preference], model: str, confidence: float = 0.95) -> WinRate:
    """Estimate how often `model` wins, by Wilson's interval at the effective number of prompts.

    ValueError for a preference that does not concern it, and without any.
    """
    values = []
    for each in preferences:
        if model not in (each.first, each.second) or each.first == each.second:
            raise ValueError(f"a preference between {each.first} and {each.second} is no comparison with {model}")
        won = each.outcome == ("first" if each.first == model else "second")
        values.append(0.5 if each.outcome == "tie" else float(won))
    if not values:
        raise ValueError(f"{model} has no preferences: a win rate needs at least one")
    rate = ClusteredRate(np.array(values), _prompt_numbers(preferences))
    ends = interval(rate, (1 - confidence) / 2)
    return WinRate(rate.value, ends, values.count(1.0), values.count(0.0), values.count(0.5), rate.clusters)


def bradley_terry(preferences: Sequence[Preference], confidence: float = 0.95) -> dict[str, Strength]:
    """Estimate the strengths of all models (Bradley and Terry, 1952), which sum to 0, strongest first.

    Maximum likelihood, with an interval by the cluster-robust sandwich and Student's t. The estimate exists only where
    nobody is beaten or unbeaten throughout (Ford, 1957). Otherwise each pair that was compared gets one tie, and the
    interval has no end on the side that the data leave open. ValueError for models that no chain of comparisons
    connects.
    """
    from scipy.special import expit, stdtrit

    names = sorted({name for each in preferences for name in (each.first, each.second)})
    numbers = {name: number for number, name in enumerate(names)}
    if any(each.first == each.second for each in preferences):
        raise ValueError("a model is compared with itself: leave these preferences out")
    if not names:
        raise ValueError("no preferences: strengths need at least one")
    firsts = np.array([numbers[each.first] for each in preferences])
    seconds = np.array([numbers[each.second] for each in preferences])
    wins = np.array([{"first": 1.0, "tie": 0.5, "second": 0.0}[each.outcome] for each in preferences])
    unbounded = _unbounded(names, firsts, seconds, wins)
    design = np.zeros((len(wins), len(names)))
    design[np.arange(len(wins)), firsts] = 1
    design[np.arange(len(wins)), seconds] = -1
    ties = np.unique(design, axis=0) if unbounded.any() else design[:0]
    rows, outcomes = np.concatenate([design, ties]), np.concatenate([wins, np.full(len(ties), 0.5)])
    strengths, inverse = _fit(rows, outcomes)
    units = _prompt_numbers(preferences)
    clusters = int(units.max()) + 1
    scores = np.zeros((clusters, len(names)))
    np.add.at(scores, units, design * (wins - expit(design @ strengths))[:, None])
    if clusters < 2:
        margins = np.full(len(names), np.inf)
    else:
        pseudo = ties * (0.5 - expit(ties @ strengths))[:, None]
        meat = (scores.T @ scores) * clusters / (clusters - 1) + pseudo.T @ pseudo
        variances = np.maximum(np.diag(inverse @ meat @ inverse), 0.0)
        margins = float(stdtrit(clusters - 1, (1 + confidence) / 2)) * np.sqrt(variances)
    found = {
        name: Strength(
            float(strengths[number]),
            Interval(
                -np.inf if unbounded[number, 0] else float(strengths[number] - margins[number]),
                np.inf if unbounded[number, 1] else float(strengths[number] + margins[number]),
            ),
        )
        for name, number in numbers.items()
    }
    return dict(sorted(found.items(), key=lambda each: -each[1].value))


def _fit(design: Floats, wins: Floats) -> tuple[Floats, Floats]:
    """Return the strengths, which sum to 0, and the inverse of their information."""
    from scipy.special import expit

    strengths = np.zeros(design.shape[1])
    level = np.full((len(strengths), len(strengths)), 1 / len(strengths))  # the sum, which comparisons leave open
    for _ in range(_STEPS):
        chances = expit(design @ strengths)
        information = design.T @ (design * (chances * (1 - chances))[:, None])
        inverse = np.linalg.inv(information + level)
        step = inverse @ (design.T @ (wins - chances))
        step *= min(1.0, 2.0 / max(float(np.abs(step).max()), 1e-300))
        strengths = strengths + step
        if float(np.abs(step).max()) < _TOLERANCE:
            break
    return strengths, inverse - level


def _unbounded(
    names: Sequence[str], firsts: NDArray[np.int64], seconds: NDArray[np.int64], wins: Floats
) -> NDArray[np.bool_]:
    """Return whether each model's strength has no lower, and no upper end [models, 2].

    It has none above where no chain of losses and ties leads to every other model, none below where no chain of wins
    does.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components, shortest_path

    beaten = [(i, j) for i, j, won in zip(firsts, seconds, wins, strict=True) if won > 0]
    beaten += [(j, i) for i, j, won in zip(firsts, seconds, wins, strict=True) if won < 1]
    winners, losers = np.array(sorted(set(beaten))).T
    graph = coo_array((np.ones(len(winners)), (winners, losers)), shape=(len(names), len(names))).tocsr()
    count, groups = connected_components(graph, directed=False)
    if count > 1:
        shown = "; ".join(
            ", ".join(name for name, group in zip(names, groups, strict=True) if group == each) for each in range(count)
        )
        raise ValueError(f"no comparison connects these groups of models: {shown}; compare some of them")
    reached = np.isfinite(shortest_path(graph, unweighted=True))
    return np.stack([~reached.all(axis=1), ~reached.all(axis=0)], axis=1)


def _prompt_numbers(preferences: Sequence[Preference]) -> NDArray[np.int64]:
    prompts = [each.prompt for each in preferences]
    return np.unique(np.array(prompts, dtype=object).astype(str), return_inverse=True)[1].astype(np.int64)
