"""Find runs of words that occurred before among some documents, by suffix array and common prefixes."""

from dataclasses import dataclass

import numpy as np

from sluice.data.deduplication.paragraphs import runs

Runs = list[tuple[int, int]]
"""Sorted runs of words of one document: (first, end)."""
Block = list[tuple[int, np.ndarray, np.ndarray]]
"""(row, indices of words in the document, their hashes; [n] uint64 both) of documents in the order of ids."""


@dataclass
class _Islands:
    """The windows of some documents, one after the other; all [words]. An island is a run of neighbouring words."""

    hashes: np.ndarray
    document: np.ndarray
    """Index of each word's document in the block."""
    word: np.ndarray
    """Index of each word in its document."""
    ends: np.ndarray
    """Index, among these words, of the end of each word's island."""


def _islands(block: Block) -> _Islands:
    hashes, document, word, ends = [], [], [], []
    total = 0
    for index, (_, places_of_words, of_places) in enumerate(block):
        places = places_of_words.astype(np.int64)
        # An island ends where the next covered word is not the next word.
        last = np.concatenate([places[1:] != places[:-1] + 1, [True]])
        island_ends = np.flatnonzero(last) + 1
        hashes.append(of_places)
        document.append(np.full(len(places), index))
        word.append(places)
        ends.append(total + np.repeat(island_ends, np.diff(island_ends, prepend=0)))
        total += len(places)
    return _Islands(*(np.concatenate(each) for each in (hashes, document, word, ends)))


def repeated_words(block: Block, min_words: int) -> dict[int, Runs]:
    """Return row -> runs of words (first, end) to cut from its document."""
    islands = _islands(block)
    count = len(islands.hashes)
    starts, kept = _repeats(islands, min_words)
    # The first occurrence stays whole, also where a run repeats itself with an overlap ("ha ha ha ..").
    begins = np.maximum(starts, kept + min_words)
    opened, closed = (np.bincount(each, minlength=count + 1) for each in (begins, starts + min_words))
    places = np.flatnonzero(np.cumsum(opened - closed) > 0)
    found: dict[int, Runs] = {}
    for index, cut_words in runs(islands.document[places], islands.word[places]):
        edges = np.flatnonzero(np.diff(cut_words) > 1) + 1
        found[block[index][0]] = [(int(run[0]), int(run[-1]) + 1) for run in np.split(cut_words, edges)]
    return found


def _repeats(islands: _Islands, min_words: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the starts of runs of `min_words` words that occurred before, and of their first occurrence, [n] int64."""
    from pydivsufsort import divsufsort, kasai

    _, codes = np.unique(islands.hashes, return_inverse=True)
    codes = codes.astype(np.uint32)
    suffixes = divsufsort(codes)
    common = kasai(codes, suffixes)
    # Suffixes with the same first words are neighbours; those whose island ends too soon are no runs.
    opens = np.concatenate([[True], common[: len(suffixes) - 1] < min_words])
    group = np.cumsum(opens)
    suffixes = suffixes.astype(np.int64)
    whole = islands.ends[suffixes] - suffixes >= min_words
    starts, group = suffixes[whole], group[whole]
    # The block is in the order of ids and places, so the smallest start of a group is its first occurrence.
    order = np.lexsort((starts, group))
    starts, group = starts[order], group[order]
    first = starts[np.searchsorted(group, group)]
    return starts[starts > first], first[starts > first]
