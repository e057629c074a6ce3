"""MinHash signatures (Broder 1997) and their bands (FineWeb's 14 x 8, arXiv 2406.17557)."""

from functools import lru_cache

import numpy as np

from sluice.core.hashing import mix
from sluice.data.config import RefineConfig

_SEED = 20260101
_ROWS_AT_ONCE = 512
"""112 hashes of 512 shingles are 224 KiB: the products stay in the second-level cache."""


def signature(document_shingles: np.ndarray, config: RefineConfig) -> np.ndarray:
    """Return the MinHash signature, [buckets, hashes a bucket] uint32, of distinct shingles [n] uint64."""
    count = config.minhash_buckets * config.minhash_hashes_per_bucket
    # Multiplying by an odd number modulo 2**32 is a bijection of 32-bit values. Shingles are mixed already, so their
    # low halves are as good as random and each product orders them anew: the smallest is a fair draw from the set.
    values = document_shingles.astype(np.uint32)
    factors = _factors(count)
    products = np.empty((count, min(len(values), _ROWS_AT_ONCE)), dtype=np.uint32)
    smallest = np.full(count, np.uint32(0xFFFFFFFF))
    for start in range(0, len(values), _ROWS_AT_ONCE):
        block = values[start : start + _ROWS_AT_ONCE]
        multiples = np.multiply(factors, block, out=products[:, : len(block)])
        np.minimum(smallest, multiples.min(axis=1), out=smallest)
    return smallest.reshape(config.minhash_buckets, config.minhash_hashes_per_bucket)


def band_keys(signatures: np.ndarray) -> np.ndarray:
    """Hash each band to a key, [documents, buckets] uint64, of signatures [documents, buckets, hashes a bucket].

    Unequal bands have equal keys with a probability of 2**-64, and then the exact Jaccard similarity rejects the pair.
    """
    keys = np.zeros(signatures.shape[:2], dtype=np.uint64)
    for place in range(signatures.shape[2]):
        keys = mix(keys + signatures[:, :, place])
    return keys


@lru_cache(maxsize=8)
def _factors(count: int) -> np.ndarray:
    generator = np.random.default_rng(_SEED)
    factors = generator.integers(0, 2**31, size=(count, 1), dtype=np.uint32) * np.uint32(2) + np.uint32(1)
    factors.setflags(write=False)
    return factors
