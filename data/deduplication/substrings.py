"""Find exact repeated runs of words, to cut all occurrences but the first, by suffix array (arXiv 2107.06499)."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from sluice.core.files import naming
from sluice.data.deduplication.components import components
from sluice.data.deduplication.paragraphs import runs
from sluice.data.deduplication.ragged_arrays import RowReader, repeated_values, write_column
from sluice.data.deduplication.sketch_store import SketchPart, folders
from sluice.data.deduplication.spans import merged
from sluice.data.deduplication.suffixes import Runs, repeated_words
from sluice.data.deduplication.winnowing import covered_words
from sluice.data.deduplication.words import word_hashes, word_spans

_BLOCK_WORDS = 4_000_000
"""Words in one suffix array: about 350 MB while it is built."""
_WINDOWS, _SHARED = "windows", "shared.npy"

AnchorWindows = Callable[[np.ndarray, Path], Sequence[Path]]
"""Runs `write_windows` on the documents of ascending slots [n], with the shared anchors in the given folder. Returns
the folders written, which hold the documents in the same order.
"""


@dataclass
class Substrings:
    """Runs of words to cut out of each document, and the number of groups that were not compared completely."""

    runs: dict[str, Runs] = field(default_factory=dict)
    """Id -> runs of words to cut; documents without any are absent."""
    split_groups: int = 0
    """Groups of documents too large for one suffix array. A run that occurs in two blocks of such a group stays once
    in each."""


@dataclass
class Repeats:
    """The repeats of one group of documents, valid as long as the group stays the same."""

    runs: dict[int, Runs] = field(default_factory=dict)
    """By the documents' ranks in the order of ids."""
    is_split: bool = False


class RepeatCache:
    """Results of earlier calls about one corpus, which the next call reuses, whatever documents it is about."""

    def __init__(self, folder: Path, documents: int) -> None:
        self.folder = folder
        """Folder of the words around shared anchors."""
        self.repeats: dict[bytes, Repeats] = {}
        """By the ranks of a group."""
        self.anchors = np.empty(0, np.uint64)
        """All anchors that were ever shared, sorted."""
        self.since = np.empty(0, np.int64)
        """The call in which each anchor was first shared."""
        self.calls = 0
        self.read_in = np.full(documents, -1)
        """The call in which each document's windows were last written, by rank."""
        self.rows = np.full(documents, -1)
        """Row of each document's windows along `folders`, by rank."""
        self.folders: list[Path] = []

    def ages(self, anchors: np.ndarray) -> np.ndarray:
        """Return the call in which each of some anchors [n] was first shared; this one for a new anchor."""
        if not len(self.anchors):
            return np.full(len(anchors), self.calls)
        found = np.minimum(np.searchsorted(self.anchors, anchors), len(self.anchors) - 1)
        return np.where(self.anchors[found] == anchors, self.since[found], self.calls)

    def add(self, shared: np.ndarray) -> None:
        """Add this call's shared anchors, sorted [n]."""
        anchors = np.union1d(self.anchors, shared)
        self.since = self.ages(anchors)
        self.anchors = anchors


def repeated_substrings(  # noqa: PLR0917
    parts: Sequence[SketchPart],
    ids: Sequence[str],
    anchor_windows: AnchorWindows,
    eligible: np.ndarray,
    min_words: int,
    cache: RepeatCache,
    *,
    block_words: int = _BLOCK_WORDS,
) -> Substrings:
    """Find runs of at least `min_words` words that occurred before, in a document of a smaller id or in the same one.

    `ids` and `eligible` ([slots] bool; at most one of equal ids) are in slot order; the sketches were made with this
    `min_words`. Only documents that share an anchor are read; with the same `cache`, a later call reads only those that
    share an anchor that was not shared before, and compares only groups of documents that have changed. Earlier calls
    change no result, except where a group that is too large is split.
    """
    by_id = np.argsort(np.asarray(ids))
    ranks = np.full(len(ids), -1, dtype=np.int64)
    ranks[by_id] = np.arange(len(ids))
    ranks[~np.asarray(eligible, dtype=bool)] = -1
    groups, needed = _groups(parts, ranks, cache)
    new = [group for group in groups if group.tobytes() not in cache.repeats]
    if new:
        members = np.concatenate(new)
        unread = members[cache.read_in[members] < needed[members]]
        if len(unread):
            unread = unread[np.argsort(by_id[unread])]  # in slot order
            folder = cache.folder / f"windows-{cache.calls:02d}"
            folder.mkdir()
            with naming(folder / _SHARED):
                np.save(folder / _SHARED, cache.anchors)
            first = int(cache.rows.max()) + 1
            cache.folders += anchor_windows(by_id[unread], folder)
            cache.rows[unread] = first + np.arange(len(unread))
            cache.read_in[unread] = cache.calls
        with RowReader(cache.folders, _WINDOWS) as windows:
            found_in = _repeats_of_groups(new, windows, cache, min_words, block_words)
            for group, repeats in zip(new, found_in, strict=True):
                cache.repeats[group.tobytes()] = repeats
    cache.calls += 1
    now = [cache.repeats[group.tobytes()] for group in groups]
    found = {ids[by_id[rank]]: cut_runs for repeats in now for rank, cut_runs in repeats.runs.items()}
    return Substrings(dict(sorted(found.items())), sum(repeats.is_split for repeats in now))


