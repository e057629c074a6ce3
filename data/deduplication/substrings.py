"""Exact repeated runs of words, cut at every place but the first, by suffix array (Lee et al., arXiv 2107.06499)."""

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
_COVERED, _SHARED = "covered", "shared.npy"

Cover = Callable[[np.ndarray, Path], Sequence[Path]]
"""Has `write_covered` done for some documents, whose numbers [n] (along the parts) ascend, against the shared anchors
in `shared.npy` of a folder; the folders that it wrote, which hold the documents in the same order.
"""


@dataclass
class Substrings:
    """What to cut out of each document, and what was left undone."""

    runs: dict[str, Runs] = field(default_factory=dict)
    """Id -> runs of words to cut; documents without any are left out."""
    split_groups: int = 0
    """Groups of documents too large for one suffix array. A run that occurs in two blocks of such a group stays in
    each of them once."""


@dataclass
class Repeats:
    """What was found in one group of documents: it holds for as long as the group stays the same."""

    runs: dict[int, Runs] = field(default_factory=dict)
    """By the documents' places in the order of ids."""
    is_split: bool = False


class Known:
    """What the calls about one corpus have found out: each goes on from there, whatever documents it is about."""

    def __init__(self, folder: Path, documents: int) -> None:
        self.folder = folder
        """Of the words around shared anchors."""
        self.repeats: dict[bytes, Repeats] = {}
        """By the ranks of a group."""
        self.anchors = np.empty(0, np.uint64)
        """Those that were ever shared, sorted."""
        self.since = np.empty(0, np.int64)
        """The call that each was first shared in."""
        self.calls = 0
        self.covered_in = np.full(documents, -1)
        """The call whose anchors the words of each document are about, by rank."""
        self.rows = np.full(documents, -1)
        """Where these words lie along `folders`, by rank."""
        self.folders: list[Path] = []

    def ages(self, anchors: np.ndarray) -> np.ndarray:
        """The call that each of some anchors [n] was first shared in; one that was not yet, in this."""
        if not len(self.anchors):
            return np.full(len(anchors), self.calls)
        places = np.minimum(np.searchsorted(self.anchors, anchors), len(self.anchors) - 1)
        return np.where(self.anchors[places] == anchors, self.since[places], self.calls)

    def add(self, shared: np.ndarray) -> None:
        """`shared` [n], sorted, are this call's anchors."""
        anchors = np.union1d(self.anchors, shared)
        self.since = self.ages(anchors)
        self.anchors = anchors


def repeated_substrings(  # noqa: PLR0917
    parts: Sequence[SketchPart],
    ids: Sequence[str],
    cover: Cover,
    eligible: np.ndarray,
    min_words: int,
    known: Known,
    *,
    block_words: int = _BLOCK_WORDS,
) -> Substrings:
    """Runs of at least `min_words` words that occurred before, in a document of a smaller id or earlier in the same.

    `ids` and `eligible` ([documents] bool; of equal ids one at most) go along the parts, whose sketches were made with
    this `min_words`. Only documents that share an anchor are read, and by a later call with the same `known` only those
    that share an anchor which was not shared before. Groups of documents that are as they were are not compared again.
    Earlier calls change nothing of what is found, but for where a group that is too large is parted.
    """
    by_id = np.argsort(np.asarray(ids))
    ranks = np.full(len(ids), -1, dtype=np.int64)
    ranks[by_id] = np.arange(len(ids))
    ranks[~np.asarray(eligible, dtype=bool)] = -1
    groups, needed = _groups(parts, ranks, known)
    new = [group for group in groups if group.tobytes() not in known.repeats]
    if new:
        members = np.concatenate(new)
        _cover(by_id, members[known.covered_in[members] < needed[members]], cover, known)
        with RowReader(known.folders, _COVERED) as covered:
            for group, repeats in zip(
                new, _repeats_of_groups(new, covered, known, min_words, block_words), strict=True
            ):
                known.repeats[group.tobytes()] = repeats
    known.calls += 1
    now = [known.repeats[group.tobytes()] for group in groups]
    found = {ids[by_id[rank]]: cut_runs for repeats in now for rank, cut_runs in repeats.runs.items()}
    return Substrings(dict(sorted(found.items())), sum(repeats.is_split for repeats in now))


