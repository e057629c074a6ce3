"""The part of a suite's run in which the model generates text."""

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any, cast

from sluice.core.progress import Progress
from sluice.model.evaluation.evaluated import AnswerRequest, EvaluatedModel, GeneratedAnswer, Prompt
from sluice.model.evaluation.metric import rounded
from sluice.model.evaluation.suites.perturbations import PERTURBATIONS, agreement
from sluice.model.evaluation.suites.requests import prompts
from sluice.model.evaluation.suites.samples import SuiteSample
from sluice.model.evaluation.suites.scorer import TextScore
from sluice.model.evaluation.suites.scorers import SCORERS
from sluice.model.evaluation.suites.scorers.pass_at_k import pass_at_k
from sluice.model.evaluation.suites.suite import Suite
from sluice.model.evaluation.suites.suite_run import LONGEST_ERROR, Asked, SuiteRun


def add_generated(model: EvaluatedModel, asked: Asked, run: SuiteRun, progress: Progress) -> None:
    """Add what scorers of text say of the greedy answers, and of perturbed prompts and drawn answers where wanted.

    Where none of the prompts can be asked, that is the suite's and not the model's answer: no rows, and the reason in
    `unscored`.
    """
    settings = asked.suite.settings
    greedy = model.generate(_requests(asked.prompts, asked.suite), progress)
    run.entry["failed"] = sum(answer.finish_reason == "error" for answer in greedy)
    run.entry["unfinished"] = sum(answer.finish_reason == "length" for answer in greedy)
    for row, answer in zip(run.answers, greedy, strict=True):
        row.update(answer=answer.text, finish_reason=answer.finish_reason)
        if answer.finish_reason == "error":
            row["error"] = answer.error[:LONGEST_ERROR]
    if run.entry["failed"]:
        run.entry["most_failed"] = most_frequent([answer.error for answer in greedy if answer.finish_reason == "error"])
    if greedy and all(answer.refused for answer in greedy):
        reason = f"no prompt can be asked: {greedy[0].error[:LONGEST_ERROR]}"
        run.entry["unscored"] = {
            settings.metric(name): reason for name in settings.scorers if SCORERS[name].reads == "text"
        }
        return
    for name in settings.scorers:
        if SCORERS[name].reads != "text":
            continue
        scores = _text_scores(name, asked.suite.samples, greedy)
        run.items += asked.rows(settings.metric(name), scores, greedy)
        for row, score in zip(run.answers, scores, strict=True):
            row["scores"][name] = None if score is None else rounded(score)
    _perturb(model, asked, run, greedy, progress=progress)
    if settings.sampling is not None:
        _sample(model, asked, run, progress)


def most_frequent(errors: Sequence[str]) -> dict[str, Any]:
    """Return the most frequent of `errors` as {"reason", "count"}, of equally frequent ones the first."""
    reason, count = Counter(error[:LONGEST_ERROR] for error in errors).most_common(1)[0]
    return {"reason": reason, "count": count}


def _requests(
    asked: Sequence[Prompt], suite: Suite, temperature: float = 0.0, top_p: float = 1.0, seed: int = 0
) -> list[AnswerRequest]:
    settings = suite.settings
    return [
        AnswerRequest(prompt, settings.max_tokens, tuple(settings.stop), temperature, top_p, seed) for prompt in asked
    ]


def _text_scores(name: str, samples: Sequence[SuiteSample], answers: Sequence[GeneratedAnswer]) -> list[float | None]:
    """Score each answer; what failed has the scorer's worst score."""
    score = cast(TextScore, SCORERS[name].score)
    return [
        SCORERS[name].worst if answer.finish_reason == "error" else score(answer.text, sample)
        for sample, answer in zip(samples, answers, strict=True)
    ]


def _perturb(
    model: EvaluatedModel, asked: Asked, run: SuiteRun, greedy: Sequence[GeneratedAnswer], *, progress: Progress
) -> None:
    """Add, by scorer, the score of perturbed prompts as METRIC.KIND, and their answers' agreement with the plain ones
    as SUITE.KIND_agreement.
    """
    settings, samples = asked.suite.settings, asked.suite.samples
    for kind in settings.perturbations:
        changed = model.generate(_requests(prompts(asked.suite, PERTURBATIONS[kind]), asked.suite), progress)
        same = agreement([answer.text for answer in greedy], [answer.text for answer in changed])
        agreed: list[float | None] = [
            0.0 if "error" in (ours.finish_reason, theirs.finish_reason) else each
            for ours, theirs, each in zip(greedy, changed, same, strict=True)
        ]
        found = {f"{settings.name}.{kind}_agreement": agreed}
        for name in settings.scorers:
            if SCORERS[name].reads == "text":
                found[f"{settings.metric(name)}.{kind}"] = _text_scores(name, samples, changed)
        for metric, scores in found.items():
            run.items += asked.rows(metric, scores, changed)
            run.entry["planned"][metric] = len(scores)
        for row, answer in zip(run.answers, changed, strict=True):
            row.setdefault("perturbed", {})[kind] = answer.text


def _sample(model: EvaluatedModel, asked: Asked, run: SuiteRun, progress: Progress) -> None:
    """Add pass@k of drawn answers by the suite's first scorer of text, and the spread of its mean over the seeds."""
    settings = asked.suite.settings
    assert settings.sampling is not None
    sampling = settings.sampling
    scorer = next(name for name in settings.scorers if SCORERS[name].reads == "text")
    by_seed: list[list[float | None]] = []
    for seed in range(sampling.seed, sampling.seed + sampling.answers):
        drawn = model.generate(
            _requests(asked.prompts, asked.suite, sampling.temperature, sampling.top_p, seed), progress
        )
        by_seed.append(_text_scores(scorer, asked.suite.samples, drawn))
        for row, answer in zip(run.answers, drawn, strict=True):
            row.setdefault("drawn", []).append(answer.text)
    for k in sampling.pass_at:
        estimates = []
        for scores in zip(*by_seed, strict=True):
            known = [score for score in scores if score is not None]
            estimates.append(pass_at_k(sum(score >= 1 for score in known), len(known), k))
        name = f"{settings.name}.pass@{k}"
        run.items += asked.rows(name, estimates)
        run.entry["planned"][name] = len(estimates)
    means = [sum(score or 0.0 for score in scores) / len(scores) for scores in by_seed]
    center = sum(means) / len(means)
    deviation = math.sqrt(sum((mean - center) ** 2 for mean in means) / (len(means) - 1))
    run.entry["spread_over_seeds"] = {
        "scorer": scorer,
        "means": [rounded(mean) for mean in means],
        "standard_deviation": rounded(deviation),
    }
