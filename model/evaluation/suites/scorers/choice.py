"""Multiple choice by likelihood: the choice whose likelihood is best is the answer, by one of five measures.

| scorer | least | source |
|---|---|---|
| choice_sum | nats | lm-eval's `acc`; prefers short choices |
| choice_token | nats a token | GPT-3, arXiv 2005.14165 |
| choice_character | nats a character | |
| choice_byte | nats a byte | lm-eval's `acc_norm` |
| choice_gain | nats, less those without the question | domain PMI, arXiv 2104.08315; lm-eval's `acc_mutual_info` |
"""

import math
from collections.abc import Callable, Sequence

from sluice.model.evaluation.suites.samples import SuiteSample
from sluice.model.evaluation.suites.scorer import ChoiceLikelihood, Scorer

_TIE = 1e-6  # nats: choices nearer than this are not told apart

Cost = Callable[[ChoiceLikelihood], float]

COSTS: dict[str, Cost] = {
    "choice_sum": lambda choice: choice.nats,
    "choice_token": lambda choice: choice.nats / max(choice.tokens, 1),
    "choice_character": lambda choice: choice.nats / max(choice.characters, 1),
    "choice_byte": lambda choice: choice.nats / max(choice.bytes, 1),
    "choice_gain": lambda choice: choice.nats - choice.nats_alone,
}
"""Quantity that is least for the chosen answer, by scorer."""


def chosen(costs: Sequence[float]) -> int | None:
    """Return the index of the only least cost; None for a tie, for NaN, and where no cost is finite."""
    if not costs or any(map(math.isnan, costs)):
        return None
    least = min(costs)
    best = [index for index, cost in enumerate(costs) if cost <= least + _TIE]
    return best[0] if len(best) == 1 and math.isfinite(least) else None


def confidences(costs: Sequence[float]) -> list[float]:
    """Return the probability that a model with these costs gives to each choice: exp(-cost), normalized."""
    least = min(costs)
    weights = [math.exp(least - cost) for cost in costs]
    return [weight / sum(weights) for weight in weights]


def choice_scorer(cost: Cost) -> Callable[[tuple[ChoiceLikelihood, ...], SuiteSample], float]:
    """Return the scorer by this cost: 1 where the key alone has the least, NaN where the model gave no number."""

    def score(choices: tuple[ChoiceLikelihood, ...], sample: SuiteSample) -> float:
        costs = [cost(choice) for choice in choices]
        return math.nan if any(map(math.isnan, costs)) else float(chosen(costs) == sample.key)

    return score


SCORERS = tuple(Scorer(name, "choices", choice_scorer(cost), needs="choices") for name, cost in COSTS.items())
