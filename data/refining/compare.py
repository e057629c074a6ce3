"""Compare: find which documents resemble each other, and which resemble what an earlier run kept."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from sluice.data.config import RefineConfig
from sluice.data.deduplication.index import DuplicateIndex
from sluice.data.deduplication.near import Duplicate, candidate_pairs, greedy_ranks, verified_pairs
from sluice.data.deduplication.ragged_arrays import write_column
from sluice.data.deduplication.shingles import shingles
from sluice.data.deduplication.sketch_store import SketchPart
from sluice.data.deduplication.words import word_hashes
from sluice.data.quality.rules import breaches
from sluice.data.refining.corpus import Corpus
from sluice.data.refining.tables import read_rows

STORED_JACCARD = 0.5
"""Pairs below this Jaccard similarity are not stored: no threshold may be lower."""


def similar_pairs(config: RefineConfig, corpus: Corpus, sketches: Sequence[SketchPart]) -> np.ndarray:
    """Return the pairs of distinct ids with a Jaccard similarity of at least STORED_JACCARD, [n] of dtype PAIR.

    They are searched among all documents and again among those that the rules keep: in a large band a document is
    compared with some others only, and none of these comparisons may be wasted on documents that are dropped. Most
    pairs are found both times and verified once.
    """
    every, passing = corpus.is_first(), _passing(config, corpus)
    candidates = [_candidates(corpus, sketches, eligible) for eligible in (every, every & passing)]
    return _distinct(corpus, verified_pairs(sketches, np.unique(np.concatenate(candidates), axis=0), STORED_JACCARD))


def similar_pairs_again(  # noqa: PLR0917
    before: RefineConfig,
    after: RefineConfig,
    corpus: Corpus,
    sketches: Sequence[SketchPart],
    pairs: np.ndarray,
    scratch: Path,
) -> np.ndarray:
    """Return what `similar_pairs` finds under `after`, given `pairs`, what it found under `before`.

    The two configurations differ in thresholds alone. `sketches` need no shingles: those of documents that were not
    compared before are computed from the texts, in a temporary folder inside `scratch`.
    """
    every, old, new = corpus.is_first(), _passing(before, corpus), _passing(after, corpus)
    if np.array_equal(old, new):
        return pairs
    among_all, among_old, among_new = (
        _codes(_candidates(corpus, sketches, eligible)) for eligible in (every, every & old, every & new)
    )
    unknown = _decode(np.setdiff1d(among_new, np.union1d(among_all, among_old)))
    with TemporaryDirectory(dir=scratch, prefix=".shingles-") as folder:
        made = _write_shingles(corpus, np.unique(unknown), after.minhash_ngram, Path(folder))
        found = _distinct(corpus, verified_pairs(made, unknown, STORED_JACCARD))
    wanted = _decode(np.union1d(among_all, among_new))
    wanted_ids = np.sort(corpus.distinct_index()[corpus.part_rows][wanted], axis=1)
    known = np.stack([pairs["first"], pairs["second"]], axis=1)
    return np.sort(np.concatenate([pairs[np.isin(_codes(known), _codes(wanted_ids))], found]))


def earlier_duplicates(
    corpus: Corpus, sketches: Sequence[SketchPart], index: DuplicateIndex | None, run_id: str
) -> dict[str, Duplicate]:
    """Return id -> its twin among what earlier runs kept. `run_id` is this run's own name in the index."""
    if index is None:
        return {}
    found = index.duplicates(sketches, corpus.slot_ids(), corpus.is_first(), STORED_JACCARD, run_id)
    return {duplicate.id: duplicate for duplicate in found}


def _passing(config: RefineConfig, corpus: Corpus) -> np.ndarray:
    """Return whether the rules keep the document of each slot, [slots] bool."""
    passes = [breach is None for breach in breaches(corpus.scores, corpus.languages, config).first]
    return np.array(passes, dtype=bool)[corpus.part_rows]


def _candidates(corpus: Corpus, sketches: Sequence[SketchPart], eligible: np.ndarray) -> np.ndarray:
    """See `candidate_pairs`. Of two documents the same one comes first, whatever else is eligible."""
    lengths = corpus.characters[corpus.part_rows].tolist()
    return candidate_pairs(sketches, greedy_ranks(corpus.slot_ids(), lengths, eligible))


def _distinct(corpus: Corpus, pairs: np.ndarray) -> np.ndarray:
    """Turn pairs of slots, [n] of dtype PAIR, into sorted pairs of distinct ids."""
    distinct = corpus.distinct_index()[corpus.part_rows]
    first, second = distinct[pairs["first"]], distinct[pairs["second"]]
    pairs["first"], pairs["second"] = np.minimum(first, second), np.maximum(first, second)
    return np.sort(pairs)


def _codes(pairs: np.ndarray) -> np.ndarray:
    """Encode pairs [n, 2] as [n] uint64."""
    return (pairs[:, 0].astype(np.uint64) << np.uint64(32)) | pairs[:, 1].astype(np.uint64)


def _decode(codes: np.ndarray) -> np.ndarray:
    """Decode the codes [n] of `_codes` into pairs [n, 2] int64."""
    return np.stack([codes >> np.uint64(32), codes & np.uint64(0xFFFFFFFF)], axis=1).astype(np.int64)


def _write_shingles(corpus: Corpus, slots: np.ndarray, ngram: int, folder: Path) -> list[SketchPart]:
    """Write the shingles of some documents (ascending slots) as sketches; the other rows are empty."""

    def rows(path: Path, chosen: Sequence[int], size: int) -> Iterator[np.ndarray]:
        texts, wanted = read_rows(path, chosen, ["text"]), set(chosen)
        for row in range(size):
            yield shingles(word_hashes(next(texts)["text"]), ngram) if row in wanted else np.empty(0, np.uint64)

    rows_of_part = dict(corpus.by_part(slots))
    made = []
    for number, (path, size) in enumerate(zip(corpus.parts, np.diff(corpus.part_starts).tolist(), strict=True)):
        chosen = rows_of_part.get(number, np.empty(0, np.int64)).tolist()
        (folder / str(number)).mkdir()
        write_column(folder / str(number), "shingles", rows(path, chosen, size))
        made.append(SketchPart(folder / str(number)))
    return made
