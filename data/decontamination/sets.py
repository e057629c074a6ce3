"""Index of evaluation sets by n-grams of words (GPT-3's 13, arXiv 2005.14165, appendix C), searched for each document.

An item is searched by every length of n-gram that fits into it. The longest is the strong sign, by which documents are
cut or dropped; the shorter ones are only counted, because an edited copy leaves no run of 13 words.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from sluice.core.hashing import mix
from sluice.data.decontamination.items import read_items
from sluice.data.decontamination.spans import SharedSpan
from sluice.data.deduplication.spans import merged
from sluice.data.deduplication.words import word_hashes
from sluice.data.writing_systems import letters_a_word

SHORTEST_ITEM = 4
"""Words. A shorter item, such as a two-word answer, occurs everywhere: it is skipped and counted.

In a script without spaces each letter is a word of its own, so this and all other numbers of words are multiplied by
the average letters of a word: 2 in Chinese and Japanese, 4 in Thai, Lao, Khmer and Burmese. 13 words are then 26
Chinese characters; with 13, the name of an institution alone would be a match.
"""

_WHOLE_STRING = 6
"""A string of at least this many words is matched on its own, whatever else its item contains."""
_PRIME = np.uint64(0x9E3779B97F4A7C15)
_LEAST_BITS, _MOST_BITS = 16, 24


@dataclass(frozen=True, eq=False)
class EvaluationSets:
    """An index of the n-grams of evaluation sets; `find` searches it."""

    names: tuple[str, ...]
    hashes: np.ndarray
    """Hashes of the n-grams, sorted and distinct, [n] uint64."""
    bounds: np.ndarray
    """`members[bounds[i]:bounds[i + 1]]` are the occurrences of n-gram i; [n + 1] int64."""
    members: np.ndarray
    """Twice a set's index in `names`, plus one where the item has longer n-grams; int32."""
    lengths: tuple[int, ...]
    """Lengths in words of the n-grams, ascending."""
    counts: dict[str, int]
    """Number of items searched for, by set."""
    ignored: dict[str, int]
    """Number of items of fewer than SHORTEST_ITEM words, by set."""

    @classmethod
    def load(
        cls, paths: Sequence[Path], ngrams: Sequence[int] = (13, 8), prepare: Callable[[str], str] = str
    ) -> "EvaluationSets":
        """Read JSONL, JSON and YAML files in any order; without paths the index is empty.

        A set is named by `set_names`. `ngrams` descend. `prepare` does to strings of items what was done to documents,
        such as masking personal data. Raises ValueError naming file and line that cannot be read, or a file without a
        usable item.
        """
        names = set_names(paths)
        items = {
            name: [[prepare(string) for string in item] for item in read_items(path)] for name, path in names.items()
        }
        index = cls.of_items(items, ngrams)
        for name, path in names.items():
            if not index.counts[name]:
                raise ValueError(
                    f"evaluation set {path} has {len(items[name])} items, none of {SHORTEST_ITEM} words or more: "
                    "it would match nothing; correct the file or remove it from evaluation_sets"
                )
        return index

    @classmethod
    def of_items(
        cls, items: Mapping[str, Sequence[Sequence[str]]], ngrams: Sequence[int] = (13, 8)
    ) -> "EvaluationSets":
        """Index items, given as their strings, by the name of their set. `ngrams` descend."""
        found: dict[int, list[tuple[int, np.ndarray]]] = {}
        counts, ignored = {}, {}
        for place, name in enumerate(sorted(items)):
            units = [_units(item, ngrams) for item in items[name]]
            counts[name] = sum(map(bool, units))
            ignored[name] = len(units) - counts[name]
            for words, lengths in (unit for item in units for unit in item):
                for length, hashes in _ngrams(words, lengths):
                    member = 2 * place + (length < lengths[0])
                    found.setdefault(length, []).append((member, hashes))
        grams = [gram for grams in found.values() for gram in grams]
        hashes = np.concatenate([gram for _, gram in grams] or [np.zeros(0, np.uint64)])
        members = np.repeat([member for member, _ in grams], [len(gram) for _, gram in grams]).astype(np.int32)
        order = np.lexsort((members, hashes))
        hashes, members = hashes[order], members[order]
        is_new = np.ones(len(hashes), dtype=bool)
        is_new[1:] = (hashes[1:] != hashes[:-1]) | (members[1:] != members[:-1])
        hashes, members = hashes[is_new], members[is_new]
        distinct, starts = np.unique(hashes, return_index=True)
        bounds = np.append(starts, len(members)).astype(np.int64)
        return cls(tuple(sorted(items)), distinct, bounds, members, tuple(sorted(found)), counts, ignored)

    @property
    def fingerprint(self) -> str:
        """Hash that is equal for indexes in which `find` returns the same."""
        digest = hashlib.sha256(repr((self.names, self.lengths)).encode())
        for part in (self.hashes, self.bounds, self.members):
            digest.update(hashlib.sha256(part.tobytes()).digest())
        return digest.hexdigest()

    @cached_property
    def _occurs(self) -> np.ndarray:
        """Filter by the first bits of an n-gram's hash, [2**bits] bool: it rejects most n-grams of a clean document."""
        bits = min(max(int(16 * len(self.hashes)).bit_length(), _LEAST_BITS), _MOST_BITS)
        table = np.zeros(1 << bits, dtype=bool)
        table[self.hashes >> np.uint64(64 - bits)] = True
        return table


