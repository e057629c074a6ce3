"""Score answers by a judge: any model that generates, a server (judge_server.py) or a model directory."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from sluice.core.check import finite_or_none
from sluice.core.progress import Progress, no_progress
from sluice.model.evaluation.evaluated import AnswerRequest, EvaluatedModel, GeneratedAnswer
from sluice.model.evaluation.judging.agreement import Agreement, cohens_kappa, deciding
from sluice.model.evaluation.judging.correction import Calibration, calibrate, corrected_rate, effective_counts
from sluice.model.evaluation.judging.replies import ReplyError, read_score
from sluice.model.evaluation.judging.rubric import JudgedAnswer, Rubric, score_messages
from sluice.model.evaluation.results import Item

MOST_ERRORS = 0.02
"""Share of answers that a judge may fail to judge; beyond it the suite is inconclusive."""
_AT_ONCE = 8
_SHOWN_ERRORS = 5

Read = TypeVar("Read")


@dataclass(frozen=True)
class Judgement:
    """A judge's score of one answer."""

    id: str
    score: float | None
    """None where the judge failed to judge; `error` says why."""
    passed: bool
    """Whether the score reaches the rubric's threshold; an answer without a score does not pass."""
    error: str = ""


@dataclass(frozen=True)
class LabelledAnswer:
    """An answer that a person labelled."""

    answer: JudgedAnswer
    passed: bool


@dataclass(frozen=True)
class JudgeQuality:
    """How a judge compares with people."""

    kappa: Agreement
    calibration: Calibration
    errors: int

    @property
    def decides(self) -> bool:
        """Whether the judge may decide a gate."""
        return deciding(self.kappa.interval) and is_conclusive(self.errors, self.kappa.n)


def judge_answers(
    judge: EvaluatedModel, rubric: Rubric, answers: Sequence[JudgedAnswer], progress: Progress = no_progress
) -> list[Judgement]:
    """Score each answer by a rubric of kind `score`. An answer that the judge fails to judge has no score."""
    assert rubric.kind == "score"
    requests = [AnswerRequest(score_messages(rubric, answer), rubric.max_tokens) for answer in answers]
    read = ask_judge(judge, requests, lambda reply: read_score(reply, rubric.scale), progress)
    return [
        Judgement(answer.id, None, passed=False, error=found)
        if isinstance(found, str)
        else Judgement(answer.id, found, passed=found >= rubric.threshold)
        for answer, found in zip(answers, read, strict=True)
    ]


def ask_judge(
    judge: EvaluatedModel,
    requests: Sequence[AnswerRequest],
    read: Callable[[str], Read],
    progress: Progress = no_progress,
) -> list[Read | str]:
    """Return what `read` makes of each reply, or the error as text.

    The judge is not asked any more once over 2 % of all requests failed, or the first ones all did: the outcome is
    known then, and a dead server costs a few time-outs, not one for each answer.
    """
    found: list[Read | str] = []
    errors = 0
    for start in range(0, len(requests), _AT_ONCE):
        if errors > MOST_ERRORS * len(requests) or errors == start > 0:
            found += [f"not asked: {errors} of {start} judgements had failed"] * (len(requests) - start)
            break
        block = requests[start : start + _AT_ONCE]
        for reply in judge.generate(block):
            result = _read(reply, read)
            errors += isinstance(result, str)
            found.append(result)
        progress(len(found), len(requests), "judgements")
    return found


def _read(reply: GeneratedAnswer, read: Callable[[str], Read]) -> Read | str:
    if reply.finish_reason == "error":
        return f"no reply: {reply.error}"
    if reply.finish_reason == "length":
        return "the reply was cut at its most tokens"
    try:
        return read(reply.text)
    except ReplyError as error:
        return str(error)


def is_conclusive(errors: int, n: int) -> bool:
    """Return whether a judge judged enough: at least one answer, and no more than 2 % errors."""
    return n > 0 and errors <= MOST_ERRORS * n


