"""Documents into rows of a fixed length by best-fit decreasing (Ding et al. 2024, arXiv 2404.10830).

Concatenation cuts a document wherever a row happens to end. Here only a document longer than a row is cut, into full
rows and a rest; every piece then goes, the longest first, into the row with the least space that still holds it.
"""

from bisect import bisect_left, insort
from dataclasses import dataclass

import numpy as np

from sluice.data.packing.report import LayoutCost


@dataclass(frozen=True)
class Rows:
    """Pieces of documents in the order they are written: by row, and by document within a row. Arrays are [pieces]."""

    document: np.ndarray
    start: np.ndarray
    """Token of the document where the piece starts."""
    length: np.ndarray
    row: np.ndarray
    rows: int


def lay_rows(lengths: np.ndarray, row_tokens: int) -> Rows:
    """Lay documents of `lengths` [documents] tokens into rows of `row_tokens`.

    Rows come in the order of the first document in them. A document's pieces that fill a row each precede its rest,
    which shares a row with others.
    """
    counts = -(-lengths // row_tokens)
    document = np.repeat(np.arange(len(lengths)), counts)
    number = np.arange(len(document)) - np.repeat(np.cumsum(counts) - counts, counts)
    start = number * row_tokens
    length = np.minimum(lengths[document] - start, row_tokens)
    row, rows = best_fit(length, row_tokens)
    first = np.full(rows, len(document))
    np.minimum.at(first, row, np.arange(len(document)))
    row = np.argsort(np.argsort(first))[row]
    order = np.argsort(row, kind="stable")
    return Rows(document[order], start[order], length[order], row[order], rows)


def best_fit(lengths: np.ndarray, capacity: int) -> tuple[np.ndarray, int]:
    """Row [pieces] of every piece of `lengths` [pieces], each from 1 to `capacity`, and the number of rows.

    Equal lengths go in the order given, so the outcome is a function of the input.
    """
    assert not len(lengths) or (lengths.min() >= 1 and lengths.max() <= capacity)
    row_of = np.empty(len(lengths), dtype=np.int64)
    rows = 0
    # Rows by the space left in them, and those spaces in order: at most `capacity` of them, however many rows.
    rows_with: dict[int, list[int]] = {}
    spaces: list[int] = []
    order = np.argsort(-lengths, kind="stable")
    for piece, length in zip(order.tolist(), lengths[order].tolist(), strict=True):
        place = bisect_left(spaces, length)
        if place == len(spaces):
            row, space, rows = rows, capacity, rows + 1
        else:
            space = spaces[place]
            row = rows_with[space].pop()
            if not rows_with[space]:
                del spaces[place]
        row_of[piece] = row
        if left := space - length:
            waiting = rows_with.setdefault(left, [])
            if not waiting:
                insort(spaces, left)
            waiting.append(row)
    return row_of, rows


def best_fit_cost(rows: Rows, row_tokens: int) -> LayoutCost:
    cut = np.unique(rows.document[rows.start > 0])
    padding = rows.rows * row_tokens - int(rows.length.sum())
    return LayoutCost(rows=rows.rows, documents_cut=len(cut), padding=padding)


def concatenated_cost(lengths: np.ndarray, row_tokens: int) -> LayoutCost:
    """Of rows cut one after the other from the concatenation of documents of `lengths` [documents], the last filled."""
    ends = np.cumsum(lengths)
    total = int(ends[-1]) if len(ends) else 0
    cut = (ends - lengths) // row_tokens != (ends - 1) // row_tokens
    rows = -(-total // row_tokens)
    return LayoutCost(rows=rows, documents_cut=int(cut.sum()), padding=rows * row_tokens - total)
