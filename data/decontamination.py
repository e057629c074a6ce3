"""Text that documents share with evaluation sets, by n-grams of words (GPT-3's 13, arXiv 2005.14165, appendix C).

Spans of words are half open, [first_word, last_word), and count the words of `data.deduplication.words`. So neither
case, spacing, line breaks nor punctuation hide an item.
"""

import hashlib
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from data.deduplication.words import word_hashes, word_spans
from data.evaluation_items import read_items
from data.hashing import mix
from data.privacy import mask

SHORTEST_ITEM = 4
"""Words. A shorter item, such as a two-word answer, occurs everywhere, so it is left out and counted."""

_WHOLE_STRING = 6
"""Words from which on a string is matched on its own, whatever else its item holds."""
_PRIME = np.uint64(0x9E3779B97F4A7C15)
_LEAST_BITS, _MOST_BITS = 16, 24


@dataclass(frozen=True)
class Span:
    """Words of a document, [first_word, last_word), that occur in an evaluation set."""

    first_word: int
    last_word: int
    set: str


@dataclass(frozen=True, eq=False)
class EvaluationSets:
    """An index of the n-grams of evaluation sets; `find` searches it."""

    names: tuple[str, ...]
    hashes: np.ndarray
    """Of the n-grams, sorted and distinct, [n] uint64."""
    bounds: np.ndarray
    """`members[bounds[i]:bounds[i + 1]]` are the sets, by their place in `names`, that hold n-gram i; [n + 1] int64."""
    members: np.ndarray
    lengths: tuple[int, ...]
    """Words of the n-grams that occur, ascending."""
    counts: dict[str, int]
    """Items that documents are held against, by set."""
    ignored: dict[str, int]
    """Items of fewer than SHORTEST_ITEM words, by set."""

    @classmethod
    def load(
        cls, paths: Sequence[Path], ngrams: Sequence[int] = (13, 8), masks: Collection[str] | None = None
    ) -> "EvaluationSets":
        """Read JSONL, JSON and YAML files; the order of `paths` does not matter, and no path is no set.

        A set is named by its file's stem, or by as much more of its path as it takes to tell it from the others.
        `ngrams` descend. Items are read as documents are: in NFC, with `masks` over personal data.
        ValueError naming file and line of what cannot be read, or a file that holds nothing to find.
        """
        names = set_names(paths)
        found: dict[int, list[tuple[int, np.ndarray]]] = {}
        counts, ignored = {}, {}
        for place, (name, path) in enumerate(sorted(names.items())):
            units = [_units([_as_document(each, masks) for each in item], ngrams) for item in read_items(path)]
            counts[name] = sum(map(bool, units))
            ignored[name] = len(units) - counts[name]
            if not counts[name]:
                raise ValueError(
                    f"evaluation set {path} has {len(units)} items, none of {SHORTEST_ITEM} words or more: "
                    "nothing could be found by it; mend the file or take it out of evaluation_sets"
                )
            for words, length in (unit for item in units for unit in item):
                found.setdefault(length, []).append((place, next(_ngrams(words, (length,)))[1]))
        grams = [gram for grams in found.values() for gram in grams]
        hashes = np.concatenate([gram for _, gram in grams] or [np.zeros(0, np.uint64)])
        sets = np.repeat([place for place, _ in grams], [len(gram) for _, gram in grams]).astype(np.int32)
        order = np.lexsort((sets, hashes))
        hashes, sets = hashes[order], sets[order]
        is_new = np.ones(len(hashes), dtype=bool)
        is_new[1:] = (hashes[1:] != hashes[:-1]) | (sets[1:] != sets[:-1])
        hashes, members = hashes[is_new], sets[is_new]
        distinct, starts = np.unique(hashes, return_index=True)
        bounds = np.append(starts, len(members)).astype(np.int64)
        return cls(tuple(sorted(names)), distinct, bounds, members, tuple(sorted(found)), counts, ignored)

    @property
    def fingerprint(self) -> str:
        """Equal for sets in which `find` finds the same."""
        digest = hashlib.sha256(repr((self.names, self.lengths)).encode())
        for part in (self.hashes, self.bounds, self.members):
            digest.update(hashlib.sha256(part.tobytes()).digest())
        return digest.hexdigest()

    @cached_property
    def _occurs(self) -> np.ndarray:
        """Whether any n-gram has these first bits, [2**bits] bool: rejects most n-grams of a clean document."""
        bits = min(max(int(16 * len(self.hashes)).bit_length(), _LEAST_BITS), _MOST_BITS)
        table = np.zeros(1 << bits, dtype=bool)
        table[self.hashes >> np.uint64(64 - bits)] = True
        return table