def compare_with_people(
    judge: EvaluatedModel, rubric: Rubric, labelled: Sequence[LabelledAnswer], progress: Progress = no_progress
) -> JudgeQuality:
    """Measure a judge on answers that people labelled. An error of the judge is a disagreement, and a wrong label."""
    judgements = judge_answers(judge, rubric, [each.answer for each in labelled], progress)
    people = [each.passed for each in labelled]
    clusters = [each.answer.cluster or each.answer.id for each in labelled]
    names = ["error" if judgement.error else _name(judgement.passed) for judgement in judgements]
    right = [
        judgement.passed if not judgement.error else not label
        for judgement, label in zip(judgements, people, strict=True)
    ]
    return JudgeQuality(
        kappa=cohens_kappa(names, [_name(label) for label in people], clusters),
        calibration=calibrate(right, people, clusters),
        errors=sum(1 for judgement in judgements if judgement.error),
    )


def judged_items(metric: str, answers: Sequence[JudgedAnswer], judgements: Sequence[Judgement]) -> list[Item]:
    """Return the metric's rows: 1 for an answer that passes, 0 for one that does not or was not judged.

    None if over 2 % were not judged: fewer rows than planned are inconclusive.
    """
    if not is_conclusive(sum(1 for each in judgements if each.error), len(judgements)):
        return []
    return [
        Item(
            metric,
            answer.id,
            float(judgement.passed),
            cluster=answer.cluster,
            metadata={"error": judgement.error} if judgement.error else {},
        )
        for answer, judgement in zip(answers, judgements, strict=True)
    ]


def summarize_judged(
    judge: EvaluatedModel,
    rubric: Rubric,
    answers: Sequence[JudgedAnswer],
    judgements: Sequence[Judgement],
    quality: JudgeQuality | None,
) -> dict[str, Any]:
    """Return the entry of results.json: who judged by what, how many errors, length preference, kappa, corrected rate.

    Without human labels (`quality` None) there is no kappa, and the judge does not decide.
    """
    errors = [each.error for each in judgements if each.error]
    scored = [
        (each.score, len(answer.answer)) for answer, each in zip(answers, judgements, strict=True) if not each.error
    ]
    entry: dict[str, Any] = {
        "judge": judge.model_hash,
        "rubric": rubric.name,
        "rubric_version": str(rubric.version),
        "rubric_sha256": rubric.sha256,
        "planned": len(answers),
        "errors": len(errors),
        "first_errors": errors[:_SHOWN_ERRORS],
        "conclusive": is_conclusive(len(errors), len(judgements)),
        "length_correlation": finite_or_none(_rank_correlation(scored)),
        "kappa": None,
        "kappa_low": None,
        "corrected": None,
        "decides": False,
    }
    if quality is not None:
        counts = effective_counts([each.passed for each in judgements], [a.cluster or a.id for a in answers])
        corrected = corrected_rate(counts, quality.calibration)
        entry |= {
            "kappa": quality.kappa.summary(),
            # What the gate reads. A judge that fails on the labelled answers has none.
            "kappa_low": quality.kappa.interval.low if is_conclusive(quality.errors, quality.kappa.n) else None,
            "label_errors": quality.errors,
            "corrected": {"value": finite_or_none(corrected.value), "interval": list(corrected.interval)},
            "decides": quality.decides and entry["conclusive"],
        }
    return entry


def _rank_correlation(scored: Sequence[tuple[float | None, int]]) -> float:
    """Spearman's correlation of score and length of the answer; NaN where either does not vary."""
    if len(scored) < 3:
        return float("nan")
    from scipy.stats import rankdata

    scores, lengths = (rankdata(values) for values in zip(*scored, strict=True))
    if np.ptp(scores) == 0 or np.ptp(lengths) == 0:
        return float("nan")
    return float(np.corrcoef(scores, lengths)[0, 1])


def _name(passed: bool) -> str:
    return "pass" if passed else "fail"
