"""Near duplicates of known similarity: edits planted into real documents, for recall and false merges.

The documents are docstrings of the standard library, which every machine has; the Jaccard similarity of a pair is
counted from sets of words, apart from the code that is measured.
"""

import random
import re
import sysconfig
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from sluice.data.sources.installed import docstrings

_WORD = re.compile(r"\w+")
_LEFT_OUT = frozenset({"test", "tests", "idlelib", "lib2to3", "site-packages", "dist-packages", "turtledemo"})
_SHORTEST, _LONGEST = 80, 400
LEVELS = ((0.9, 1.0), (0.8, 0.9), (0.7, 0.8))
"""Ranges of Jaccard similarity, [low, high)."""


@dataclass(frozen=True)
class Pair:
    """A real document, the same with edits, and the Jaccard similarity of their word 5-grams."""

    original: str
    edited: str
    jaccard: float


def documents(count: int, seed: int = 0, *, pattern: str = "**/*.py") -> list[str]:
    """Up to `count` distinct passages of 80 to 400 words of the standard library's docstrings, always the same."""
    generator = random.Random(seed)
    found: dict[str, None] = {}
    library = Path(sysconfig.get_paths()["stdlib"])
    for path in sorted(library.glob(pattern)):
        if _LEFT_OUT.isdisjoint(path.relative_to(library).parts):
            for passage in _passages(docstrings(path, path.stem), generator):
                found[passage] = None
                if len(found) >= count:
                    return list(found)
    return list(found)


def _passages(text: str, generator: random.Random) -> Iterator[str]:
    tokens = text.split()
    place = 0
    while len(tokens) - place >= _SHORTEST:
        length = generator.randint(_SHORTEST, _LONGEST)
        yield " ".join(tokens[place : place + length])
        place += length


def planted(originals: Sequence[str], seed: int, low: float, high: float) -> list[Pair]:
    """One pair for each document that edits bring to a similarity in [low, high); short ones may have no such edit."""
    generator = random.Random(seed)
    pairs = []
    for original in originals:
        tokens = original.split()
        # A changed word costs up to 5 shingles on each side: J = (n - 5e) / (n + 5e).
        target = generator.uniform(low, high)
        edits = max(round(len(tokens) * (1 - target) / (5 * (1 + target))), 1)
        for number in (edits, edits + 1, edits - 1, edits + 2, edits - 2):
            changed = _edited(tokens, max(number, 1), generator)
            similarity = true_jaccard(original, changed)
            if low <= similarity < high:
                pairs.append(Pair(original, changed, similarity))
                break
    return pairs


def corpus(count: int, seed: int = 0) -> list[str]:
    """`count` distinct documents: real ones, and edits of each from nearly equal to well below any bound."""
    originals = documents(count, seed)
    texts = dict.fromkeys(originals)
    for number in range(20):
        low = 0.95 - 0.1 * (number % 5)
        texts.update(dict.fromkeys(pair.edited for pair in planted(originals, seed + number, low, low + 0.05)))
        if len(texts) >= count:
            break
    return list(texts)[:count]


def _edited(tokens: Sequence[str], edits: int, generator: random.Random) -> str:
    """Words replaced, left out, put in or swapped, at `edits` places."""
    changed = list(tokens)
    for place in sorted(generator.sample(range(len(changed) - 1), min(edits, len(changed) - 1)), reverse=True):
        match generator.randrange(4):
            case 0:
                changed[place] = f"edit{generator.randrange(10**6)}"
            case 1:
                del changed[place]
            case 2:
                changed.insert(place, f"more{generator.randrange(10**6)}")
            case _:
                changed[place], changed[place + 1] = changed[place + 1], changed[place]
    return " ".join(changed)


def true_jaccard(first: str, second: str, ngram: int = 5) -> float:
    """Jaccard similarity of the sets of word n-grams, counted without hashes."""
    one, other = (_ngrams(text, ngram) for text in (first, second))
    return len(one & other) / len(one | other) if one | other else 1.0


def _ngrams(text: str, ngram: int) -> set[tuple[str, ...]]:
    words = _WORD.findall(text.lower())
    length = max(min(ngram, len(words)), 1)
    return {tuple(words[start : start + length]) for start in range(len(words) - length + 1)}
