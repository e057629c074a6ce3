"""Near duplicates by MinHash with banding (Broder 1997; FineWeb's 14 x 8, arXiv 2406.17557), verified by Jaccard.

Everything is keyed by content id: which documents go does not depend on their order, their shards or the workers.
"""

import hashlib
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations

import numpy as np

from data.config import RefineConfig

_WORD = re.compile(r"\w+")
_SEED = 20260101
_PRIME = np.uint64(0x9E3779B97F4A7C15)
_ROWS_AT_ONCE = 4096


@lru_cache(maxsize=1 << 17)
def _hash_word(word: str) -> int:
    return int.from_bytes(hashlib.blake2b(word.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")


def shingles(text: str, ngram: int) -> np.ndarray:
    """Sorted distinct 64-bit hashes of the word n-grams, [n] uint64; a text shorter than one n-gram is one shingle."""
    words = _WORD.findall(text.lower())
    hashes = np.fromiter(map(_hash_word, words), dtype=np.uint64, count=len(words))
    length = max(min(ngram, len(words)), 1)
    mixed = np.zeros(max(len(words) - length + 1, 0), dtype=np.uint64)
    for offset in range(length):
        # Polynomial in the position, so that the order of the words counts; arithmetic is modulo 2**64.
        mixed = mixed * _PRIME + hashes[offset : offset + len(mixed)]
    return np.unique(_mix(mixed))


def _mix(values: np.ndarray) -> np.ndarray:
    """The finalizer of splitmix64: neighbouring inputs end up far apart."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def signature(document_shingles: np.ndarray, config: RefineConfig) -> np.ndarray:
    """MinHash signature, [buckets, hashes a bucket] uint32, of distinct shingles [n]; n may be 0."""
    count = config.minhash_buckets * config.minhash_hashes_per_bucket
    generator = np.random.default_rng(_SEED)
    factors = generator.integers(0, 2**63, size=count, dtype=np.uint64) * np.uint64(2) + np.uint64(1)
    smallest = np.full(count, np.uint32(0xFFFFFFFF))
    for start in range(0, len(document_shingles), _ROWS_AT_ONCE):
        rows = document_shingles[start : start + _ROWS_AT_ONCE, None]
        # Multiply-shift: the high half of an odd multiple of a well mixed value is a universal hash of it.
        smallest = np.minimum(smallest, ((rows * factors) >> np.uint64(32)).astype(np.uint32).min(axis=0))
    return smallest.reshape(config.minhash_buckets, config.minhash_hashes_per_bucket)


def jaccard(first: np.ndarray, second: np.ndarray) -> float:
    """Jaccard similarity of two sorted arrays of distinct shingles; two empty ones are equal."""
    if not len(first) or not len(second):
        return float(len(first) == len(second))
    shared = len(np.intersect1d(first, second, assume_unique=True))
    return shared / (len(first) + len(second) - shared)


def candidate_pairs(signatures: np.ndarray) -> set[tuple[int, int]]:
    """Index pairs (i < j) that agree in at least one bucket; signatures are [documents, buckets, hashes]."""
    pairs: set[tuple[int, int]] = set()
    for bucket in range(signatures.shape[1] if len(signatures) else 0):
        rows = np.ascontiguousarray(signatures[:, bucket])
        keys = rows.view(np.dtype((np.void, rows.dtype.itemsize * rows.shape[1]))).ravel()
        _, group_of = np.unique(keys, return_inverse=True)
        order = np.argsort(group_of, kind="stable")
        for group in np.split(order, np.flatnonzero(np.diff(group_of[order])) + 1):
            if len(group) > 1:
                pairs.update(combinations(sorted(group.tolist()), 2))
    return pairs


@dataclass(frozen=True)
class Duplicate:
    """A document to remove, the kept document that stands for it, and how similar they are."""

    id: str
    duplicate_of: str
    jaccard: float


def near_duplicates(
    ids: Sequence[str],
    lengths: Sequence[int],
    signatures: np.ndarray,
    shingles_of: Sequence[np.ndarray],
    min_jaccard: float,
) -> list[Duplicate]:
    """The documents to remove, by id. Ids are distinct, lengths in characters, signatures [documents, buckets, hashes].

    Documents are judged from the longest to the shortest (equal lengths by id), and one goes if a document already
    kept is at least `min_jaccard` similar. So every removed document has a kept twin: chains of merely neighbouring
    documents, which merged clusters would drop whole, do not arise. The order is the content's own, and so is the
    outcome.
    """
    assert len(set(ids)) == len(ids), "near_duplicates needs distinct ids: remove exact duplicates first"
    rank = {index: place for place, index in enumerate(sorted(range(len(ids)), key=lambda i: (-lengths[i], ids[i])))}
    earlier: dict[int, list[int]] = {}
    for first, second in candidate_pairs(signatures):
        before, after = sorted((first, second), key=rank.__getitem__)
        earlier.setdefault(after, []).append(before)
    removed: dict[int, Duplicate] = {}
    for index in sorted(earlier, key=rank.__getitem__):
        kept = (other for other in earlier[index] if other not in removed)
        twins = [(jaccard(shingles_of[index], shingles_of[other]), other) for other in kept]
        similarity, twin = max(twins, key=lambda pair: (pair[0], -rank[pair[1]]), default=(0.0, -1))
        if twin >= 0 and similarity >= min_jaccard:
            removed[index] = Duplicate(ids[index], ids[twin], round(similarity, 4))
    return sorted(removed.values(), key=lambda duplicate: duplicate.id)


def exact_duplicates(keys: Iterable[tuple[str, tuple[str, ...]]]) -> Iterator[int]:
    """Positions of documents whose content id occurred under a smaller provenance; keys are (id, provenance)."""
    seen: set[str] = set()
    for position, (identity, _) in sorted(enumerate(keys), key=lambda entry: entry[1]):
        if identity in seen:
            yield position
        seen.add(identity)