def write_windows(folder: Path, texts: Iterable[str], min_words: int, shared: Path) -> None:
    """Write as a column, text by text, the words in windows around shared anchors: their indices, then their hashes.

    All words that may occur elsewhere are among them. `shared` is the folder of the shared anchors.
    """

    def windows(text: str) -> np.ndarray:
        hashes = word_hashes(text)
        indices = np.flatnonzero(covered_words(hashes, min_words, anchors))
        return np.concatenate([indices.astype(np.uint64), hashes[indices]])

    folder.mkdir()
    anchors = np.load(shared / _SHARED)
    write_column(folder, _WINDOWS, map(windows, texts))


def _groups(parts: Sequence[SketchPart], ranks: np.ndarray, cache: RepeatCache) -> tuple[list[np.ndarray], np.ndarray]:
    """Group documents that share anchors, and add the shared anchors to `cache`.

    Returns the sorted ranks of each group, and for each document, by rank, the call in which the newest of its shared
    anchors was first shared, -1 where it shares none.
    """
    shared, edges = [np.empty(0, np.uint64)], [np.empty(0, np.int64)]
    needed = np.full(len(ranks), -1)
    for values, of_rank in repeated_values(folders(parts), "anchors", ranks):
        shared.append(values[np.concatenate([[True], values[1:] != values[:-1]])[: len(values)]])
        first = np.searchsorted(values, values)
        edges.append(np.unique(of_rank[first] << 32 | of_rank))
        np.maximum.at(needed, of_rank, cache.ages(values))
    cache.add(np.concatenate(shared))
    pairs = np.unique(np.concatenate(edges))
    members, index = np.unique(np.concatenate([pairs >> 32, pairs & 0xFFFFFFFF]), return_inverse=True)
    one, other = np.split(index, 2)
    label = components(one, other, len(members))
    order = np.argsort(label, kind="stable")
    groups = [group for _, group in runs(label[order], members[order])]
    return sorted(groups, key=lambda group: int(group[0])), needed


def _repeats_of_groups(
    groups: Sequence[np.ndarray], windows: RowReader, cache: RepeatCache, min_words: int, block_words: int
) -> list[Repeats]:
    """Return the repeats of each group of ranks."""
    rows = [cache.rows[group] for group in groups]
    owner = {
        row: (number, rank)
        for number, group in enumerate(groups)
        for row, rank in zip(rows[number].tolist(), group.tolist(), strict=True)
    }
    found = [Repeats() for _ in groups]
    for block_rows, split in _blocks(rows, windows.sizes // 2, block_words):
        if split is not None:
            found[split].is_split = True
        halves = ((row, np.split(windows[row], 2)) for row in block_rows)
        block = [(row, indices, hashes) for row, (indices, hashes) in halves]
        for row, cut_runs in repeated_words(block, min_words).items():
            number, rank = owner[row]
            found[number].runs[rank] = cut_runs
    return found


def _blocks(
    groups: Sequence[np.ndarray], sizes: np.ndarray, block_words: int
) -> Iterator[tuple[list[int], int | None]]:
    """Pack rows (sizes [rows], in words) into blocks of whole groups; a group that is too large is split.

    Yields the rows of a block and the number of the group it was split from, or None. Rows keep their order within a
    group; those without words are skipped.
    """
    block: list[int] = []
    words = 0
    for number, group in enumerate(groups):
        rest: list[int] = []
        size = 0
        for row in group[sizes[group] > 0].tolist():
            if rest and size + sizes[row] > block_words:
                yield rest, number
                rest, size = [], 0
            rest.append(row)
            size += int(sizes[row])
        if block and words + size > block_words:
            yield block, None
            block, words = [], 0
        block.extend(rest)
        words += size
    if block:
        yield block, None


def character_spans(text: str, word_runs: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Convert runs of words (first, end) into sorted spans of characters, up to the next word on the line."""
    spans = word_spans(text)
    found = []
    for first, end in word_runs:
        start, stop = spans[first][0], spans[end - 1][1]
        following = spans[end][0] if end < len(spans) else len(text)
        line_end = text.find("\n", stop, following)
        found.append((start, following if line_end < 0 else line_end))
    return merged(found)
