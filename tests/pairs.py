"""A small cover of many combinations: every pair of choices that occurs in one of them."""

from collections.abc import Hashable, Mapping
from itertools import combinations
from typing import TypeVar

Name = TypeVar("Name", bound=Hashable)
Pair = tuple[tuple[str, Hashable], tuple[str, Hashable]]


def pairs_of(choices: Mapping[str, Hashable]) -> set[Pair]:
    """Return every pair of two factors' choices."""
    return set(combinations(sorted(choices.items(), key=lambda item: item[0]), 2))


def all_pairs(rows: Mapping[Name, Mapping[str, Hashable]]) -> list[Name]:
    """Return names of rows that together have every pair of choices that any row has, in the order of `rows`.

    Greedy: the row with the most pairs still missing comes next, the first of equals. A factor's illegal pairs occur in
    no row, so they need no rule of their own.
    """
    pairs = {name: pairs_of(row) for name, row in rows.items()}
    missing = set[Pair]().union(*pairs.values())
    chosen = set[Name]()
    while missing:
        best = max(pairs, key=lambda name: len(pairs[name] & missing))
        chosen.add(best)
        missing -= pairs[best]
    return [name for name in rows if name in chosen]
