"""Ranges of a large file of rows, so that several workers read it, and an interrupted reading does not start again.

Reading the ranges one after the other gives what reading the file gives.
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class FileRange:
    """Some rows of a file."""

    start: int
    end: int
    """Offsets of bytes in a file of lines; numbers of row groups in a Parquet file."""
    first: int
    """Number of its first line or row in the file, from 1."""
    size_bytes: int
    head: bytes = b""
    """The header of a CSV file, which is read before its rows."""


def line_ranges(
    cuts: Sequence[tuple[int, int]], start: int, end: int, first: int, head: bytes = b""
) -> list[FileRange]:
    """Return the ranges between `start` and `end`, offsets in bytes, cut at (offset, number of the line there)."""
    points = [(start, first), *(cut for cut in cuts if cut[0] < end), (end, 0)]
    return [FileRange(at, until, number, until - at, head) for (at, number), (until, _) in pairwise(points)]


def open_range(path: Path, part: FileRange, buffer_bytes: int) -> io.BufferedReader:
    """Open the lines of a range, after its head."""
    return io.BufferedReader(_Lines(path, part), buffer_bytes)


class _Lines(io.RawIOBase):
    def __init__(self, path: Path, part: FileRange) -> None:
        self.file = path.open("rb", buffering=0)
        self.file.seek(part.start)
        self.head, self.left = part.head, part.end - part.start

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if self.head:
            given, self.head = self.head[: len(buffer)], self.head[len(buffer) :]
            buffer[: len(given)] = given
            return len(given)
        count = self.file.readinto(memoryview(buffer)[: self.left]) or 0
        self.left -= count
        return count

    def close(self) -> None:
        self.file.close()
        super().close()
