"""Words for deduplication and decontamination: those of the lower-cased text, each by a 64-bit hash.

A word is `\\w+` with its combining marks; each letter of a script without spaces is a word
(sluice.data.writing_systems).
"""

import hashlib
import unicodedata

import numpy as np

from sluice.data.writing_systems import word_pattern

_REMEMBERED = 1 << 18
_GROWS = "İ"  # The one character whose lower case is longer than itself: two characters.


def words(text: str) -> list[str]:
    """Return the words in the order of the text, in lower case."""
    lowered = text.lower()
    return word_pattern(lowered).findall(lowered)


def hash_of(text: str) -> int:
    """Return a 64-bit hash of the text in Unicode NFC, equal in every process."""
    return int.from_bytes(
        hashlib.blake2b(unicodedata.normalize("NFC", text).encode("utf-8", "surrogatepass"), digest_size=8).digest(),
        "little",
    )


class _Hashes(dict[str, int]):
    """Word -> hash, computed on first use."""

    def __missing__(self, word: str) -> int:
        value = self[word] = hash_of(word)
        return value


_hashes = _Hashes()


def word_hashes(text: str) -> np.ndarray:
    """Hash the words in the order of the text, [words] uint64; equal words have equal hashes in every process."""
    found = words(text)
    hashes = np.fromiter(map(_hashes.__getitem__, found), dtype=np.uint64, count=len(found))
    if len(_hashes) > _REMEMBERED:
        _hashes.clear()
    return hashes


def word_spans(text: str) -> list[tuple[int, int]]:
    """Return start and end in characters of the words of `word_hashes`, in the same order."""
    lowered = text.lower()
    spans = [match.span() for match in word_pattern(lowered).finditer(lowered)]
    if len(lowered) == len(text):
        return spans
    origin = [place for place, character in enumerate(text) for _ in range(2 if character == _GROWS else 1)]
    return [(origin[start], origin[end - 1] + 1) for start, end in spans]
