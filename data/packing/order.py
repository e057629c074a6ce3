"""Orders that depend on content and seed alone: hashes of document ids, and a permutation that needs no memory.

Both are plain 64-bit arithmetic, because numpy guarantees no stable stream of its generators across versions.
"""

import hashlib
from typing import Literal

import numpy as np

from sluice.core.hashing import mix

_MASK = 2**64 - 1
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_ROUNDS = 6
# Each use hashes with a name of its own: if shuffling had the order of sampling, the documents sampled for a partial
# epoch would all come first.
Purpose = Literal["sample", "shuffle", "rows", "phase"]


def identity_hash(identity: str) -> int:
    """Hash a document id to 64 bits."""
    return int.from_bytes(hashlib.blake2b(identity.encode(), digest_size=8).digest(), "little")


def keyed(hashes: np.ndarray, purpose: Purpose, seed: int, epoch: int | np.ndarray = 0) -> np.ndarray:
    """Hash `hashes` [n] uint64 with purpose, seed and epoch (one, or [n]): independent values [n] uint64 for each."""
    words = (identity_hash(purpose), seed & _MASK, epoch)
    for word in words:
        hashes = mix(hashes ^ mix(np.atleast_1d(np.asarray(word, dtype=np.uint64)) + _GOLDEN))
    return hashes


def permuted(positions: np.ndarray, size: int, seed: int, epoch: int) -> np.ndarray:
    """Permute positions [n] int64 below `size` by the permutation of (seed, epoch): [n] int64.

    A Feistel network over the next even number of bits is a bijection whatever its round function; a value beyond
    `size` is permuted again until it is below (cycle walking: Black and Rogaway 2002), which keeps it a bijection.
    """
    assert size >= 1 and (not len(positions) or (positions.min() >= 0 and positions.max() < size))
    half = np.uint64(max(3, ((size - 1).bit_length() + 1) // 2))
    low = (np.uint64(1) << half) - np.uint64(1)
    keys = keyed(np.arange(_ROUNDS, dtype=np.uint64), "rows", seed, epoch)
    values = positions.astype(np.uint64)
    outside = np.ones(len(values), dtype=bool)
    while outside.any():
        left, right = values[outside] >> half, values[outside] & low
        for key in keys:
            left, right = right, left ^ (mix(right ^ key) & low)
        values[outside] = (left << half) | right
        outside = values >= size
    return values.astype(np.int64)
