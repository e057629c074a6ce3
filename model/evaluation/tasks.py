"""Multiple choice on held-out documents: which of these passages belongs under this heading, or follows this one?"""

import hashlib
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sluice.core.canonical import canonical_json
from sluice.core.progress import Progress, no_progress
from sluice.data.extraction.sections import continuations, sections
from sluice.model.architecture.transformer import Transformer
from sluice.model.evaluation.held_out import cut
from sluice.model.evaluation.likelihood import Span, negative_log_likelihoods
from sluice.model.evaluation.prompts import chat_prompt
from sluice.model.text.prompt import PromptEncoder

_REPLACEMENT = "\ufffd"  # what a character is decoded as that the cut has divided
_POOL_PER_DISTRACTOR = 8  # passages nearest in length, among which the seed chooses


@dataclass(frozen=True)
class ChoiceItem:
    """One question. The order of the passages is part of it."""

    question: str
    passages: tuple[str, ...]
    answer: int
    """Index of the passage that belongs under the heading, or follows the question."""
    document: str = ""
    """The document that question and answer are from; items of one document are alike."""

    @property
    def id(self) -> str:
        return hashlib.sha256(canonical_json([self.question, self.passages, self.answer])).hexdigest()[:32]


@dataclass(frozen=True)
class _Passage:
    document: str
    heading: str
    text: str
    size_bytes: int
    rank: str
    """Hash that orders passages independently of their places in the corpus."""


def build_items(
    documents: Sequence[tuple[str, str]], *, items: int, choices: int, max_passage_bytes: int, seed: int
) -> list[ChoiceItem]:
    """Build up to `items` questions from (document id, text), the same for the same documents in any order.

    A document without headings asks which passage follows another. A heading of several sections ("Examples") is no
    question and is left out. Distractors come from other
    documents and are close in length, so that neither length nor the document's own words give the answer away.
    """
    passages = _passages(documents, max_passage_bytes, seed)
    questions_of: Counter[str] = Counter()
    turns = []
    for passage in sorted(passages, key=lambda p: p.rank):
        turns.append((questions_of[passage.document], passage.rank, passage))
        questions_of[passage.document] += 1
    # Every document's first question comes before any one's second: items of one document are alike.
    built: list[ChoiceItem] = []
    for _, _, passage in sorted(turns, key=lambda turn: turn[:2]):
        others = [other for other in passages if other.document != passage.document]
        others.sort(key=lambda other: (abs(other.size_bytes - passage.size_bytes), other.rank))
        distractors = others[: (choices - 1) * _POOL_PER_DISTRACTOR]
        if len(distractors) < choices - 1 or len(built) == items:
            continue
        draw = random.Random(f"{seed}:{passage.rank}")
        texts = [passage.text, *(d.text for d in draw.sample(distractors, choices - 1))]
        draw.shuffle(texts)
        built.append(ChoiceItem(passage.heading, tuple(texts), texts.index(passage.text), passage.document))
    return built


def count_items(
    documents: Sequence[tuple[str, str]], *, items: int, choices: int, max_passage_bytes: int, seed: int
) -> int:
    """Return how many questions `build_items` builds, without building them."""
    of_document = Counter(passage.document for passage in _passages(documents, max_passage_bytes, seed))
    enough = (count for count in of_document.values() if of_document.total() - count >= choices - 1)
    return min(items, sum(enough))


def _passages(documents: Sequence[tuple[str, str]], max_bytes: int, seed: int) -> list[_Passage]:
    found: dict[str, _Passage] = {}
    headings: Counter[str] = Counter()

    def add(document: str, question: str, passage: str) -> None:
        rank = hashlib.sha256(canonical_json([seed, question, passage])).hexdigest()
        found.setdefault(passage, _Passage(document, question, passage, len(passage.encode()), rank))

    for document, text in documents:
        for before, after in continuations(text):
            question = cut(before, max_bytes)
            headings[question.casefold()] += 1
            add(document, question, cut(after, max_bytes))
        for section in sections(text):
            headings[section.heading.casefold()] += 1
            first, _, rest = section.body.strip().partition("\n")
            body = rest.strip() if first.strip().casefold() == section.heading.casefold() else section.body.strip()
            passage = body if len(body.encode()) <= max_bytes else cut(body, max_bytes).rsplit(maxsplit=1)[0]
            # Shorter than a fifth of the space is a remark, not a passage.
            if section.heading and len(passage.encode()) >= max_bytes // 5:
                add(document, section.heading, passage)
    return [passage for passage in found.values() if headings[passage.heading.casefold()] == 1]


def answer_items(
    model: Transformer, encoder: PromptEncoder, items: Sequence[ChoiceItem], progress: Progress = no_progress
) -> list[float]:
    """Return 1 or 0 for each item: whether the question favours the right passage most; NaN without finite logits.

    A passage scores log p(passage | question) - log p(passage | empty question), by the bytes that are scored, which
    are fewer than all where the context cuts the passage: the passage's own
    likelihood, which is independent of the question, cancels (Holtzman et al., arXiv 2104.08315). Tuning includes
    answers to an empty question, so the second term is in distribution.
    """
    empty = chat_prompt(encoder, "")
    spans: dict[tuple[tuple[int, ...], tuple[int, ...]], int] = {}
    scores: list[list[tuple[int, int, int]]] = []
    for item in items:
        prompt = chat_prompt(encoder, item.question, max_tokens=model.config.context // 2)
        options = []
        for passage in item.passages:
            whole = encoder.encode_text(passage)
            # One token more than the context: the last is only a target.
            ids = tuple(whole[: model.config.context + 1 - max(len(prompt), len(empty))])
            kept = passage if len(ids) == len(whole) else encoder.tokenizer.decode(ids).rstrip(_REPLACEMENT)
            pair = [spans.setdefault((tuple(before), ids), len(spans)) for before in (prompt, empty)]
            options.append((pair[0], pair[1], max(1, len(kept.encode()))))
        scores.append(options)
    scored = [Span(before + ids, len(before)) for before, ids in spans]
    nats = negative_log_likelihoods(model, scored, progress, "multiple choice")
    answers = []
    for item, options in zip(items, scores, strict=True):
        gains = np.array([(nats[without] - nats[given]) / size for given, without, size in options])
        answers.append(float(gains.argmax() == item.answer) if np.isfinite(gains).all() else float("nan"))
    return answers
