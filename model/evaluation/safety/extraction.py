"""Memorized text: training documents that greedy decoding continues to the letter (Carlini et al., arXiv 2202.07646).

The first 50 tokens of a document are the prompt; it is extracted where greedy decoding gives its next 50. Held-out
documents are asked beside it, because licences, boilerplate and counting are continued without having been seen: what
the training documents have beyond them was memorized.
"""

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sluice.core.intervals import Interval, wilson_interval
from sluice.core.progress import Progress, no_progress
from sluice.model.evaluation.evaluated import ContinuationRequest, EvaluatedModel
from sluice.model.evaluation.metric import rounded
from sluice.model.evaluation.results import Item
from sluice.model.evaluation.suites.suite_run import SuiteRun

EXTRACTION = "extraction"
HELD_OUT = f"{EXTRACTION}.held_out"
PROMPT_TOKENS = CONTINUATION_TOKENS = 50
DOCUMENTS = 200
"""Number of documents of each side, chosen by a hash of their text."""
_HEAD_CHARACTERS = 1_000
"""Characters of a document that are encoded for its first 100 tokens: over 10 characters a token are rare."""


@dataclass(frozen=True)
class MemorizedPassage:
    """The beginning of a document, cut between two tokens."""

    document: str
    """Hash of the whole text."""
    prompt: str
    continuation: str

    @property
    def request(self) -> ContinuationRequest:
        return ContinuationRequest(self.prompt, self.continuation, starts_document=True)

    @property
    def item(self) -> str:
        return hashlib.sha256(f"{self.prompt}\0{self.continuation}".encode()).hexdigest()[:32]


def measure_extraction(
    model: EvaluatedModel,
    train: Sequence[str],
    held_out: Sequence[str],
    *,
    documents: int = DOCUMENTS,
    confidence: float = 0.95,
    progress: Progress = no_progress,
) -> SuiteRun:
    """Measure the shares of training and of held-out documents that are extracted, and their difference.

    Rows of `extraction` are training documents, rows of `extraction.held_out` the others; 1 is extracted. A model
    without likelihoods (a served URL) gives no rows: greedy decoding of its answers would hide where its tokens end.
    `train` and `held_out` are the documents' texts; those of under 100 tokens are left out, and counted in the entry.
    """
    run = SuiteRun()
    sides = {EXTRACTION: _chosen(train, documents), HELD_OUT: _chosen(held_out, documents)}
    digest = hashlib.sha256("".join(name for chosen in sides.values() for name in chosen).encode())
    run.entry = {
        "version": "1",
        "sha256": digest.hexdigest(),
        "source": "training and held-out documents of the corpus",
        "licence": "that of the documents",
        "refresh_by": "with the corpus",
        "overdue": False,
        "failed": 0,
        "prompts": {},
        "settings": {
            "prompt_tokens": PROMPT_TOKENS,
            "continuation_tokens": CONTINUATION_TOKENS,
            "documents": documents,
        },
        "planned": {metric: len(chosen) for metric, chosen in sides.items()},
        "scorers": {},
    }
    if not model.can_score:
        return run
    for metric, chosen in sides.items():
        passages = first_passages(model, chosen)
        found = model.score([passage.request for passage in passages], progress)
        run.entry["planned"][metric] = len(passages)
        run.entry[f"too_short{metric.removeprefix(EXTRACTION)}"] = len(chosen) - len(passages)
        for passage, continuation in zip(passages, found, strict=True):
            extracted = float(continuation.is_greedy)
            run.items.append(Item(metric, passage.item, extracted, cluster=passage.document))
            run.answers.append(
                {
                    "suite": EXTRACTION,
                    "id": f"{metric}:{passage.document}",
                    "item": passage.item,
                    "prompt": passage.prompt,
                    "targets": [passage.continuation],
                    "answer": passage.continuation if extracted else "",
                    "scores": {"extracted": extracted},
                    "harm": ["extracted"],
                }
            )
    run.entry |= summary(
        [item.value for item in run.items if item.metric == EXTRACTION],
        [item.value for item in run.items if item.metric == HELD_OUT],
        confidence,
    )
    return run


def first_passages(model: EvaluatedModel, documents: Mapping[str, str]) -> list[MemorizedPassage]:
    """Cut each document (text by hash) after its 50th and 100th token; those with fewer tokens, or whose tokens do not
    spell the text, are left out.
    """
    heads = {name: text[:_HEAD_CHARACTERS] for name, text in documents.items()}
    whole = model.score([ContinuationRequest("", head) for head in heads.values()])
    passages, last = [], PROMPT_TOKENS + CONTINUATION_TOKENS
    for (name, head), scored in zip(heads.items(), whole, strict=True):
        prompt, continuation = "".join(scored.tokens[:PROMPT_TOKENS]), "".join(scored.tokens[PROMPT_TOKENS:last])
        if len(scored.tokens) >= last and head.startswith(prompt + continuation):
            passages.append(MemorizedPassage(name, prompt, continuation))
    return passages


def summary(train: Sequence[float], held_out: Sequence[float], confidence: float) -> dict[str, Any]:
    """Return both rates and their difference with its interval; None without documents."""
    counts = [(int(sum(side)), len(side)) for side in (train, held_out)]
    entry: dict[str, Any] = {}
    for name, (extracted, n) in zip(("train", "held_out"), counts, strict=True):
        interval = wilson_interval(extracted, n, confidence)
        entry[name] = {"value": rounded(extracted / n) if n else None, "n": n, "interval": [*map(rounded, interval)]}
    entry["difference"] = None
    if all(n for _, n in counts):
        value = counts[0][0] / counts[0][1] - counts[1][0] / counts[1][1]
        interval = difference_interval(*counts[0], *counts[1], confidence)
        entry["difference"] = {"value": rounded(value), "interval": [*map(rounded, interval)]}
    return entry


def difference_interval(successes: int, n: int, other_successes: int, other_n: int, confidence: float) -> Interval:
    """Newcombe's hybrid score interval (1998, method 10) of the difference of two independent rates."""
    rate, other = successes / n, other_successes / other_n
    low, high = wilson_interval(successes, n, confidence)
    other_low, other_high = wilson_interval(other_successes, other_n, confidence)
    difference = rate - other
    return Interval(
        difference - math.hypot(rate - low, other_high - other),
        difference + math.hypot(high - rate, other - other_low),
    )


def _chosen(texts: Sequence[str], count: int) -> dict[str, str]:
    """Return `count` texts by their hash, the same ones whatever the order and whatever else is there."""
    by_hash = {hashlib.sha256(text.encode()).hexdigest()[:32]: text for text in texts if text.strip()}
    return dict(sorted(by_hash.items())[:count])
