"""Known answers to ask over the API: golden prompts and suite items, scored as the evaluation scores them."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, cast

from sluice.model.evaluation.evaluated import AnswerRequest, Message, Prompt
from sluice.model.evaluation.golden import load_prompts, text_checks
from sluice.model.evaluation.suites.plain import suites_for
from sluice.model.evaluation.suites.requests import prompts
from sluice.model.evaluation.suites.samples import SuiteSample
from sluice.model.evaluation.suites.scorer import Scorer, TextScore
from sluice.model.evaluation.suites.scorers import SCORERS
from sluice.model.evaluation.suites.suite import Suite

LEAST_KAPPA = 0.6
"""Agreement with people below which an estimating scorer decides nothing, here as at the gate."""
_NOT_HERE = frozenset({"code", "reviewed"})
"""Scorers that run programs, or wait for a person."""


@dataclass(frozen=True)
class KnownItem:
    """A request, and how good an answer to it is: from 0 (wrong) to 1 (right), None where it cannot be scored."""

    request: AnswerRequest
    score: Callable[[str, str], float | None]
    """Scorer of an answer's text and finish reason."""


class KnownItems(NamedTuple):
    """Items to ask, and what is left out."""

    items: list[KnownItem]
    notes: tuple[str, ...] = ()


def known_items(
    golden: Path | None, suites: Sequence[Suite], most: int, *, max_tokens: int, has_chat: bool
) -> KnownItems:
    """Return up to `most` items: the golden prompts, of `max_tokens` each, then items of the suites in a fixed order.

    A suite counts by its first scorer that reads text and may decide. Suites without one are left out: those scored by
    likelihood, because the API has no likelihoods of given text.
    """
    found = (
        [_golden_item(each.kind, each.prompt, max_tokens, has_chat) for each in load_prompts(golden)] if golden else []
    )
    ranked: list[tuple[bytes, KnownItem]] = []
    left_out = []
    for suite in suites_for(suites, "the served model", has_chat=has_chat):
        settings = suite.settings
        scorer = next((SCORERS[name] for name in settings.scorers if _decides(name)), None)
        if scorer is None:
            left_out.append(settings.name)
            continue
        for sample, prompt in zip(suite.samples, prompts(suite), strict=True):
            request = AnswerRequest(prompt, settings.max_tokens, tuple(settings.stop))
            rank = hashlib.sha256(f"{settings.name}:{sample.id}".encode()).digest()
            ranked.append((rank, KnownItem(request, _scored_by(scorer, sample))))
    ranked.sort(key=lambda each: each[0])
    notes = (f"suites not asked, for want of a scorer of text: {', '.join(left_out)}",) if left_out else ()
    return KnownItems([*found, *(item for _, item in ranked)][:most], notes)


def _decides(name: str) -> bool:
    scorer = SCORERS[name]
    agrees = scorer.agreement is None or scorer.agreement.interval.low >= LEAST_KAPPA
    return scorer.reads == "text" and name not in _NOT_HERE and agrees


def _golden_item(kind: str, content: str, max_tokens: int, has_chat: bool) -> KnownItem:
    prompt: Prompt = content
    if kind == "chat":
        prompt = (Message("user", content),) if has_chat else f"{content}\n\n"

    def score(text: str, finish_reason: str) -> float:
        return float(all(text_checks(text, is_cut=finish_reason == "length").values()))

    return KnownItem(AnswerRequest(prompt, max_tokens), score)


def _scored_by(scorer: Scorer, sample: SuiteSample) -> Callable[[str, str], float | None]:
    def score(text: str, _: str) -> float | None:
        value = cast(TextScore, scorer.score)(text, sample)
        # Some scores measure harm, of which less is better.
        return value if value is None else abs(scorer.worst - value)

    return score
