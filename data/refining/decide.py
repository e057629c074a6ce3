"""The second half of refining: which documents are kept, decided from what the first half measured. Pure.

Rules come first, then contamination, then duplicates, so that a document is never dropped for a twin that is dropped
itself. Everything goes by content id: equal text has equal scores and one fate, wherever and how often it was read.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from sluice.data.config import ContaminationPolicy, RefineConfig
from sluice.data.decontamination.sets import Span, acting, set_names
from sluice.data.deduplication.near import Duplicate, near_duplicates
from sluice.data.quality.rules import breaches


@dataclass(frozen=True)
class Corpus:
    """All scored documents, as columns in canonical order: by id, then by where a document came from."""

    ids: list[str]
    languages: list[str]
    characters: np.ndarray
    """[documents] int64."""
    scores: Mapping[str, np.ndarray]
    """[documents] float32 each."""
    contamination: dict[int, list[Span]] = field(default_factory=dict)
    """Document -> spans shared with evaluation sets, of the documents that have any."""

    def first_rows(self) -> np.ndarray:
        """Row of the first of each text, [distinct ids], in the order of the ids."""
        return np.array([row for row, name in enumerate(self.ids) if not row or self.ids[row - 1] != name], np.int64)


@dataclass(frozen=True)
class Decision:
    """The fate of one document; `rule` is None where it is kept."""

    rule: str | None = None
    comparison: str | None = None
    twin: str | None = None
    jaccard: float | None = None


KEPT = Decision()


def decide(
    corpus: Corpus,
    pairs: np.ndarray,
    earlier: Mapping[str, Duplicate],
    config: RefineConfig,
    fallen: Mapping[int, Decision] | None = None,
) -> list[Decision]:
    """The decision about each row of `corpus`; those of `fallen` are made already.

    `pairs` is [n] of dtype PAIR over the distinct ids in order, of which those below `config.min_jaccard` are left
    alone; `earlier` says by id which documents have a twin among what earlier runs kept.
    """
    first = breaches(corpus.scores, corpus.languages, config).first
    decisions = [KEPT if breach is None else Decision(*breach) for breach in first]
    for row, decision in (fallen or {}).items():
        decisions[row] = decision
    for row, spans in spans_under("drop", corpus, config).items():
        if decisions[row] is KEPT:
            sets = sorted({span.set for span in spans})
            words = sum(span.last_word - span.first_word for span in spans)
            decisions[row] = Decision("contaminated", f"shares {words} words with {', '.join(sets)}")
    _drop_duplicates(corpus, pairs, earlier, config, decisions)
    return decisions


def _drop_duplicates(
    corpus: Corpus,
    pairs: np.ndarray,
    earlier: Mapping[str, Duplicate],
    config: RefineConfig,
    decisions: list[Decision],
) -> None:
    """Exact ones, those of earlier runs, near ones, among the documents that are still kept."""
    first_rows = corpus.first_rows()
    for row, name in enumerate(corpus.ids):
        if row and corpus.ids[row - 1] == name and decisions[row] is KEPT:
            decisions[row] = Decision("exact_duplicate", twin=name, jaccard=1.0)
    for row in first_rows:
        known = earlier.get(corpus.ids[row])
        if known is not None and decisions[row] is KEPT and known.jaccard >= config.min_jaccard:
            decisions[row] = Decision("earlier_duplicate", twin=known.duplicate_of, jaccard=known.jaccard)
    found = near_duplicates(
        [corpus.ids[row] for row in first_rows],
        corpus.characters[first_rows].tolist(),
        pairs,
        np.array([decisions[row] is KEPT for row in first_rows], dtype=bool),
        config.min_jaccard,
    )
    row_of = {corpus.ids[row]: int(row) for row in first_rows}
    for duplicate in found:
        decisions[row_of[duplicate.id]] = Decision(
            "near_duplicate", twin=duplicate.duplicate_of, jaccard=duplicate.jaccard
        )


def spans_under(policy: ContaminationPolicy, corpus: Corpus, config: RefineConfig) -> dict[int, list[Span]]:
    """Row -> what the policy acts upon of what the document shares with its evaluation sets, where there is any."""
    names = set_names([Path(each.path) for each in config.sets])
    policy_of = {Path(each.path): each.policy or config.contamination_policy for each in config.sets}
    wanted = {name for name, path in names.items() if policy_of[path] == policy}
    found = {
        row: acting([span for span in spans if span.set in wanted], config.contamination_sign)
        for row, spans in corpus.contamination.items()
    }
    return {row: spans for row, spans in found.items() if spans}


def parse_contamination(column: Sequence[str]) -> dict[int, list[Span]]:
    """The rows of a `contamination` column that hold any span."""
    return {row: [Span(**span) for span in json.loads(text)] for row, text in enumerate(column) if text != "[]"}
