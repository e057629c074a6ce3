"""Who resembles whom: looked for among all documents and among those that the rules keep, now or by other rules."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from sluice.data.config import RefineConfig
from sluice.data.deduplication.near import candidate_pairs, greedy_ranks, verified_pairs
from sluice.data.deduplication.ragged_arrays import write_column
from sluice.data.deduplication.shingles import shingles
from sluice.data.deduplication.sketch_store import SketchPart
from sluice.data.deduplication.words import word_hashes
from sluice.data.quality.rules import breaches
from sluice.data.refining.corpus import ScoredCorpus
from sluice.data.refining.tables import read_places

PAIR_FLOOR = 0.5
"""Pairs below this Jaccard similarity are not stored: no threshold may be lower."""


def similar_pairs(config: RefineConfig, corpus: ScoredCorpus, sketches: Sequence[SketchPart]) -> np.ndarray:
    """[n] PAIR over the distinct ids: who is how similar to whom, from PAIR_FLOOR on.

    Looked for among all documents and once more among those that these rules keep: in a large band a document is
    compared with some only, and none of these may be wasted on documents that are dropped. Most pairs are found both
    times, the same one first, and verified once.
    """
    every, passing = is_first(corpus), _passing(config, corpus)
    candidates = [_candidates(corpus, sketches, eligible) for eligible in (every, every & passing)]
    return _distinct(corpus, verified_pairs(sketches, np.unique(np.concatenate(candidates), axis=0), PAIR_FLOOR))


def pairs_again(  # noqa: PLR0917
    before: RefineConfig,
    after: RefineConfig,
    corpus: ScoredCorpus,
    sketches: Sequence[SketchPart],
    pairs: np.ndarray,
    scratch: Path,
) -> np.ndarray:
    """What `similar_pairs` finds under `after`, from what it found under `before`: `pairs`, of the same settings but
    for thresholds. `sketches` need no shingles; those of documents that were not compared are made from the texts,
    in a folder in `scratch` that is gone afterwards.
    """
    every, old, new = is_first(corpus), _passing(before, corpus), _passing(after, corpus)
    if np.array_equal(old, new):
        return pairs
    among_all, among_old, among_new = (
        _codes(_candidates(corpus, sketches, eligible)) for eligible in (every, every & old, every & new)
    )
    unknown = _places(np.setdiff1d(among_new, np.union1d(among_all, among_old)))
    with TemporaryDirectory(dir=scratch, prefix=".shingles-") as folder:
        made = _write_shingles(corpus, np.unique(unknown), after.minhash_ngram, Path(folder))
        found = _distinct(corpus, verified_pairs(made, unknown, PAIR_FLOOR))
    wanted = _places(np.union1d(among_all, among_new))
    asked = np.sort(corpus.distinct_index()[corpus.part_rows][wanted], axis=1)
    known = np.stack([pairs["first"], pairs["second"]], axis=1)
    return np.sort(np.concatenate([pairs[np.isin(_codes(known), _codes(asked))], found]))


def ids_along(corpus: ScoredCorpus) -> list[str]:
    """Ids as the parts hold the documents, one after another."""
    return [corpus.columns.ids[row] for row in corpus.part_rows]


def is_first(corpus: ScoredCorpus) -> np.ndarray:
    """Whether a document is the first of its id, [documents] bool, as the parts hold them."""
    first = np.zeros(len(corpus), dtype=bool)
    first[corpus.columns.first_rows()] = True
    return first[corpus.part_rows]


def _passing(config: RefineConfig, corpus: ScoredCorpus) -> np.ndarray:
    """Whether the rules keep a document, [documents] bool, as the parts hold them."""
    columns = corpus.columns
    passes = [breach is None for breach in breaches(columns.scores, columns.languages, config).first]
    return np.array(passes, dtype=bool)[corpus.part_rows]


def _candidates(corpus: ScoredCorpus, sketches: Sequence[SketchPart], eligible: np.ndarray) -> np.ndarray:
    """See `candidate_pairs`. Whatever else is eligible, of two documents the same one comes first."""
    lengths = corpus.columns.characters[corpus.part_rows].tolist()
    return candidate_pairs(sketches, greedy_ranks(ids_along(corpus), lengths, eligible))


def _distinct(corpus: ScoredCorpus, pairs: np.ndarray) -> np.ndarray:
    """Pairs [n] PAIR of documents, as the parts hold them, over the distinct ids, sorted."""
    distinct = corpus.distinct_index()[corpus.part_rows]
    first, second = distinct[pairs["first"]], distinct[pairs["second"]]
    pairs["first"], pairs["second"] = np.minimum(first, second), np.maximum(first, second)
    return np.sort(pairs)


def _codes(pairs: np.ndarray) -> np.ndarray:
    """[n] uint64 of pairs [n, 2]."""
    return (pairs[:, 0].astype(np.uint64) << np.uint64(32)) | pairs[:, 1].astype(np.uint64)


def _places(codes: np.ndarray) -> np.ndarray:
    """Pairs [n, 2] int64 of their codes [n]."""
    return np.stack([codes >> np.uint64(32), codes & np.uint64(0xFFFFFFFF)], axis=1).astype(np.int64)


def _write_shingles(corpus: ScoredCorpus, documents: np.ndarray, ngram: int, folder: Path) -> list[SketchPart]:
    """Sketches with the shingles of some documents, ascending along the parts; the other rows are empty."""
    places = dict(corpus.by_part(documents))
    made = []
    for number, (path, size) in enumerate(zip(corpus.parts, np.diff(corpus.part_starts).tolist(), strict=True)):
        chosen = places.get(number, np.empty(0, np.int64)).tolist()
        (folder / str(number)).mkdir()
        write_column(folder / str(number), "shingles", _shingles(path, chosen, size, ngram))
        made.append(SketchPart(folder / str(number)))
    return made


def _shingles(path: Path, chosen: Sequence[int], size: int, ngram: int) -> Iterator[np.ndarray]:
    rows, wanted = read_places(path, chosen, ["text"]), set(chosen)
    for place in range(size):
        yield shingles(word_hashes(next(rows)["text"]), ngram) if place in wanted else np.empty(0, np.uint64)
