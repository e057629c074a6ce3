"""Pack documents into rows of a fixed length by best-fit decreasing (Ding et al. 2024, arXiv 2404.10830).

Concatenation cuts a document wherever a row happens to end. Here only documents longer than a row are cut, into full
rows and a rest; every piece then goes, the longest first, into the fullest row that still has space for it.
"""

from bisect import bisect_left, insort
from dataclasses import dataclass

import numpy as np

from sluice.data.packing.report import LayoutCost


@dataclass(frozen=True)
class Rows:
    """Pieces of documents in the order of writing: by row, and by document within a row. Arrays are [pieces]."""

    document: np.ndarray
    start: np.ndarray
    """First token of the piece, counted in its document."""
    length: np.ndarray
    row: np.ndarray
    rows: int


def lay_rows(lengths: np.ndarray, row_tokens: int) -> Rows:
    """Pack documents of `lengths` [documents] tokens into rows of `row_tokens`.

    Rows are in the order of their first documents. The pieces of a document that fill rows precede its rest, which
    shares a row with others.
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
    """Return the row of every piece of `lengths` [pieces], each from 1 to `capacity`, and the number of rows.

    Pieces of equal length keep their order, so the outcome is a function of the input.
    """
    assert not len(lengths) or (lengths.min() >= 1 and lengths.max() <= capacity)
    row_of = np.empty(len(lengths), dtype=np.int64)
    rows = 0
    # Rows by the space left in them, and the sorted distinct spaces: at most `capacity` of them, however many rows.
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
    """Cost of cutting rows from the concatenation of documents of `lengths` [documents], with the last row padded."""
    ends = np.cumsum(lengths)
    total = int(ends[-1]) if len(ends) else 0
    cut = (ends - lengths) // row_tokens != (ends - 1) // row_tokens
    rows = -(-total // row_tokens)
    return LayoutCost(rows=rows, documents_cut=int(cut.sum()), padding=rows * row_tokens - total)
