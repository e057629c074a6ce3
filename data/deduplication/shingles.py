"""Shingles: the set of a text's word n-grams (Broder 1997), and the Jaccard similarity of two such sets."""

import numpy as np

from sluice.core.hashing import mix

_PRIME = np.uint64(0x9E3779B97F4A7C15)


def shingles(hashes: np.ndarray, ngram: int) -> np.ndarray:
    """Return the sorted distinct hashes of the n-grams of a text of word hashes [words], [n] uint64.

    A text shorter than one n-gram is one shingle.
    """
    return distinct(ngrams(hashes, max(min(ngram, len(hashes)), 1)))


def ngrams(hashes: np.ndarray, length: int) -> np.ndarray:
    """Hash the runs of `length` words in order, [max(words - length + 1, 0)] uint64, of word hashes [words]."""
    count = max(len(hashes) - length + 1, 0)
    mixed = hashes[:count].copy()
    for offset in range(1, length):
        # Polynomial in the position, so that the order of the words counts; arithmetic is modulo 2**64.
        mixed *= _PRIME
        mixed += hashes[offset : offset + count]
    return mix(mixed)


def distinct(values: np.ndarray) -> np.ndarray:
    """Return the sorted distinct values, in half the time of numpy's unique."""
    ordered = np.sort(values)
    return ordered[np.concatenate([[True], ordered[1:] != ordered[:-1]])] if len(ordered) else ordered


def jaccard(first: np.ndarray, second: np.ndarray) -> float:
    """Return the Jaccard similarity of two sorted arrays of distinct shingles; two empty ones are equal."""
    if not len(first) or not len(second):
        return float(len(first) == len(second))
    small, large = sorted((first, second), key=len)
    places = np.searchsorted(large, small)
    shared = int(np.count_nonzero(large[np.minimum(places, len(large) - 1)] == small))
    return shared / (len(first) + len(second) - shared)
