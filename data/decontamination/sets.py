"""Text that documents share with evaluation sets, by n-grams of words (GPT-3's 13, arXiv 2005.14165, appendix C).

An item is looked for by every length of n-gram that fits into it. Its longest is the strong sign, upon which documents
are cut or dropped; the shorter ones are counted beside it, because an edited copy leaves no run of 13 words.

Spans of words are half open, [first_word, last_word), and count the words of
`sluice.data.deduplication.words`, so neither case, spacing, line breaks nor punctuation hide an item.
"""

import hashlib
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from sluice.core.hashing import mix
from sluice.data.config import ContaminationSign
from sluice.data.decontamination.items import read_items
from sluice.data.deduplication.spans import merged
from sluice.data.deduplication.words import word_hashes, word_spans
from sluice.data.privacy import mask
from sluice.data.report import Overlap
from sluice.data.writing_systems import letters_a_word

SHORTEST_ITEM = 4
"""Words. A shorter item, such as a two-word answer, occurs everywhere, so it is left out and counted.

In a script without spaces, where each letter is a word of its own, this and all other numbers of words are multiplied
by the letters that a word has, about: 2 in Chinese and Japanese, 4 in Thai, Lao, Khmer and Burmese. 13 words are 26
characters of Chinese there; by 13 characters, the name of an institution alone would be an item.
"""

_WHOLE_STRING = 6
"""Words from which on a string is matched on its own, whatever else its item holds."""
_PRIME = np.uint64(0x9E3779B97F4A7C15)
_LEAST_BITS, _MOST_BITS = 16, 24


@dataclass(frozen=True, order=True)
class Span:
    """Words of a document, [first_word, last_word), that occur in an evaluation set."""

    first_word: int
    last_word: int
    set: str
    ngram: int
    """Length in words (sluice.data.deduplication.words) of the n-grams that matched; the item's own length if it is
    shorter than all of `ngrams`.
    """
    is_longest: bool = True
    """Whether these are the longest n-grams that the item has; if not, it is the weaker sign."""


@dataclass(frozen=True, eq=False)
class EvaluationSets:
    """An index of the n-grams of evaluation sets; `find` searches it."""

    names: tuple[str, ...]
    hashes: np.ndarray
    """Of the n-grams, sorted and distinct, [n] uint64."""
    bounds: np.ndarray
    """`members[bounds[i]:bounds[i + 1]]` is where n-gram i occurs; [n + 1] int64."""
    members: np.ndarray
    """Twice the place in `names` of a set, and one more where the item has longer n-grams; int32."""
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
    """What a document shares with the sets, by its `word_hashes` [words], in the order of the spans.

    Disjoint spans for each set, length of n-grams and `is_longest`: what 13-grams find, 8-grams find again.
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
        Span(start, end, sets.names[member // 2], length, member % 2 == 0)
        for (member, length), shared in found.items()
        for start, end in merged(shared)
    )


def acting(spans: Sequence[Span], by: ContaminationSign) -> list[Span]:
    """The spans that a policy acts upon, disjoint for each set: those of the items' longest n-grams, or of any."""
    found: dict[str, list[Span]] = {}
    for span in spans:
        if by == "any" or span.is_longest:
            found.setdefault(span.set, []).append(span)
    return sorted(
        Span(start, end, name, max(span.ngram for span in of_set if start <= span.first_word < end))
        for name, of_set in found.items()
        for start, end in merged([(span.first_word, span.last_word) for span in of_set])
    )


def count_documents(documents: Iterable[Sequence[Span]], by: ContaminationSign) -> dict[str, int]:
    """Set -> how many of the documents share with it what a policy acts upon. `documents` are their spans."""
    counts = Counter(name for spans in documents for name in {span.set for span in acting(spans, by)})
    return dict(sorted(counts.items()))


def count_ngrams(documents: Iterable[Sequence[Span]]) -> dict[str, dict[int, Overlap]]:
    """Set -> n -> the documents that share n-grams of n words with it, and in how many spans of theirs."""
    found: dict[str, dict[int, Overlap]] = {}
    for spans in documents:
        covered: dict[tuple[str, int], list[tuple[int, int]]] = {}
        for span in spans:
            covered.setdefault((span.set, span.ngram), []).append((span.first_word, span.last_word))
        for (name, ngram), shared in covered.items():
            counts = found.setdefault(name, {}).setdefault(ngram, Overlap())
            counts.documents += 1
            counts.spans += len(merged(shared))
    return {name: dict(sorted(found[name].items())) for name in sorted(found)}


def character_spans(text: str, spans: Sequence[Span]) -> list[tuple[int, int]]:
    """Start and end in characters of each span, from its first word to its last: for evidence, and to cut."""
    words = word_spans(text) if spans else []
    return [(words[span.first_word][0], words[span.last_word - 1][1]) for span in spans]


def _as_document(text: str, masks: Collection[str] | None) -> str:
    return mask(unicodedata.normalize("NFC", text), masks)[0]


def _units(strings: Sequence[str], ngrams: Sequence[int]) -> list[tuple[np.ndarray, tuple[int, ...]]]:
    """How an item is matched: hashes of a run of its words, and the lengths of its n-grams that count, descending.

    Each string of enough words for an n-gram is matched by all that fit, and one of six words or more as a whole.
    Shorter ones beside them are left out: "all of the above" among the choices is not the item. An item of such strings
    alone is matched by the longest as a whole, and where that is too short, by all in order as one text.
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
    """Those of `ngrams`, at so many letters a word, that fit into so many words; if none does, all the words."""
    return tuple(length * letters for length in ngrams if length * letters <= words) or (words,)


def _ngrams(words: np.ndarray, lengths: Sequence[int]) -> Iterator[tuple[int, np.ndarray]]:
    """(length, hashes [words - length + 1] uint64) of the n-grams of each of `lengths`, ascending, that fits."""
    mixed = words
    for length in range(1, min(max(lengths, default=0), len(words)) + 1):
        if length > 1:
            # Polynomial in the position, so that the order of the words counts; arithmetic is modulo 2**64.
            mixed = mixed[:-1] * _PRIME + words[length - 1 :]
        if length in lengths:
            yield length, mix(mixed + np.uint64(length))
