"""Share of multiple-choice questions answered right: better than chance, and not worse than the champion's."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sluice.model.config import EvaluateConfig
from sluice.model.evaluation import metric
from sluice.model.evaluation.metric import Measured, Metric, Subject
from sluice.model.evaluation.metric_policy import MetricPolicy
from sluice.model.evaluation.results import Evaluation, Item

if TYPE_CHECKING:
    from sluice.model.evaluation.held_out import HeldOut

NAME = "choice_accuracy"

POLICY = MetricPolicy(direction="higher", floor=0.0, over_chance=True, margin=0.10, budget=0.15, min_clusters=30)


def measure(subject: Subject) -> Measured:
    from sluice.model.evaluation.tasks import answer_items, build_items

    config = subject.config
    questions = build_items(
        subject.held_out.test,
        items=config.multiple_choice_items,
        choices=config.choices,
        max_passage_bytes=config.max_passage_bytes,
        seed=config.seed,
    )
    answers = answer_items(subject.model, subject.encoder, questions, subject.progress)
    sources = subject.held_out.sources
    items = [
        Item(NAME, question.id, answer, cluster=question.document, metadata={"source": sources[question.document]})
        for question, answer in zip(questions, answers, strict=True)
    ]
    return Measured(items, {"choices": config.choices})


def planned(held_out: "HeldOut", config: EvaluateConfig) -> int:
    from sluice.model.evaluation.tasks import count_items

    return count_items(
        held_out.test,
        items=config.multiple_choice_items,
        choices=config.choices,
        max_passage_bytes=config.max_passage_bytes,
        seed=config.seed,
    )


def summarize(items: Sequence[Item], config: EvaluateConfig) -> dict[str, Any]:
    return metric.summarize(items, POLICY, config.confidence) | {"chance": 1 / config.choices}


def report(results: Mapping[str, Any]) -> dict[str, Any]:
    accuracy = results["metrics"][NAME]
    return {
        "choice_accuracy": accuracy["value"],
        "choice_accuracy_low": accuracy["interval"][0],
        "choice_accuracy_high": accuracy["interval"][1],
        "choice_chance": accuracy["chance"],
        "choice_items": accuracy["n"],
    }


def floor(evaluation: Evaluation, policy: MetricPolicy) -> float | None:
    """Chance, and what the policy wants above it. An evaluation of suites alone has no choices, and no rows."""
    choices = evaluation.results.get("choices") if policy.over_chance else None
    return policy.floor if policy.floor is None or choices is None else 1 / choices + policy.floor


METRIC = Metric(
    name=NAME,
    title="Multiple choice",
    policy=POLICY,
    measure=measure,
    planned=planned,
    floor=floor,
    summarize=summarize,
    report=report,
    headline=("choice_accuracy",),
    show="{:.1%}".format,
)
