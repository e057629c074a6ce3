"""Near duplicates: candidates by MinHash bands, verified by exact Jaccard similarity, removed by one greedy rule.

Everything is keyed by content id: the outcome does not depend on the order of documents, parts or workers.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from sluice.data.deduplication.ragged_arrays import RowReader
from sluice.data.deduplication.shingles import jaccard
from sluice.data.deduplication.sketch_store import SketchPart, band, buckets, folders

PAIR = np.dtype([("first", "<i8"), ("second", "<i8"), ("jaccard", "<f8")])
_FIRST, _BEFORE = 32, 16


@dataclass(frozen=True)
class Duplicate:
    """A document to remove, the document kept in its place, and their similarity."""

    id: str
    duplicate_of: str
    jaccard: float


def greedy_ranks(ids: Sequence[str], lengths: Sequence[int], eligible: np.ndarray) -> np.ndarray:
    """Rank the documents from the longest to the shortest, equal lengths by id: [documents] int64, -1 if not eligible.

    Eligible documents have distinct ids. The order depends on the content alone.
    """
    chosen = np.flatnonzero(eligible)
    names, sizes = np.asarray(ids)[chosen], np.asarray(lengths, dtype=np.int64)[chosen]
    assert len(np.unique(names)) == len(names), "near duplicates need distinct ids: remove exact duplicates first"
    ranks = np.full(len(ids), -1, dtype=np.int64)
    ranks[chosen[np.lexsort((names, -sizes))]] = np.arange(len(chosen))
    return ranks


def candidate_pairs(parts: Sequence[SketchPart], ranks: np.ndarray) -> np.ndarray:
    """Return `pairs_of_bands` of sketches, with one band in memory at a time: 16 bytes a document."""
    return pairs_of_bands((band(parts, bucket) for bucket in range(buckets(parts))), ranks)


def pairs_of_bands(bands: Iterable[np.ndarray], ranks: np.ndarray) -> np.ndarray:
    """Pair documents that agree in a band ([documents] uint64 each): [pairs, 2] int64, the smaller rank first.

    Documents of a negative rank are skipped. A band that n documents share has n(n - 1)/2 pairs, too many for a page
    template in ten thousand documents. So each document is paired with the first 32 of its band and with the 16 just
    before it: all pairs up to 34 documents, and a number linear in n beyond. The greedy rule loses nothing by this:
    copies of one template are each paired with the first of them, which is judged first and so is kept or a copy of a
    kept one; and where a large band mixes several templates, each of these has most of the other bands to itself.
    """
    documents = np.flatnonzero(ranks >= 0)
    by_rank = documents[np.argsort(ranks[documents])]
    found = np.empty(0, np.uint64)
    for each in bands:
        keys = each[by_rank]
        # Stable: within a key the indices stay in the order of ranks.
        order = np.argsort(keys, kind="stable")
        found = np.union1d(found, _pairs_of_groups(keys[order], order))
    places = np.stack([found >> np.uint64(32), found & np.uint64(0xFFFFFFFF)], axis=1).astype(np.int64)
    return by_rank[places]


def _pairs_of_groups(keys: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Pair the `places` of equal sorted keys as place << 32 | place, [pairs] uint64; places of a key ascend."""
    index = np.arange(len(keys))
    begins = np.concatenate([[True], keys[1:] != keys[:-1]])[: len(keys)]
    start = np.maximum.accumulate(np.where(begins, index, 0))
    inside = index - start
    pairs = []
    for number in range(min(_FIRST, int(inside.max(initial=0)))):
        later = np.flatnonzero(inside > number)
        pairs.append((start[later] + number, later))
    for back in range(1, _BEFORE + 1):
        later = np.flatnonzero(inside - back >= _FIRST)
        pairs.append((later - back, later))
    codes = [
        (places[first].astype(np.uint64) << np.uint64(32)) | places[second].astype(np.uint64) for first, second in pairs
    ]
    return np.concatenate([np.empty(0, np.uint64), *codes])


def verified_pairs(parts: Sequence[SketchPart], pairs: np.ndarray, min_jaccard: float) -> np.ndarray:
    """Return the candidate pairs [pairs, 2] of a Jaccard similarity of at least `min_jaccard`, [pairs] of dtype PAIR.

    Only the candidates' shingles are read, those of two documents at a time.
    """
    with RowReader(folders(parts), "shingles") as shingles:
        # The similarity is at most the ratio of the sizes; two empty sets are equal.
        sizes = np.sort(shingles.sizes[pairs], axis=1)
        pairs = pairs[sizes[:, 0] >= min_jaccard * sizes[:, 1]]
        similarity = np.empty(len(pairs))
        held, of_held = -1, np.empty(0, np.uint64)
        for number, (first, second) in enumerate(pairs.tolist()):
            if first != held:
                held, of_held = first, shingles[first]
            similarity[number] = jaccard(of_held, shingles[second])
    found = np.empty(len(pairs), dtype=PAIR)
    found["first"], found["second"], found["jaccard"] = pairs[:, 0], pairs[:, 1], similarity
    return found[similarity >= min_jaccard]


def near_duplicates(
    ids: Sequence[str], lengths: Sequence[int], pairs: np.ndarray, eligible: np.ndarray, min_jaccard: float
) -> list[Duplicate]:
    """Return the documents to remove, by id; lengths in characters, `pairs` of dtype PAIR, `eligible` [documents] bool.

    Documents are judged from the longest to the shortest (equal lengths by id), and one is removed if a document
    already kept is at least `min_jaccard` similar. So every removed document has a kept twin: chains of merely
    neighbouring documents, which merging clusters would drop as a whole, do not arise.
    """
    ranks = greedy_ranks(ids, lengths, eligible)
    earlier: dict[int, list[tuple[float, int]]] = {}
    for first, second, similarity in pairs[pairs["jaccard"] >= min_jaccard].tolist():
        if ranks[first] >= 0 and ranks[second] >= 0:
            before, after = (first, second) if ranks[first] < ranks[second] else (second, first)
            earlier.setdefault(after, []).append((similarity, before))
    removed: dict[int, Duplicate] = {}
    for document in sorted(earlier, key=ranks.__getitem__):
        twins = [twin for twin in earlier[document] if twin[1] not in removed]
        if twins:
            similarity, twin = max(twins, key=lambda pair: (pair[0], -ranks[pair[1]]))
            removed[document] = Duplicate(ids[document], ids[twin], round(similarity, 4))
    return sorted(removed.values(), key=lambda duplicate: duplicate.id)