def set_names(paths: Sequence[Path]) -> dict[str, Path]:
    """Name each path, in any order: by its stem, or by as much more of the path as tells it from the others."""
    paths = list(dict.fromkeys(paths))
    forms = [(path.stem, path.name, f"{path.parent.name}/{path.name}", path.as_posix()) for path in paths]
    taken = Counter(form for each in forms for form in dict.fromkeys(each))
    named = [next((form for form in each if taken[form] == 1), each[-1]) for each in forms]
    return dict(zip(named, paths, strict=True))


def find(hashes: np.ndarray, sets: EvaluationSets) -> list[SharedSpan]:
    """Find what a document shares with the sets, given its `word_hashes` [words]; sorted spans.

    Spans are disjoint for each set, n-gram length and `is_longest`: what 13-grams find, 8-grams find again.
    """
    starts, lengths, grams = [], [], []
    shift = np.uint64(65 - len(sets._occurs).bit_length())
    for length, ngrams in _ngrams(hashes, sets.lengths):
        places = np.flatnonzero(sets._occurs[ngrams >> shift])
        starts.append(places)
        lengths.append(np.full(len(places), length))
        grams.append(ngrams[places])
    if not any(map(len, starts)):
        return []
    wanted = np.concatenate(grams)
    places = np.searchsorted(sets.hashes, wanted)
    places[places == len(sets.hashes)] = 0
    hits = np.flatnonzero(sets.hashes[places] == wanted)
    found: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for place, start, length in zip(
        places[hits].tolist(),
        np.concatenate(starts)[hits].tolist(),
        np.concatenate(lengths)[hits].tolist(),
        strict=True,
    ):
        for member in sets.members[sets.bounds[place] : sets.bounds[place + 1]].tolist():
            found.setdefault((member, length), []).append((start, start + length))
    return sorted(
        SharedSpan(start, end, sets.names[member // 2], length, member % 2 == 0)
        for (member, length), shared in found.items()
        for start, end in merged(shared)
    )


def _units(strings: Sequence[str], ngrams: Sequence[int]) -> list[tuple[np.ndarray, tuple[int, ...]]]:
    """Return how an item is matched: word hashes of each of its texts, and the n-gram lengths to use, descending.

    A string of enough words for an n-gram is matched by all n-gram lengths that fit, one of six words or more as a
    whole. Shorter strings beside such a one are skipped: "all of the above" among the choices is not the item. An item
    of short strings alone is matched by the longest as a whole or, where that is too short, by all in order as one
    text.
    """
    words = [word_hashes(string) for string in strings]
    letters = [letters_a_word(string) for string in strings]
    units = [
        (each, _lengths(len(each), ngrams, scale))
        for each, scale in zip(words, letters, strict=True)
        if len(each) >= _WHOLE_STRING * scale
    ]
    if units or not words:
        return units
    longest, scale = max(zip(words, letters, strict=True), key=lambda pair: len(pair[0]) / pair[1])
    if len(longest) >= SHORTEST_ITEM * scale:
        return [(longest, (len(longest),))]
    joined, scale = np.concatenate(words), letters_a_word(" ".join(strings))
    return [(joined, _lengths(len(joined), ngrams, scale))] if len(joined) >= SHORTEST_ITEM * scale else []


def _lengths(words: int, ngrams: Sequence[int], letters: int) -> tuple[int, ...]:
    """Return the n-gram lengths, scaled by letters a word, that fit into `words`; if none does, `words` itself."""
    return tuple(length * letters for length in ngrams if length * letters <= words) or (words,)


def _ngrams(words: np.ndarray, lengths: Sequence[int]) -> Iterator[tuple[int, np.ndarray]]:
    """Yield (length, hashes [words - length + 1] uint64) of the n-grams of each of `lengths` that fits, ascending."""
    mixed = words
    for length in range(1, min(max(lengths, default=0), len(words)) + 1):
        if length > 1:
            # Polynomial in the position, so that the order of the words counts; arithmetic is modulo 2**64.
            mixed = mixed[:-1] * _PRIME + words[length - 1 :]
        if length in lengths:
            yield length, mix(mixed + np.uint64(length))
