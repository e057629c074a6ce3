"""Sequences that begin alike, as trees whose nodes are read once: answers to one question, or one few-shot prompt."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

LEAST_SAVED = 32
"""Tokens that a node must save to be worth a pass of its own."""


@dataclass
class PrefixNode:
    """Tokens `begin` to `end` of all its sequences, which are equal up to `end`."""

    begin: int
    end: int
    members: list[int]
    """Indices of the sequences, of this node and all below it."""
    children: list["PrefixNode"] = field(default_factory=list)

    @property
    def tokens(self) -> int:
        return self.end - self.begin

    @property
    def longest(self) -> int:
        """End of the longest sequence below."""
        return max((child.longest for child in self.children), default=self.end)


def prefix_trees(sequences: Sequence[NDArray[np.int64]], least_saved: int = LEAST_SAVED) -> list[PrefixNode]:
    """Return trees of which every path from a root to an end reads one sequence, or several that are equal.

    Nodes are cut where that saves `least_saved` tokens; what begins alike for less is read apart.
    """
    order = sorted(range(len(sequences)), key=lambda index: (sequences[index].tolist(), index))
    shared = np.array([_common(sequences[a], sequences[b]) for a, b in pairwise(order)], dtype=int)
    roots: list[PrefixNode] = []
    # A range of `order` whose sequences are read from `begin` on, and the list that its nodes belong to.
    work = [(0, len(order), 0, roots)] if order else []
    while work:
        low, high, begin, siblings = work.pop()
        first = sequences[order[low]]
        common = int(shared[low : high - 1].min()) if high - low > 1 else len(first)
        below = siblings
        if high - low == 1 or (high - low - 1) * (common - begin) >= least_saved:
            node = PrefixNode(begin, common, order[low:high])
            siblings.append(node)
            below, begin = node.children, common
        cuts = [low, *(low + 1 + np.flatnonzero(shared[low : high - 1] == common)).tolist(), high]
        for start, stop in pairwise(cuts):
            # A sequence that ends here has nothing left to read.
            if below is siblings or len(sequences[order[start]]) > begin:
                work.append((start, stop, begin, below))
    return roots


def _common(a: NDArray[np.int64], b: NDArray[np.int64]) -> int:
    """Length of the common beginning."""
    size = min(len(a), len(b))
    differ = np.flatnonzero(a[:size] != b[:size])
    return int(differ[0]) if len(differ) else size
