"""Exact repeated runs of words, cut at every place but the first, by suffix array (Lee et al., arXiv 2107.06499)."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from data.deduplication.columns import RowReader, repeated_values, write_column
from data.deduplication.cutting import merged
from data.deduplication.parts import SketchPart, folders
from data.deduplication.pieces import runs
from data.deduplication.winnowing import covered_words
from data.deduplication.words import word_hashes, word_spans

_BLOCK_WORDS = 4_000_000
"""Words in one suffix array: about 350 MB while it is built."""

Texts = Callable[[Sequence[int]], Iterable[str]]
"""The texts of these documents, whose numbers (along the parts) ascend, one after the other."""


@dataclass
class Substrings:
    """What to cut out of each document, and what was left undone."""

    spans: dict[str, list[tuple[int, int]]] = field(default_factory=dict)
    """Id -> (start, end) in characters, sorted; documents without any are left out."""
    split_groups: int = 0
    """Groups of documents too large for one suffix array. A run that occurs in two blocks of such a group stays in
    each of them once."""


@dataclass
class _Islands:
    """The parts of some documents that may occur elsewhere, one after the other; all [words]."""

    hashes: np.ndarray
    document: np.ndarray
    """Index into the documents of the block."""
    word: np.ndarray
    """Place in its document."""
    ends: np.ndarray
    """Where, among these words, the island ends that a word belongs to."""


def repeated_substrings(
    parts: Sequence[SketchPart],
    ids: Sequence[str],
    texts: Texts,
    eligible: np.ndarray,
    min_words: int,
    *,
    scratch: Path | None = None,
    block_words: int = _BLOCK_WORDS,
) -> Substrings:
    """Runs of at least `min_words` words that occurred before, in a document of a smaller id or earlier in the same.

    `ids` and `eligible` ([documents] bool; of equal ids one at most) go along the parts, whose sketches were made with
    this `min_words`. Only documents that share an anchor are read, once, and once more where something is cut; the
    words around shared anchors wait in a temporary folder below `scratch`.
    """
    by_id = np.argsort(np.asarray(ids))
    ranks = np.full(len(ids), -1, dtype=np.int64)
    ranks[by_id] = np.arange(len(ids))
    ranks[~np.asarray(eligible, dtype=bool)] = -1
    shared, groups = _groups(parts, ranks)
    if not groups:
        return Substrings()
    documents = np.sort(by_id[np.concatenate(groups)])
    result = Substrings()
    found: dict[int, list[tuple[int, int]]] = {}
    with TemporaryDirectory(dir=scratch) as name:
        folder = Path(name)
        write_column(folder, "covered", _covered(texts(documents.tolist()), min_words, shared))
        with RowReader([folder], "covered") as covered:
            rows = [np.searchsorted(documents, by_id[group]) for group in groups]
            for numbers, is_split in _blocks(rows, covered.sizes // 2, block_words):
                result.split_groups += is_split
                halves = ((row, np.split(covered[row], 2)) for row in numbers)
                block = [(row, places, hashes) for row, (places, hashes) in halves]
                found.update(_repeated_words(block, min_words))
    cut_rows = sorted(found)
    for row, text in zip(cut_rows, texts(documents[cut_rows].tolist()), strict=True):
        result.spans[ids[documents[row]]] = character_spans(text, found[row])
    result.spans = dict(sorted(result.spans.items()))
    return result


def _groups(parts: Sequence[SketchPart], ranks: np.ndarray) -> tuple[np.ndarray, list[np.ndarray]]:
    """The shared anchors, sorted, and the ranks of documents that they connect, [documents] each, sorted."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    shared, edges = [np.empty(0, np.uint64)], [np.empty(0, np.int64)]
    for values, of_rank in repeated_values(folders(parts), "anchors", ranks):
        shared.append(values[np.concatenate([[True], values[1:] != values[:-1]])[: len(values)]])
        first = np.searchsorted(values, values)
        edges.append(np.unique(of_rank[first] << 32 | of_rank))
    pairs = np.unique(np.concatenate(edges))
    members, index = np.unique(np.concatenate([pairs >> 32, pairs & 0xFFFFFFFF]), return_inverse=True)
    one, other = np.split(index, 2)
    links = coo_array((np.ones(len(one), np.int8), (one, other)), shape=(len(members), len(members)))
    label = connected_components(links, directed=False)[1] if len(members) else index
    order = np.argsort(label, kind="stable")
    groups = [group for _, group in runs(label[order], members[order])]
    return np.concatenate(shared), sorted(groups, key=lambda group: int(group[0]))


def _covered(texts: Iterable[str], min_words: int, shared: np.ndarray) -> Iterator[np.ndarray]:
    """Of each text the places of the words that may occur elsewhere, then their hashes: [2, n] uint64, flat."""
    for text in texts:
        hashes = word_hashes(text)
        places = np.flatnonzero(covered_words(hashes, min_words, shared))
        yield np.concatenate([places.astype(np.uint64), hashes[places]])


def _blocks(groups: Sequence[np.ndarray], sizes: np.ndarray, block_words: int) -> Iterator[tuple[list[int], bool]]:
    """Rows (sizes [rows], in words) in blocks of whole groups; a group that is too large is split, which is said once.

    Rows keep their order within a group; those without words are left out.
    """
    block: list[int] = []
    words = 0
    for group in groups:
        piece: list[int] = []
        size, split = 0, False
        for row in group[sizes[group] > 0].tolist():
            if piece and size + sizes[row] > block_words:
                yield piece, not split
                piece, size, split = [], 0, True
            piece.append(row)
            size += int(sizes[row])
        if block and words + size > block_words:
            yield block, False
            block, words = [], 0
        block.extend(piece)
        words += size
    if block:
        yield block, False


Block = list[tuple[int, np.ndarray, np.ndarray]]
"""(row, places of words in its document, their hashes; [n] uint64 both) of documents in the order of ids."""


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


def _repeated_words(block: Block, min_words: int) -> dict[int, list[tuple[int, int]]]:
    """Row -> word runs (first, end) to cut from its document."""
    islands = _islands(block)
    count = len(islands.hashes)
    starts, kept = _repeats(islands, min_words)
    # The first occurrence stays whole, also where a run repeats itself with an overlap ("ha ha ha ..").
    begins = np.maximum(starts, kept + min_words)
    opened, closed = (np.bincount(each, minlength=count + 1) for each in (begins, starts + min_words))
    places = np.flatnonzero(np.cumsum(opened - closed) > 0)
    found: dict[int, list[tuple[int, int]]] = {}
    for index, cut_words in runs(islands.document[places], islands.word[places]):
        edges = np.flatnonzero(np.diff(cut_words) > 1) + 1
        found[block[index][0]] = [(int(run[0]), int(run[-1]) + 1) for run in np.split(cut_words, edges)]
    return found


def _repeats(islands: _Islands, min_words: int) -> tuple[np.ndarray, np.ndarray]:
    """Where runs of `min_words` words start that occurred before, and where each occurred first; [n] int64 both."""
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


def character_spans(text: str, word_runs: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Runs of words (first, end) as sorted spans of characters, with what parts them from the next word on the line."""
    spans = word_spans(text)
    found = []
    for first, end in word_runs:
        start, stop = spans[first][0], spans[end - 1][1]
        following = spans[end][0] if end < len(spans) else len(text)
        line_end = text.find("\n", stop, following)
        found.append((start, following if line_end < 0 else line_end))
    return merged(found)
