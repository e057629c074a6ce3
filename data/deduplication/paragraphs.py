"""Repeated paragraphs and lines: boilerplate of many documents stays in a few of them (CCNet, arXiv 1911.00359).

In the document text contract (data/extraction/blocks.py) a paragraph, a heading and a list item each take one line, so
everything here goes by lines; the settings call them pieces. Lines of code are never removed: code with a hole in it is
not code.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from sluice.data.deduplication.ragged_arrays import repeated_values
from sluice.data.deduplication.shingles import distinct
from sluice.data.deduplication.sketch_store import SketchPart, folders
from sluice.data.deduplication.spans import cut
from sluice.data.deduplication.words import hash_of, words

PARAGRAPHS = "pieces"
"""Name of the column of these hashes in a sketch folder."""
_CODE = "    "


def paragraph_hashes(text: str, min_words: int) -> np.ndarray:
    """Return the sorted distinct hashes of the lines of at least `min_words` words, [n] uint64.

    Only the words count: lines that differ in case, spacing or punctuation are equal.
    """
    return distinct(np.fromiter((value for value, _, _ in _paragraphs(text, min_words)), dtype=np.uint64))


def _paragraphs(text: str, min_words: int) -> Iterator[tuple[int, int, int]]:
    """Yield hash, start and end (after its line break) of each line of at least `min_words` words."""
    start = 0
    for line in text.split("\n"):
        end = start + len(line) + 1
        # n words take 2n - 1 characters at least.
        if len(line) >= 2 * min_words - 1 and not line.startswith(_CODE):
            found = words(line)
            if len(found) >= max(min_words, 1):
                yield hash_of(" ".join(found)), start, min(end, len(text))
        start = end


def surplus_paragraphs(
    parts: Sequence[SketchPart], ids: Sequence[str], eligible: np.ndarray, max_copies: int
) -> dict[str, np.ndarray]:
    """Return id -> hashes of the lines to remove from that document, [n] uint64; documents without any are absent.

    `ids` and `eligible` ([slots] bool; at most one of equal ids) are in slot order. Of the eligible documents that have
    a line, the `max_copies` of the smallest ids keep it.
    """
    by_id = np.argsort(np.asarray(ids))
    ranks = np.full(len(ids), -1, dtype=np.int64)
    ranks[by_id] = np.arange(len(ids))
    ranks[~np.asarray(eligible, dtype=bool)] = -1
    found: dict[int, list[np.ndarray]] = {}
    for values, of_rank in repeated_values(folders(parts), PARAGRAPHS, ranks):
        beyond = copies_before(values) >= max_copies
        order = np.argsort(of_rank[beyond], kind="stable")
        for rank, hashes in runs(of_rank[beyond][order], values[beyond][order]):
            found.setdefault(rank, []).append(hashes)
    return {ids[by_id[rank]]: np.concatenate(hashes) for rank, hashes in sorted(found.items())}


def runs(keys: np.ndarray, values: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Yield each distinct key of sorted keys [n] with its values, in order."""
    edges = np.flatnonzero(keys[1:] != keys[:-1]) + 1
    for group, start in zip(np.split(values, edges), [0, *edges.tolist()], strict=True):
        if len(group):
            yield int(keys[start]), group


def copies_before(values: np.ndarray) -> np.ndarray:
    """Count the equal values before each of sorted values [n], [n] int64."""
    index = np.arange(len(values))
    begins = np.concatenate([[True], values[1:] != values[:-1]])[: len(values)]
    return index - np.maximum.accumulate(np.where(begins, index, 0))


def remove(text: str, hashes: np.ndarray, min_words: int) -> tuple[str, int]:
    """Remove the lines with these hashes [n] uint64; returns the text and how many lines were removed."""
    unwanted = set(hashes.tolist())
    spans = [(start, end) for value, start, end in _paragraphs(text, min_words) if value in unwanted]
    return cut(text, spans), len(spans)
