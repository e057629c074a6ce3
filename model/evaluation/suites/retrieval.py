"""Retrieval over held-out sections: BM25 finds the sections for a heading, and the model answers from those found.

| metric | of | value |
|---|---|---|
| retrieval.recall@k | the ranking, whatever the model | whether the heading's own section is among the first k |
| retrieval.mrr | the ranking | 1 / rank of that section |
| retrieval.cited_source | the answer | whether it cites that section, and none that was not shown |
| retrieval.supported_sentences | the answer | share of its sentences that the sections that it cites say |
"""

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

import numpy as np

from sluice.core.canonical import canonical_json
from sluice.data.extraction.sections import continuations, sections
from sluice.model.evaluation.held_out import cut
from sluice.model.evaluation.suites.samples import to_sample
from sluice.model.evaluation.suites.suite import Suite, SuiteSettings
from sluice.model.evaluation.suites.words import words

NAME = "retrieval"
QUESTIONS = 30
_RECALL_AT = [1, 5]
_RANKED = 10  # of the ranking that a sample keeps
_SHOWN = 2
_SHORTEST, _LONGEST = 80, 200  # bytes of a section: two of them leave space for an answer in a context of 256 tokens
_PROMPT = (
    "Answer from the sources below, and cite them by their numbers, such as [1].\n\n{sources}\n\nQuestion: {question}"
)


@dataclass(frozen=True)
class RetrievalPassage:
    """A section of a document and the heading that asks for it, or a passage and the words before it."""

    id: str
    document: str
    question: str
    text: str


def read_passages(documents: Sequence[tuple[str, str]]) -> list[RetrievalPassage]:
    """Cut (document id, text) into sections, the same for the same documents in any order.

    A document without headings is cut into passages. A question that several sections have ("Examples") asks for none
    of them.
    """
    found: dict[str, RetrievalPassage] = {}
    for document, text in sorted(documents):
        pairs = [(section.heading, section.body.strip()) for section in sections(text) if section.heading]
        for question, body in pairs or continuations(text):
            passage = cut(body, _LONGEST)
            if len(passage.encode()) >= _SHORTEST:
                name = hashlib.sha256(canonical_json([question, passage])).hexdigest()[:16]
                found.setdefault(passage, RetrievalPassage(name, document, question, passage))
    asked = Counter(each.question.casefold() for each in found.values())
    return [each for each in found.values() if asked[each.question.casefold()] == 1]


def rank(queries: Sequence[str], texts: Sequence[str], most: int) -> list[list[int]]:
    """Return for each query the indices of the `most` best texts by BM25; equal scores in the order of the texts."""
    from bm25s import BM25

    index = BM25()
    index.index([words(text) or [""] for text in texts], show_progress=False)
    ranked = []
    for query in queries:
        asked = words(query)
        scores = index.get_scores(asked) if asked else np.zeros(len(texts))
        ranked.append([int(place) for place in np.argsort(-scores, kind="stable")[:most]])
    return ranked


def retrieval_suite(documents: Sequence[tuple[str, str]], *, seed: int, questions: int = QUESTIONS) -> Suite | None:
    """Return the suite over the sections of `documents`; None where fewer than ten sections can be asked for.

    The questions are drawn by a hash, one of every document before a second of any.
    """
    passages = read_passages(documents)
    if len(passages) < _RANKED:
        return None
    drawn = sorted(passages, key=lambda each: hashlib.sha256(f"{seed}:{each.id}".encode()).digest())
    turns: Counter[str] = Counter()
    order = []
    for place, passage in enumerate(drawn):
        order.append((turns[passage.document], place, passage))
        turns[passage.document] += 1
    chosen = [passage for _, _, passage in sorted(order, key=lambda turn: turn[:2])][:questions]
    rankings = rank([each.question for each in chosen], [each.text for each in passages], _RANKED)
    rows: list[dict[str, Any]] = []
    for passage, places in zip(chosen, rankings, strict=True):
        shown = [passages[place] for place in places[:_SHOWN]]
        rows.append(
            {
                "id": passage.id,
                "question": passage.question,
                "document": passage.document,
                "sources": "\n\n".join(f"[{number}] {each.text}" for number, each in enumerate(shown, start=1)),
                "shown": [{"id": each.id, "text": each.text} for each in shown],
                "ranked": [passages[place].id for place in places],
                "relevant": [passage.id],
            }
        )
    settings = SuiteSettings.model_validate(
        {
            "name": NAME,
            "version": 1,
            "source": "sections of the held-out documents",
            "licence": "that of the documents",
            "created": date(2026, 12, 1),
            "refresh_by": date.max,  # the questions are as new as the documents
            "data": f"{NAME}.jsonl",
            "sha256": hashlib.sha256(b"".join(canonical_json(row) + b"\n" for row in rows)).hexdigest(),
            "scorers": ["cited_source", "supported_sentences"],
            "prompt": _PROMPT,
            "max_tokens": 48,
            "cluster": "document",
            "recall_at": _RECALL_AT,
            "task": NAME,
        }
    )
    return Suite(settings, tuple(to_sample(row, settings.fields) for row in rows))
