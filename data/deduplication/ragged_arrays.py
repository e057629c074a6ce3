"""Ragged arrays on disk: 64-bit values of each document, in two .npy files that are never in memory as a whole."""

import os
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from types import TracebackType

import numpy as np

from sluice.core.files import naming

_HEADER = {"descr": "<u8", "fortran_order": False}
_OPEN_FILES = 256


def write_column(folder: Path, name: str, rows: Iterable[np.ndarray]) -> None:
    """Write `{name}.npy` and `{name}-offsets.npy` of `rows`, [size] uint64 each, with one in memory at a time.

    An OSError, such as a full disk's, names the file.
    """
    offsets = [0]
    path = folder / f"{name}.npy"
    with naming(path), path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {**_HEADER, "shape": (0,)})
        start = file.tell()
        for row in rows:
            file.write(row.astype("<u8").tobytes())
            offsets.append(offsets[-1] + len(row))
        # numpy pads the header so that the first axis may grow in place.
        file.seek(0)
        np.lib.format.write_array_header_1_0(file, {**_HEADER, "shape": (offsets[-1],)})
        assert file.tell() == start, "the header of a column grew"
    path = folder / f"{name}-offsets.npy"
    with naming(path):
        np.save(path, np.array(offsets, dtype=np.int64))


class RowReader:
    """Reads single rows of one column of several folders.

    Rows are read, not memory-mapped: mapped pages count as the process's memory, and those of a gigabyte of text would
    exceed every limit on it.
    """

    def __init__(self, folders: Sequence[Path], name: str) -> None:
        self._folders, self._name = folders, name
        offsets = [np.load(folder / f"{name}-offsets.npy") for folder in folders]
        self._firsts = np.cumsum([0, *(len(each) - 1 for each in offsets)])
        self._starts = np.concatenate([np.empty(0, np.int64), *(each[:-1] for each in offsets)])
        self.sizes = np.concatenate([np.empty(0, np.int64), *(np.diff(each) for each in offsets)])
        """Number of values of each row, [rows] int64, in the order of the folders."""
        # Descriptor of each open folder, and the offset of its values, after a header that is read once.
        self._open: dict[int, int] = {}
        self._headers: dict[int, int] = {}

    def __enter__(self) -> "RowReader":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for descriptor in self._open.values():
            os.close(descriptor)
        self._open.clear()

    def __getitem__(self, row: int) -> np.ndarray:
        folder = int(np.searchsorted(self._firsts, row, side="right")) - 1
        if folder not in self._open:
            if len(self._open) >= _OPEN_FILES:
                os.close(self._open.pop(next(iter(self._open))))
            with (self._folders[folder] / f"{self._name}.npy").open("rb") as file:
                if folder not in self._headers:
                    np.lib.format.read_magic(file)
                    np.lib.format.read_array_header_1_0(file)
                    self._headers[folder] = file.tell()
                self._open[folder] = os.dup(file.fileno())
        size = 8 * int(self.sizes[row])
        values = os.pread(self._open[folder], size, self._headers[folder] + 8 * int(self._starts[row]))
        if len(values) != size:
            raise ValueError(
                f"{self._folders[folder]} is damaged: {self._name}.npy ends early; delete it and run again"
            )
        return np.frombuffer(values, dtype="<u8")


def repeated_values(
    folders: Sequence[Path], name: str, ranks: np.ndarray, values_at_once: int = 4_000_000
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield the values that occur more than once in a column: (values [n] uint64, ranks of their documents [n] int64).

    Sorted by (value, rank), one range of values at a time, so that about `values_at_once` are in memory, whatever the
    number of documents. `ranks` [documents] int64 orders the documents; those of a negative rank are skipped.
    """
    total = sum(int(np.load(folder / f"{name}-offsets.npy", mmap_mode="r")[-1]) for folder in folders)
    passes = max(-(-total // values_at_once), 1)
    bounds = [(2**64 * number) // passes for number in range(passes + 1)]
    for low, high in pairwise(bounds):
        found, found_ranks = [np.empty(0, np.uint64)], [np.empty(0, np.int64)]
        first = 0
        for folder in folders:
            sizes = np.diff(np.load(folder / f"{name}-offsets.npy"))
            column = np.load(folder / f"{name}.npy")
            rank = np.repeat(ranks[first : first + len(sizes)], sizes)
            wanted = (column >= np.uint64(low)) & (column <= np.uint64(high - 1)) & (rank >= 0)
            found.append(column[wanted])
            found_ranks.append(rank[wanted])
            first += len(sizes)
        assert first == len(ranks), f"{len(ranks)} ranks for {first} documents"
        values, of_rank = np.concatenate(found), np.concatenate(found_ranks)
        order = np.lexsort((of_rank, values))
        values, of_rank = values[order], of_rank[order]
        same = values[1:] == values[:-1]
        repeated = np.concatenate([same, [False]]) | np.concatenate([[False], same]) if len(values) else same
        yield values[repeated], of_rank[repeated]
