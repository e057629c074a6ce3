"""The part of a suite's run in which the model scores choices."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, cast

from sluice.core.progress import Progress
from sluice.model.evaluation.evaluated import ContinuationRequest, EvaluatedModel, Message, Prompt
from sluice.model.evaluation.metric import rounded
from sluice.model.evaluation.suites.calibration import expected_calibration_error, reliability
from sluice.model.evaluation.suites.samples import SuiteSample
from sluice.model.evaluation.suites.scorer import ChoiceLikelihood, ChoiceScore
from sluice.model.evaluation.suites.scorers import SCORERS
from sluice.model.evaluation.suites.scorers.choice import COSTS, chosen, confidences
from sluice.model.evaluation.suites.suite_run import Asked, SuiteRun


def add_chosen(model: EvaluatedModel, asked: Asked, run: SuiteRun, progress: Progress) -> None:
    """Add what scorers of choices say of the choices' likelihoods, and how well calibrated the model is."""
    settings, samples = asked.suite.settings, asked.suite.samples
    scorers = [name for name in settings.scorers if SCORERS[name].reads == "choices"]
    if not model.can_score:
        run.entry.setdefault("unscored", {}).update(
            {settings.metric(name): "the model gives no likelihoods; score choice_letter instead" for name in scorers}
        )
        return
    likelihoods = _likelihoods(model, asked, "choice_gain" in scorers, progress)
    for row, sample, choices in zip(run.answers, samples, likelihoods, strict=True):
        row["choices"] = [
            {"text": text, "nats": rounded(choice.nats)} for text, choice in zip(sample.choices, choices, strict=True)
        ]
    for name in scorers:
        costs = [[COSTS[name](choice) for choice in choices] for choices in likelihoods]
        score = cast(ChoiceScore, SCORERS[name].score)
        scores = [score(choices, sample) for choices, sample in zip(likelihoods, samples, strict=True)]
        run.items += asked.rows(settings.metric(name), scores)
        for row, found, value in zip(run.answers, costs, scores, strict=True):
            best = chosen(found)
            row["scores"][name] = None if value is None else rounded(value)
            row.setdefault("answer", None if best is None else row["choices"][best]["text"])
        run.entry.setdefault("calibration", {})[name] = _calibration(costs, samples)


def _likelihoods(
    model: EvaluatedModel, asked: Asked, with_alone: bool, progress: Progress
) -> list[tuple[ChoiceLikelihood, ...]]:
    """Score every choice of every sample after its prompt and, `with_alone`, after the prompt without a question."""
    settings, samples = asked.suite.settings, asked.suite.samples
    alone: Prompt = (Message("user", settings.alone_prompt),) if settings.chat else settings.alone_prompt
    places: dict[ContinuationRequest, int] = {}
    wanted = []
    for sample, prompt in zip(samples, asked.prompts, strict=True):
        pairs = []
        for choice in sample.choices:
            text = f"{settings.choice_prefix}{choice}"
            given = places.setdefault(ContinuationRequest(prompt, text), len(places))
            without = places.setdefault(ContinuationRequest(alone, text), len(places)) if with_alone else None
            pairs.append((text, given, without))
        wanted.append(pairs)
    found = model.score(list(places), progress)
    likelihoods = []
    for pairs in wanted:
        choices = []
        for text, given, without in pairs:
            scored = found[given]
            kept = text.encode()[: scored.scored_bytes].decode(errors="ignore")
            nats_alone = math.nan if without is None else found[without].nats
            choices.append(
                ChoiceLikelihood(scored.nats, len(scored.tokens), len(kept), scored.scored_bytes, nats_alone)
            )
        likelihoods.append(tuple(choices))
    return likelihoods


def _calibration(costs: Sequence[Sequence[float]], samples: Sequence[SuiteSample]) -> Mapping[str, Any]:
    """Return ECE and reliability table of the items whose choices all have a finite likelihood."""
    known = [(found, sample) for found, sample in zip(costs, samples, strict=True) if all(map(math.isfinite, found))]
    table = reliability(
        [max(confidences(found)) for found, _ in known], [chosen(found) == sample.key for found, sample in known]
    )
    error = expected_calibration_error(table)
    bins = [{name: rounded(value) for name, value in asdict(each).items() if value is not None} for each in table]
    return {"expected_calibration_error": None if error is None else rounded(error), "n": len(known), "bins": bins}
