"""Bounded reading: a stream that stops a decompression bomb, and lines that are never held beyond their limit."""

import gzip
import io
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any

from data.sources.records import Limits, too_large

PACKINGS = {".gz": "gzip", ".zst": "zstd"}
_FREE_BYTES = 1_000_000
"""A small file may expand as it likes."""
_BUFFER_BYTES = 1 << 18


class Damaged(ValueError):
    """A file whose content cannot be read on; the message is the reason, `line` the place where it is known."""

    def __init__(self, reason: str, line: int | None = None) -> None:
        super().__init__(reason)
        self.line = line


@contextmanager
def open_stream(path: Path, limits: Limits, packing: str | None = None) -> Iterator[io.BufferedReader]:
    """The file's decompressed bytes. `packing` is gzip, zstd or None.

    Reading raises Damaged for truncated or otherwise broken compression, for more than `limits.file_bytes`, and for
    more than `limits.expansion` times the compressed bytes.
    """
    with ExitStack() as stack:
        packed = stack.enter_context(path.open("rb"))
        unpacked: Any = packed
        if packing == "gzip":
            unpacked = stack.enter_context(gzip.GzipFile(fileobj=packed))
        elif packing == "zstd":
            import pyarrow

            # The zstandard package's reader takes a truncated frame for a whole one; Arrow's does not.
            unpacked = stack.enter_context(pyarrow.CompressedInputStream(packed, "zstd"))
        yield stack.enter_context(io.BufferedReader(_Bounded(unpacked, packed, packing, limits), _BUFFER_BYTES))


class _Bounded(io.RawIOBase):
    def __init__(self, unpacked: Any, packed: IO[bytes], packing: str | None, limits: Limits) -> None:
        self.unpacked, self.packed, self.packing, self.limits = unpacked, packed, packing, limits
        self.given = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            content = self.unpacked.read(len(buffer))
        except (OSError, EOFError, zlib.error, ValueError) as error:
            # The disk's own errors have a number, the decompressors' have none.
            if isinstance(error, OSError) and error.errno is not None:
                raise
            raise Damaged(f"damaged {self.packing or 'file'}") from error
        self.given += len(content)
        if self.given > self.limits.file_bytes:
            raise Damaged(f"{too_large(self.limits.file_bytes)} as a whole")
        if self.packing and self.given > max(_FREE_BYTES, self.limits.expansion * self.packed.tell()):
            raise Damaged(f"expands more than {self.limits.expansion:g} times")
        buffer[: len(content)] = content
        return len(content)


def lines(stream: io.BufferedReader, max_bytes: int) -> Iterator[tuple[int, bytes | None]]:
    """(number from 1, line) of the stream; None for a line of more than `max_bytes`, which is passed over unheld.

    Damaged, with the number of the line that was begun, where the stream breaks.
    """
    number = 1
    try:
        while line := stream.readline(max_bytes + 1):
            if len(line) <= max_bytes or line.endswith(b"\n"):
                yield number, line
            else:
                while (rest := stream.readline(_BUFFER_BYTES)) and not rest.endswith(b"\n"):
                    pass
                yield number, None
            number += 1
    except Damaged as damage:
        raise Damaged(str(damage), number) from damage
