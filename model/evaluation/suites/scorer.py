"""The scorer's interface: a pure function from a model's answer and its sample to a score."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from sluice.core.check import finite_or_none
from sluice.model.evaluation.judging.agreement import Agreement
from sluice.model.evaluation.suites.samples import SuiteSample

TextScore = Callable[[str, SuiteSample], float | None]


@dataclass(frozen=True)
class ChoiceLikelihood:
    """Likelihood of one choice as the continuation of the question."""

    nats: float
    tokens: int
    characters: int
    bytes: int
    """Bytes that were scored: fewer than the choice has where the model's context cuts it."""
    nats_alone: float
    """The same of the choice without the question."""


ChoiceScore = Callable[[tuple[ChoiceLikelihood, ...], SuiteSample], float | None]


@dataclass(frozen=True)
class Scorer:
    """A scorer under its name in a suite's YAML. Scores lie between 0 and 1; where one measures harm, lower is better.

    None is no score, such as of code that cannot be run here: the metric then has fewer rows than planned, which is
    inconclusive. It is never a 0.
    """

    name: str
    reads: Literal["text", "choices"]
    """Kind of the model's answer: `text` is generated, `choices` are scored by their likelihood."""
    score: TextScore | ChoiceScore
    needs: Literal["targets", "choices", "nothing"] = "targets"
    """Field that every sample of the suite must have."""
    fields: tuple[str, ...] = ()
    """Texts that the scorer reads of every sample."""
    worst: float = 0.0
    """Score of an answer that failed: 1 where the score is a rate of harm, because no answer is no proof of safety."""
    agreement: Agreement | None = None
    """With people, for a scorer that estimates what they would say. One that is right by definition has none."""


def agreement_entry(agreement: Agreement) -> dict[str, float | int | None]:
    """Return what results.json says under `scorers` of a scorer's kappa with people; the gate reads `kappa_low`."""
    low, high = map(finite_or_none, agreement.interval)
    return {
        "kappa": finite_or_none(agreement.value),
        "kappa_low": low,
        "kappa_high": high,
        "n": agreement.n,
        "clusters": agreement.clusters,
    }
