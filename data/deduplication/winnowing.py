"""Winnowing (Schleimer et al. 2003): select few hashes of a text, among them one of every long enough run of words."""

import numpy as np

from sluice.data.deduplication.shingles import ngrams


def gram_and_window(min_words: int) -> tuple[int, int]:
    """Return words of a gram and grams of a window, which together span `min_words` words."""
    gram = min_words // 2
    return gram, min_words - gram + 1


def anchors(hashes: np.ndarray, min_words: int) -> np.ndarray:
    """Return the sorted anchors of a text of word hashes [words], [n] uint64: the least gram of every window of grams.

    A run of `min_words` words fills a window, so two texts that share a run share that window's least gram. An anchor
    that occurs several times in the text is returned twice: the text may repeat itself.
    """
    gram, window = gram_and_window(min_words)
    grams = ngrams(hashes, gram)
    if len(grams) < window:
        return np.empty(0, np.uint64)
    least = sliding_minimum(grams, window)
    # A gram is an anchor if it is the least of some window around it: if it equals the greatest of their minima.
    edge = np.zeros(window - 1, np.uint64)
    greatest = ~sliding_minimum(~np.concatenate([edge, least, edge]), window)
    chosen = np.sort(grams[grams == greatest])
    third = np.concatenate([[False, False], chosen[2:] == chosen[:-2]])[: len(chosen)]
    return chosen[~third]


def covered_words(hashes: np.ndarray, min_words: int, shared: np.ndarray) -> np.ndarray:
    """Return whether each word is in a window whose anchor is one of `shared` (sorted, [n] uint64); [words] bool.

    Every run of `min_words` words that occurs elsewhere is covered completely.
    """
    gram, window = gram_and_window(min_words)
    grams = ngrams(hashes, gram)
    covered = np.zeros(len(hashes) + 1, dtype=np.int64)
    if len(grams) >= window and len(shared):
        least = sliding_minimum(grams, window)
        places = np.minimum(np.searchsorted(shared, least), len(shared) - 1)
        starts = np.flatnonzero(shared[places] == least)
        covered[starts] += 1
        covered[starts + min_words] -= 1
    return np.cumsum(covered)[:-1] > 0


def sliding_minimum(values: np.ndarray, window: int) -> np.ndarray:
    """Return the minimum of each `window` neighbours, [n - window + 1], of values [n >= window] uint64 (van Herk)."""
    count = len(values)
    blocks = -(-count // window)
    padded = np.full(blocks * window, np.iinfo(np.uint64).max, dtype=np.uint64)
    padded[:count] = values
    table = padded.reshape(blocks, window)
    before = np.minimum.accumulate(table, axis=1).ravel()
    after = np.minimum.accumulate(table[:, ::-1], axis=1)[:, ::-1].ravel()
    ends = np.arange(window - 1, count)
    return np.minimum(before[ends], after[ends - window + 1])
