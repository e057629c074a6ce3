"""All segmentations of words into tokens, as arrays: the forward-backward and Viterbi passes of a Unigram model.

An edge is a token at one position of one word. Edges are grouped by their end and their length, so that a word has at
most one edge in a group and each step of a pass is one vector operation; the order of every sum is fixed.
"""

from collections.abc import Sequence
from itertools import chain

import numpy as np

LONGEST_TOKEN = 16
"""Bytes."""


class Lattice:
    """The edges of `words` with `tokens` (token -> number); `whole=False` excludes edges over a whole word."""

    def __init__(self, words: Sequence[bytes], tokens: dict[bytes, int], *, whole: bool = True) -> None:
        self.lengths = np.array([len(word) for word in words], dtype=np.int64)
        # A generator: a list of millions of tuples would take half a gigabyte.
        edges = (
            (end, end - start, number, index)
            for number, word in enumerate(words)
            for start in range(len(word))
            for end in range(start + 1, min(start + LONGEST_TOKEN, len(word)) + 1)
            if (index := tokens.get(word[start:end])) is not None and (whole or end - start < len(word))
        )
        found = np.fromiter(chain.from_iterable(edges), dtype=np.int32).reshape(-1, 4)
        self._load(found[np.lexsort((found[:, 2], found[:, 1], found[:, 0]))])

    def _load(self, edges: np.ndarray) -> None:
        self.edges = edges
        """[edges, 4] int32: end, length, word, token; sorted."""
        starts = np.flatnonzero(np.any(np.diff(edges[:, :2], axis=0, prepend=-1), axis=1))
        bounds = zip(starts, [*starts[1:], len(edges)], strict=True)
        self.groups = [(int(edges[a, 0]), int(edges[a, 1]), slice(a, b)) for a, b in bounds]

    def keep(self, alive: np.ndarray) -> None:
        """Drop the edges of tokens that are not `alive`, [tokens] bool."""
        self._load(self.edges[alive[self.edges[:, 3]]])

    def expected_counts(self, scores: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """Return the expected count of each token, [tokens], in words that occur `weights` [words] times, given the
        log-probabilities `scores` [tokens].
        """
        words, cost = self.edges[:, 2], scores[self.edges[:, 3]]
        before = self._forward(cost, np.logaddexp)
        after = np.full_like(before, -np.inf)
        after[self.lengths, np.arange(len(self.lengths))] = 0
        for end, length, at in reversed(self.groups):
            word, start = words[at], end - length
            after[start, word] = np.logaddexp(after[start, word], after[end, word] + cost[at])
        ends = self.edges[:, 0]
        total = before[self.lengths, np.arange(len(self.lengths))]
        share = np.exp(before[ends - self.edges[:, 1], words] + cost + after[ends, words] - total[words])
        return np.bincount(self.edges[:, 3], share * weights[words], minlength=len(scores))

    def best(self, scores: np.ndarray) -> np.ndarray:
        """Return the log-probability of the best segmentation of each word, [words]; -inf where there is none."""
        before = self._forward(scores[self.edges[:, 3]], np.maximum)
        return before[self.lengths, np.arange(len(self.lengths))]

    def _forward(self, cost: np.ndarray, join: np.ufunc) -> np.ndarray:
        """Return the log-probability of each prefix of each word, [longest + 1, words]."""
        before = np.full((int(self.lengths.max(initial=0)) + 1, len(self.lengths)), -np.inf)
        before[0] = 0
        for end, length, at in self.groups:
            word = self.edges[at, 2]
            before[end, word] = join(before[end, word], before[end - length, word] + cost[at])
        return before