def _cover(by_id: np.ndarray, ranks: np.ndarray, cover: Cover, known: Known) -> None:
    """Have the words of these documents that may occur elsewhere put into `known`."""
    if not len(ranks):
        return
    # In the order of their numbers along the parts.
    ranks = ranks[np.argsort(by_id[ranks])]
    folder = known.folder / f"covered-{known.calls:02d}"
    folder.mkdir()
    with naming(folder / _SHARED):
        np.save(folder / _SHARED, known.anchors)
    first = int(known.rows.max()) + 1
    known.folders += cover(by_id[ranks], folder)
    known.rows[ranks] = first + np.arange(len(ranks))
    known.covered_in[ranks] = known.calls


def write_covered(folder: Path, texts: Iterable[str], min_words: int, shared: Path) -> None:
    """Write as a column, text by text, the words that may occur elsewhere: their places, then their hashes.

    `shared` is the folder of `shared.npy`.
    """
    folder.mkdir()
    anchors = np.load(shared / _SHARED)
    write_column(folder, _COVERED, (_covered(text, min_words, anchors) for text in texts))


def _covered(text: str, min_words: int, shared: np.ndarray) -> np.ndarray:
    """[2, n] uint64, flat."""
    hashes = word_hashes(text)
    places = np.flatnonzero(covered_words(hashes, min_words, shared))
    return np.concatenate([places.astype(np.uint64), hashes[places]])


def _groups(parts: Sequence[SketchPart], ranks: np.ndarray, known: Known) -> tuple[list[np.ndarray], np.ndarray]:
    """Ranks of documents that shared anchors connect, [documents] each, sorted; and of each rank the call that the
    last of its shared anchors was first shared in, [documents], -1 where it shares none.

    The anchors are put into `known`.
    """
    shared, edges = [np.empty(0, np.uint64)], [np.empty(0, np.int64)]
    needed = np.full(len(ranks), -1)
    for values, of_rank in repeated_values(folders(parts), "anchors", ranks):
        shared.append(values[np.concatenate([[True], values[1:] != values[:-1]])[: len(values)]])
        first = np.searchsorted(values, values)
        edges.append(np.unique(of_rank[first] << 32 | of_rank))
        np.maximum.at(needed, of_rank, known.ages(values))
    known.add(np.concatenate(shared))
    pairs = np.unique(np.concatenate(edges))
    members, index = np.unique(np.concatenate([pairs >> 32, pairs & 0xFFFFFFFF]), return_inverse=True)
    one, other = np.split(index, 2)
    label = components(one, other, len(members))
    order = np.argsort(label, kind="stable")
    groups = [group for _, group in runs(label[order], members[order])]
    return sorted(groups, key=lambda group: int(group[0])), needed


def _repeats_of_groups(
    groups: Sequence[np.ndarray], covered: RowReader, known: Known, min_words: int, block_words: int
) -> list[Repeats]:
    """Of each group of ranks."""
    rows = [known.rows[group] for group in groups]
    owner = {
        row: (number, rank)
        for number, group in enumerate(groups)
        for row, rank in zip(rows[number].tolist(), group.tolist(), strict=True)
    }
    found = [Repeats() for _ in groups]
    for block_rows, split in _blocks(rows, covered.sizes // 2, block_words):
        if split is not None:
            found[split].is_split = True
        halves = ((row, np.split(covered[row], 2)) for row in block_rows)
        block = [(row, places, hashes) for row, (places, hashes) in halves]
        for row, cut_runs in repeated_words(block, min_words).items():
            number, rank = owner[row]
            found[number].runs[rank] = cut_runs
    return found


def _blocks(
    groups: Sequence[np.ndarray], sizes: np.ndarray, block_words: int
) -> Iterator[tuple[list[int], int | None]]:
    """Rows (sizes [rows], in words) in blocks of whole groups, and the number of the group that a block is split from.

    A group that is too large is split. Rows keep their order within a group; those without words are left out.
    """
    block: list[int] = []
    words = 0
    for number, group in enumerate(groups):
        piece: list[int] = []
        size = 0
        for row in group[sizes[group] > 0].tolist():
            if piece and size + sizes[row] > block_words:
                yield piece, number
                piece, size = [], 0
            piece.append(row)
            size += int(sizes[row])
        if block and words + size > block_words:
            yield block, None
            block, words = [], 0
        block.extend(piece)
        words += size
    if block:
        yield block, None


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