def set_names(paths: Sequence[Path]) -> dict[str, Path]:
    """A name for each path, whatever their order: the shortest that no other path has at the same length."""
    paths = list(dict.fromkeys(paths))
    forms = [(path.stem, path.name, f"{path.parent.name}/{path.name}", path.as_posix()) for path in paths]
    taken = Counter(form for each in forms for form in dict.fromkeys(each))
    named = [next((form for form in each if taken[form] == 1), each[-1]) for each in forms]
    return dict(zip(named, paths, strict=True))


def find(hashes: np.ndarray, sets: EvaluationSets) -> list[Span]:
    """What a document shares with the sets, by its `word_hashes` [words]: disjoint spans a set, by position and set."""
    starts, ends, grams = [], [], []
    shift = np.uint64(65 - len(sets._occurs).bit_length())
    for length, ngrams in _ngrams(hashes, sets.lengths):
        places = np.flatnonzero(sets._occurs[ngrams >> shift])
        starts.append(places)
        ends.append(places + length)
        grams.append(ngrams[places])
    if not any(map(len, starts)):
        return []
    wanted = np.concatenate(grams)
    places = np.searchsorted(sets.hashes, wanted)
    places[places == len(sets.hashes)] = 0
    hits = np.flatnonzero(sets.hashes[places] == wanted)
    shared = sorted(
        (int(member), int(start), int(end))
        for place, start, end in zip(
            places[hits], np.concatenate(starts)[hits], np.concatenate(ends)[hits], strict=True
        )
        for member in sets.members[sets.bounds[place] : sets.bounds[place + 1]]
    )
    merged: list[tuple[int, int, int]] = []
    for member, start, end in shared:
        if merged and merged[-1][0] == member and start <= merged[-1][2]:
            merged[-1] = member, merged[-1][1], max(end, merged[-1][2])
        else:
            merged.append((member, start, end))
    spans = [Span(start, end, sets.names[member]) for member, start, end in merged]
    return sorted(spans, key=lambda span: (span.first_word, span.last_word, span.set))


def character_spans(text: str, spans: Sequence[Span]) -> list[tuple[int, int]]:
    """Start and end in characters of each span, from its first word to its last: for evidence, and to cut."""
    words = word_spans(text) if spans else []
    return [(words[span.first_word][0], words[span.last_word - 1][1]) for span in spans]


def _as_document(text: str, masks: Collection[str] | None) -> str:
    return mask(unicodedata.normalize("NFC", text), masks)[0]


def _units(strings: Sequence[str], ngrams: Sequence[int]) -> list[tuple[np.ndarray, int]]:
    """How an item is matched: hashes of a run of its words, and the length of the n-grams of it that count.

    Each string of enough words for an n-gram is matched by the longest that fits, and one of six words or more as a
    whole. Shorter ones beside them are left out: "all of the above" among the choices is not the item. An item of such
    strings alone is matched by the longest as a whole, and where that is too short, by all in order as one text.
    """
    words = [word_hashes(string) for string in strings]
    units = [(each, _ngram_of(len(each), ngrams) or len(each)) for each in words if len(each) >= _WHOLE_STRING]
    if units:
        return units
    longest = max(words, key=len, default=np.zeros(0, np.uint64))
    if len(longest) >= SHORTEST_ITEM:
        return [(longest, len(longest))]
    joined = np.concatenate(words) if words else longest
    length = _ngram_of(len(joined), ngrams) or len(joined)
    return [(joined, length)] if length >= SHORTEST_ITEM else []


def _ngram_of(words: int, ngrams: Sequence[int]) -> int:
    """The first of `ngrams` that fits into so many words, 0 if none."""
    return next((length for length in ngrams if length <= words), 0)


def _ngrams(words: np.ndarray, lengths: Sequence[int]) -> Iterator[tuple[int, np.ndarray]]:
    """(length, hashes [words - length + 1] uint64) of the n-grams of each of `lengths`, ascending, that fits."""
    mixed = words
    for length in range(1, min(max(lengths, default=0), len(words)) + 1):
        if length > 1:
            # Polynomial in the position, so that the order of the words counts; arithmetic is modulo 2**64.
            mixed = mixed[:-1] * _PRIME + words[length - 1 :]
        if length in lengths:
            yield length, mix(mixed + np.uint64(length))
