"""Find the repeated word n-grams of one document, exactly, in one pass over n (Gopher, arXiv 2112.11446, table A1).

An n-gram can only occur twice where both (n-1)-grams in it do. So each length examines only the positions that the
length before left, and text without repetition costs no more than its 2-grams.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Integers = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Repeated:
    """The n-grams of one length that occur more than once."""

    length: int
    places: Integers
    """Index of the first word of each occurrence, ascending, [occurrences]."""
    numbers: Integers
    """Number of each occurrence's n-gram, [occurrences]; equal n-grams have equal numbers."""


def repeated(word_numbers: Integers, longest: int) -> Iterator[Repeated]:
    """Yield the repeated n-grams of every length from 2 to `longest`; word numbers [words] are below `words`."""
    places, numbers = np.arange(len(word_numbers)), word_numbers
    for length in range(2, longest + 1):
        # Two neighbouring (n-1)-grams are one n-gram and identify it.
        follows = np.flatnonzero(places[1:] == places[:-1] + 1)
        names = numbers[follows] * len(word_numbers) + numbers[follows + 1]
        places, numbers = _occurring_twice(places[follows], names)
        yield Repeated(length, places, numbers)


def _occurring_twice(places: Integers, names: Integers) -> tuple[Integers, Integers]:
    """Return the places whose name occurs more than once, and small numbers for the names."""
    if not len(names):
        return places, names
    # Like np.unique in half its time: documents are short, and its generality costs more than the sort.
    order = np.argsort(names)
    ordered = names[order]
    is_new = np.ones(len(names) + 1, np.bool_)
    np.not_equal(ordered[1:], ordered[:-1], out=is_new[1:-1])
    numbers = np.empty(len(names), np.int64)
    numbers[order] = np.cumsum(is_new[:-1]) - 1
    is_twice = np.empty(len(names), np.bool_)
    is_twice[order] = ~(is_new[:-1] & is_new[1:])
    kept = np.flatnonzero(is_twice)
    return places[kept], numbers[kept]


def top_characters(found: Repeated, word_ends: Integers) -> int:
    """Count the characters in all occurrences of the most frequent n-gram (the first of several); 0 without any.

    Overlapping occurrences count each.
    """
    if not len(found.places):
        return 0
    counts = np.bincount(found.numbers)[found.numbers]
    most = int(np.argmax(counts))
    first = int(found.places[most])
    return int(counts[most]) * int(word_ends[first + found.length] - word_ends[first])


def duplicate_characters(found: Repeated, word_ends: Integers) -> int:
    """Count the characters in n-grams that occurred before, none twice: the search continues after a repeated n-gram,
    and those that overlap it are neither counted nor remembered.
    """
    seen: set[int] = set()
    characters = resume = 0
    for place, number in zip(found.places.tolist(), found.numbers.tolist(), strict=True):
        if place < resume:
            continue
        if number in seen:
            resume = place + found.length
            characters += int(word_ends[resume] - word_ends[place])
        else:
            seen.add(number)
    return characters
