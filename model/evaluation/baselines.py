"""Baselines that a language model has to beat in bits per byte: an n-gram model of bytes, and xz.

The n-gram model is interpolated modified Kneser-Ney (Chen and Goodman, 1999). A gram of up to six bytes is one
number with the newest byte lowest, so counting is sorting, the grams of one context are neighbours, and scoring is
binary search: all of it is numpy.
"""

import lzma
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Codes = NDArray[np.uint64]

_BYTE = np.uint64(8)
_START = b"\x00"  # comes before a document; clean text has no NUL
MAX_ORDER = 7  # context bytes: with the byte itself they fill a 64-bit number


def _low_bytes(count: int) -> np.uint64:
    return np.uint64((1 << 8 * count) - 1)


def _grams(texts: Sequence[bytes], order: int) -> Codes:
    """Encode every byte with the `order` bytes before it as one number: [bytes of all texts]."""
    padded = np.frombuffer(b"".join(_START * order + text for text in texts), dtype=np.uint8)
    lengths = np.array([len(text) for text in texts], dtype=np.int64)
    codes = np.zeros(len(padded), dtype=np.uint64)
    for back in range(order + 1):
        codes[back:] |= padded[: len(padded) - back].astype(np.uint64) << np.uint64(8 * back)
    is_text = np.repeat(
        np.tile([False, True], len(lengths)), np.stack([np.full_like(lengths, order), lengths], 1).ravel()
    )
    return codes[is_text]


@dataclass(frozen=True)
class _Level:
    """Grams of one length with their discounted probabilities, sorted by code."""

    grams: Codes
    probability: NDArray[np.float64]
    contexts: Codes
    backoff: NDArray[np.float64]
    """Probability mass that a context leaves to the next shorter one."""

    def interpolate(self, codes: Codes, shorter: NDArray[np.float64], length: int) -> NDArray[np.float64]:
        """Compute probabilities at this length from those at the next shorter: [bytes]."""
        wanted = codes & _low_bytes(length)
        context_at, context_known = _find(self.contexts, wanted >> _BYTE)
        gram_at, gram_known = _find(self.grams, wanted)
        seen = np.where(gram_known, self.probability[gram_at], 0.0)
        return np.where(context_known, seen + self.backoff[context_at] * shorter, shorter)


def _find(table: Codes, wanted: Codes) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    at = np.minimum(np.searchsorted(table, wanted), len(table) - 1)
    return at, table[at] == wanted


def _level(grams: Codes, counts: NDArray[np.int64]) -> _Level:
    # Discounts of grams counted once, twice, three times or more (Chen and Goodman, equation 26).
    n1, n2, n3, n4 = (int((counts == times).sum()) for times in (1, 2, 3, 4))
    if min(n1, n2, n3, n4) == 0:
        discounts = np.array([0.5, 1.0, 1.5])  # too little text to estimate them; KenLM's fallback
    else:
        y = n1 / (n1 + 2 * n2)
        estimate = np.array([1 - 2 * y * n2 / n1, 2 - 3 * y * n3 / n2, 3 - 4 * y * n4 / n3])
        discounts = np.clip(estimate, 0.01, [1.0, 2.0, 3.0])  # never zero: an unseen byte keeps a probability
    discount = discounts[np.minimum(counts, 3) - 1]
    contexts, first = np.unique(grams >> _BYTE, return_index=True)
    total = np.add.reduceat(counts, first)
    of_gram = np.repeat(total, np.diff(np.append(first, len(grams))))
    return _Level(grams, (counts - discount) / of_gram, contexts, np.add.reduceat(discount, first) / total)


@dataclass(frozen=True)
class NgramModel:
    """Byte n-gram model with interpolated back-off; `order` is the number of bytes it conditions on."""

    order: int
    levels: Sequence[_Level]
    """By gram length, shortest first."""

    @classmethod
    def train(cls, texts: Sequence[str], order: int = 5) -> "NgramModel":
        """Count `texts`, each a document, in about 40 bytes of memory per byte. ValueError without text."""
        if not 0 <= order <= MAX_ORDER:
            raise ValueError(f"order {order} must lie between 0 and {MAX_ORDER}")
        if not any(texts):
            raise ValueError("no text to count: the n-gram baseline needs a train split")
        grams, counts = np.unique(_grams([text.encode() for text in texts], order), return_counts=True)
        levels = [_level(grams, counts)]
        for length in range(order, 0, -1):
            # Kneser-Ney: a shorter gram counts the bytes it was seen after, not how often.
            grams, counts = np.unique(grams & _low_bytes(length), return_counts=True)
            levels.append(_level(grams, counts))
        return cls(order, levels[::-1])

    def probabilities(self, text: bytes) -> NDArray[np.float64]:
        """Return the probability of each byte of `text` given those before it: [bytes]."""
        codes = _grams([text], self.order)
        found = np.full(len(codes), 1 / 256)
        for length, level in enumerate(self.levels, start=1):
            found = level.interpolate(codes, found, length)
        return found

    def bits(self, text: str) -> float:
        """Return the bits this model needs for `text` as a document of its own."""
        return float(-np.log2(self.probabilities(text.encode())).sum())

    def bits_per_byte(self, texts: Sequence[str]) -> float:
        """Return bits over UTF-8 bytes of all `texts` together."""
        return sum(map(self.bits, texts)) / sum(len(text.encode()) for text in texts)


def xz_bits_per_byte(texts: Sequence[str], primed_by: Sequence[str] = ()) -> float:
    """Bits per byte of `xz -9` over the texts in one stream.

    primed_by: texts that are compressed before them and not counted; xz -9 looks back 64 MiB.
    """
    measured, before = ("".join(part).encode() for part in (texts, primed_by))
    if not measured:
        raise ValueError("no text to compress: the xz baseline needs held-out documents")
    size = len(lzma.compress(before + measured, preset=9))
    if before:
        size -= len(lzma.compress(before, preset=9))
    return 8 * size / len(measured)
