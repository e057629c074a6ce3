"""A judge of replayed answers: it counts only if it agrees with people on pairs that they labelled."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sluice.model.evaluation.evaluated import EvaluatedModel
from sluice.model.evaluation.judging.agreement import cohens_kappa, deciding
from sluice.model.evaluation.judging.judge import is_conclusive
from sluice.model.evaluation.judging.pairwise import AnswerPair, Winner, judge_pairs
from sluice.model.evaluation.judging.rubric import Rubric
from sluice.serving.evidence import Pairs

_WINNERS: dict[Any, Winner] = {"first": "candidate", "second": "baseline", "tie": "tie"}


@dataclass(frozen=True)
class LabelledPair:
    """Two answers to one prompt, and which of them people found better."""

    pair: AnswerPair
    winner: Winner


def read_labelled_pairs(path: Path) -> list[LabelledPair]:
    """Read a JSONL file: `prompt`, `first`, `second`, and `better`, which is first, second or tie, on each line.

    Raises ValueError naming file, line and reason.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(
            f"labels {path} cannot be read ({type(error).__name__}): correct rollout.quality.judge_labels"
        ) from None
    found = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            texts = [row[name] for name in ("prompt", "first", "second")]
            winner = _WINNERS[row["better"]]
        except (ValueError, KeyError, TypeError):
            texts, winner = [], "tie"
        if not texts or not all(isinstance(text, str) for text in texts):
            raise ValueError(f"{path}, line {number}: give prompt, first, second, and better (first, second or tie)")
        prompt, first, second = texts
        found.append(LabelledPair(AnswerPair(str(number), prompt, first, second, cluster=prompt), winner))
    if not found:
        raise ValueError(f"{path} has no labelled pairs: write one JSON object a line")
    return found


class ReplayJudge:
    """Judges pairs of replayed answers, each in both orders, once it has shown that it agrees with people."""

    def __init__(self, judge: EvaluatedModel, rubric: Rubric, labelled: Sequence[LabelledPair]) -> None:
        self._judge, self._rubric, self._labelled = judge, rubric, labelled
        self._refusal: str | None = None
        """Why it does not count; empty if it does, None before its agreement was measured."""
        self._counts = [0] * 3
        """Ties, pairs whose challenger is worse, and pairs whose champion is."""
        self._errors = 0

    def judge(self, prompt: str, champion: str, challenger: str) -> None:
        """Compare two answers, and measure the agreement with people before the first ones."""
        if self._refusal is None:
            self._refusal = self._measure()
        if self._refusal:
            return
        (found,) = judge_pairs(self._judge, self._rubric, [AnswerPair("", prompt, challenger, champion)])
        if found.winner is None:
            self._errors += 1
            return
        self._counts[("tie", "baseline", "candidate").index(found.winner)] += 1

    @property
    def pairs(self) -> Pairs:
        """The judged pairs, by whose answer is worse; none if over 2 % could not be judged."""
        n = sum(self._counts)
        return Pairs(*self._counts) if is_conclusive(self._errors, n + self._errors) else Pairs()

    @property
    def notes(self) -> list[str]:
        """Why its judgements do not count; empty if they do."""
        if self._refusal:
            return [self._refusal]
        n = sum(self._counts) + self._errors
        failed = self._errors and not is_conclusive(self._errors, n)
        return [f"judge not counted: it failed on {self._errors} of {n} pairs"] if failed else []

    def _measure(self) -> str:
        found = judge_pairs(self._judge, self._rubric, [each.pair for each in self._labelled])
        errors = sum(each.winner is None for each in found)
        if not is_conclusive(errors, len(found)):
            return f"judge not counted: it failed on {errors} of {len(found)} labelled pairs"
        agreement = cohens_kappa(
            [each.winner or "error" for each in found],
            [each.winner for each in self._labelled],
            [each.pair.prompt for each in self._labelled],
        )
        if deciding(agreement.interval):
            return ""
        return (
            f"judge not counted: its kappa with people is {agreement.value:.2f}, with a lower end of "
            f"{agreement.interval.low:.2f}, and 0.6 is needed"
        )
