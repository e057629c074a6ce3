"""Share of multiple-choice questions answered right: better than chance, and not worse than the champion's."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from pydantic import Field

from sluice.core.check import Check, compare_interval
from sluice.core.intervals import UNDEFINED, mcnemar_exact, paired_rate_interval, wilson_interval
from sluice.model.config import EvaluateConfig, GateSettings
from sluice.model.evaluation.item_checks import columns, not_paired, unusable
from sluice.model.evaluation.metric import Measured, Metric, Subject, mean, summary
from sluice.model.evaluation.results import Evaluation, Item

NAME = "choice_accuracy"
DIFFERENCE = "choice_accuracy_difference"


class Bounds(GateSettings):
    min_choice_accuracy_over_chance: float = Field(0.0)
    """The lower end of the accuracy's interval must exceed 1/choices by more than this."""
    max_choice_accuracy_drop: float = Field(0.10, ge=0)
    """Non-inferiority margin: the lower end of the paired difference must exceed minus this."""


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


def summarize(items: Sequence[Item], config: EvaluateConfig) -> dict[str, Any]:
    right, interval = sum(item.value for item in items), UNDEFINED
    if np.isfinite(right):
        interval = wilson_interval(round(right), len(items), config.confidence)
    return summary(mean(items), len(items), interval) | {"chance": 1 / config.choices}


def report(results: Mapping[str, Any]) -> dict[str, Any]:
    accuracy = results["metrics"][NAME]
    return {
        "choice_accuracy": accuracy["value"],
        "choice_accuracy_low": accuracy["interval"][0],
        "choice_accuracy_high": accuracy["interval"][1],
        "choice_chance": accuracy["chance"],
        "choice_items": accuracy["n"],
    }


def check(evaluation: Evaluation, bounds: Bounds, confidence: float) -> Check:
    bound = 1 / evaluation.results["choices"] + bounds.min_choice_accuracy_over_chance
    if fault := unusable(NAME, evaluation, NAME, bound, min_samples=bounds.min_samples):
        return fault
    items = evaluation.items[NAME]
    right, n = round(sum(item.value for item in items)), len(items)
    return compare_interval(NAME, right / n, wilson_interval(right, n, confidence), bound, good="above", n=n)


def compare(candidate: Evaluation, champion: Evaluation, bounds: Bounds, confidence: float) -> Check:
    """Non-inferiority: the lower end of the paired difference stays above minus the margin."""
    bound = -bounds.max_choice_accuracy_drop
    if fault := not_paired(DIFFERENCE, candidate, champion, NAME, bound, min_samples=bounds.min_samples):
        return fault
    ours = columns(candidate.items[NAME])[0] > 0.5
    theirs = columns(champion.items[NAME])[0] > 0.5
    candidate_only, champion_only, n = int((ours & ~theirs).sum()), int((theirs & ~ours).sum()), len(ours)
    pair = float(ours.mean()), float(theirs.mean())
    return compare_interval(
        DIFFERENCE,
        (candidate_only - champion_only) / n,
        paired_rate_interval(candidate_only, champion_only, n, confidence),
        bound,
        good="above",
        n=n,
        paired=pair,
        show="{:+.3f}".format,
        note=f" ({pair[0]:.3f} against {pair[1]:.3f}), McNemar p={mcnemar_exact(candidate_only, champion_only):.3f}",
    )


METRIC = Metric(
    name=NAME,
    title="Multiple choice",
    bounds=Bounds,
    measure=measure,
    summarize=summarize,
    report=report,
    headline=("choice_accuracy",),
    check=check,
    intervals=1,
    compare=compare,
    paired_intervals=1,
    show="{:.1%}".format,
)
