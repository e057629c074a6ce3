"""Read the sizes of the pages of a Parquet column from their headers; no value is longer than the largest page."""

from collections.abc import Iterator
from typing import Any, BinaryIO

_HEADER_BYTES = 1 << 9
_MOST_HEADER_BYTES = 1 << 24
"""Arrow's limit: statistics may contain long values."""
_MOST_DEPTH = 8
_UNPACKED, _PACKED = 2, 3
"""Field numbers of a page header."""


def page_sizes(file: BinaryIO, chunk: Any) -> Iterator[int]:
    """Yield the decompressed bytes of each page of a chunk (pyarrow's ColumnChunkMetaData), the dictionary's first.

    Arrow rejects a page whose size differs from its header, but nothing checks the size of the chunk. Raises ValueError
    where there is no page header.
    """
    place = chunk.data_page_offset
    if chunk.has_dictionary_page and 0 < chunk.dictionary_page_offset < place:
        place = chunk.dictionary_page_offset
    end = place + chunk.total_compressed_size
    while place < end:
        header, size = _header(file, place)
        unpacked, packed = header.get(_UNPACKED, -1), header.get(_PACKED, -1)
        if min(unpacked, packed) < 0:
            raise ValueError("a page without a size")
        yield unpacked
        place += size + packed


def _header(file: BinaryIO, place: int) -> tuple[dict[int, int], int]:
    """Return the integers of the page header at this offset by field number, and its size in bytes."""
    size = _HEADER_BYTES
    while True:
        file.seek(place)
        content = file.read(size)
        compact = _Compact(content)
        try:
            return compact.struct(_MOST_DEPTH), compact.place
        except IndexError:
            if len(content) < size or size >= _MOST_HEADER_BYTES:
                raise ValueError("a page header that ends early") from None
        size *= 32


class _Compact:
    """The subset of Thrift's compact protocol that page headers use.

    Raises ValueError for invalid content, IndexError where it ends.
    """

    def __init__(self, content: bytes) -> None:
        self.content, self.place = content, 0

    def struct(self, depth: int) -> dict[int, int]:
        """Read a struct; return its integers by field number and skip everything else."""
        if not depth:
            raise ValueError("nested too deep")
        fields: dict[int, int] = {}
        number = 0
        while head := self._byte():
            number = number + (head >> 4) if head >> 4 else self._integer()
            kind = head & 15
            if kind in {4, 5, 6}:
                fields[number] = self._integer()
            elif kind == 8:
                length = self._varint()
                self.place += length
            elif kind == 12:
                self.struct(depth - 1)
            elif kind in {3, 7}:
                self.place += 1 if kind == 3 else 8
            elif kind not in {1, 2}:  # booleans, whose value is the type
                raise ValueError(f"a field of kind {kind}")
        return fields

    def _byte(self) -> int:
        self.place += 1
        return self.content[self.place - 1]

    def _varint(self) -> int:
        value = shift = 0
        while (byte := self._byte()) & 128:
            value |= (byte & 127) << shift
            shift += 7
            if shift > 63:
                raise ValueError("a number of more than 64 bits")
        return value | byte << shift

    def _integer(self) -> int:
        value = self._varint()
        return value >> 1 ^ -(value & 1)
