"""Compare two models' answers by a judge, in both orders, and report what besides quality may have moved it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from sluice.core.intervals import wilson_interval
from sluice.core.progress import Progress, no_progress
from sluice.model.evaluation.evaluated import AnswerRequest, EvaluatedModel
from sluice.model.evaluation.judging.judge import ask_judge, is_conclusive
from sluice.model.evaluation.judging.replies import read_preference
from sluice.model.evaluation.judging.rubric import Rubric, pair_messages

Winner = Literal["candidate", "baseline", "tie"]


@dataclass(frozen=True)
class AnswerPair:
    """Two models' answers to one prompt."""

    id: str
    prompt: str
    candidate: str
    baseline: str
    cluster: str = ""
    """Cluster of the prompt, such as its document; empty for a cluster of its own."""


@dataclass(frozen=True)
class PairJudgement:
    """Which answer a judge prefers, over both orders."""

    id: str
    winner: Winner | None
    """A tie too where the orders disagree; None where the judge failed to judge."""
    flipped: bool = False
    """Whether the judge preferred the answer in the same place in both orders."""
    error: str = ""


def judge_pairs(
    judge: EvaluatedModel, rubric: Rubric, pairs: Sequence[AnswerPair], progress: Progress = no_progress
) -> list[PairJudgement]:
    """Ask the judge for each pair twice, in both orders. Answers that are the same are a tie, without a question."""
    assert rubric.kind == "pair"
    asked = [pair for pair in pairs if pair.candidate != pair.baseline]
    requests = [
        AnswerRequest(pair_messages(rubric, pair.prompt, *order), rubric.max_tokens)
        for pair in asked
        for order in ((pair.candidate, pair.baseline), (pair.baseline, pair.candidate))
    ]
    replies = iter(ask_judge(judge, requests, lambda reply: (read_preference(reply),), progress))
    found = []
    for pair in pairs:
        if pair.candidate == pair.baseline:
            found.append(PairJudgement(pair.id, "tie"))
            continue
        forward, backward = next(replies), next(replies)
        if isinstance(forward, str) or isinstance(backward, str):
            error = forward if isinstance(forward, str) else backward
            found.append(PairJudgement(pair.id, None, error=str(error)))
            continue
        names: dict[str, Winner] = {"first": "candidate", "second": "baseline", "tie": "tie"}
        swapped: dict[str, Winner] = {"first": "baseline", "second": "candidate", "tie": "tie"}
        one, other = names[forward[0]], swapped[backward[0]]
        flipped = one != other and "tie" not in (one, other)
        found.append(PairJudgement(pair.id, one if one == other else "tie", flipped))
    return found


def summarize_pairs(
    pairs: Sequence[AnswerPair],
    judgements: Sequence[PairJudgement],
    *,
    own: Literal["candidate", "baseline"] | None = None,
    people: Sequence[Winner | None] | None = None,
) -> dict[str, Any]:
    """Return errors, flips, and the judge's preference for the longer answer and for its own.

    own: the model that is the judge itself, or of its family. people: what people preferred, None where nobody said;
    with it, self-preference is the judge's choice of its own answers less people's choice of them, on the same pairs.
    """
    decided = [(p, j.winner) for p, j in zip(pairs, judgements, strict=True) if j.winner not in (None, "tie")]
    longer = [
        winner == ("candidate" if len(pair.candidate) > len(pair.baseline) else "baseline")
        for pair, winner in decided
        if len(pair.candidate) != len(pair.baseline)
    ]
    errors = sum(1 for each in judgements if each.error)
    summary: dict[str, Any] = {
        "pairs": len(pairs),
        "errors": errors,
        "conclusive": is_conclusive(errors, len(pairs)),
        "flipped": sum(1 for each in judgements if each.flipped),
        "decided": len(decided),
        "prefers_longer": _share(longer),
        "prefers_own": _share([winner == own for _, winner in decided]) if own else None,
    }
    if own and people is not None:
        both = [
            (judgement.winner == own, said == own)
            for judgement, said in zip(judgements, people, strict=True)
            if judgement.winner not in (None, "tie") and said not in (None, "tie")
        ]
        summary["prefers_own_people"] = _share([said for _, said in both])
        summary["self_preference"] = (sum(j for j, _ in both) - sum(s for _, s in both)) / len(both) if both else None
    return summary


def _share(chosen: Sequence[bool]) -> dict[str, Any] | None:
    """A share with its 95 % interval, or None without any."""
    if not chosen:
        return None
    low, high = wilson_interval(sum(chosen), len(chosen), 0.95)
    return {"value": sum(chosen) / len(chosen), "interval": [low, high], "n": len(chosen)}
