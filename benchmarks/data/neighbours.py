"""Recall of near duplicates on planted pairs, and false merges."""

import tempfile
from collections.abc import Sequence
from operator import eq
from pathlib import Path

import numpy as np
from pydantic import BaseModel

from benchmarks.data import stock
from benchmarks.data.planted import LEVELS, corpus, documents, planted, true_jaccard
from sluice.data.config import RefineConfig
from sluice.data.deduplication.near import candidate_pairs, greedy_ranks, near_duplicates, verified_pairs
from sluice.data.deduplication.sketch import sketch, write_sketches
from sluice.data.deduplication.sketch_store import SketchPart
from sluice.data.document import content_id

_A_PART = 500
_SEED = 7


class Recall(BaseModel):
    """Planted pairs of one range of similarity, and the share of them that was found."""

    low: float
    high: float
    pairs: int
    sluice: float
    """Found and verified."""
    stock: float
    """With a band in common, of datatrove's signatures."""


class Merges(BaseModel):
    """Near deduplication of a corpus full of edits of each other."""

    documents: int
    removed: int
    false: int
    """Removed for a document that is less similar than the bound, counted from sets of words."""


def recall(originals: int) -> list[Recall]:
    """A row a level, from the most similar on."""
    bound = RefineConfig.model_validate({}).min_jaccard
    found = []
    for low, high in LEVELS:
        pairs = planted(documents(originals), _SEED, low, high)
        texts = [text for pair in pairs for text in (pair.original, pair.edited)]
        ours = {frozenset(pair) for pair in _verified(texts, bound)[["first", "second"]].tolist()}
        theirs = stock.signatures(texts)
        numbers = range(0, len(texts), 2)
        found.append(
            Recall(
                low=low,
                high=high,
                pairs=len(pairs),
                sluice=sum(frozenset((each, each + 1)) in ours for each in numbers) / len(pairs),
                stock=sum(any(map(eq, theirs[each], theirs[each + 1])) for each in numbers) / len(pairs),
            )
        )
    return found


def merges(count: int) -> Merges:
    """`count` documents with planted edits through the whole of near deduplication."""
    bound, texts = RefineConfig.model_validate({}).min_jaccard, corpus(count)
    ids = [content_id(text) for text in texts]
    everyone = np.ones(len(texts), dtype=bool)
    removed = near_duplicates(ids, list(map(len, texts)), _verified(texts, bound), everyone, bound)
    by_id = dict(zip(ids, texts, strict=True))
    false = sum(true_jaccard(by_id[each.id], by_id[each.duplicate_of]) < bound for each in removed)
    return Merges(documents=len(texts), removed=len(removed), false=false)


def _verified(texts: Sequence[str], bound: float) -> np.ndarray:
    ids = [content_id(text) for text in texts]
    # Edits of two originals may be one text: equal ids are the business of exact deduplication.
    first = {name: place for place, name in reversed(list(enumerate(ids)))}
    eligible = np.array([first[name] == place for place, name in enumerate(ids)])
    config = RefineConfig.model_validate({})
    with tempfile.TemporaryDirectory(prefix="sluice-bench-") as folder:
        parts = []
        for start in range(0, len(texts), _A_PART):
            path = Path(folder) / f"{start:06d}"
            write_sketches(path, [sketch(text, config) for text in texts[start : start + _A_PART]], config)
            parts.append(SketchPart(path))
        candidates = candidate_pairs(parts, greedy_ranks(ids, list(map(len, texts)), eligible))
        return verified_pairs(parts, candidates, bound)
