"""Bounded reading: a stream that stops decompression bombs, and lines that never take more memory than their limit."""

import gzip
import io
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any

from sluice.data.sources.limits import Limits, too_large

PACKINGS = {".gz": "gzip", ".zst": "zstd"}
_FREE_BYTES = 1_000_000
"""Decompressed size up to which any expansion is allowed."""
_BUFFER_BYTES = 1 << 18
_DAMAGES = (OSError, EOFError, zlib.error, ValueError)


class Damaged(ValueError):
    """A file that cannot be read further; the message is the reason, `line` the line number if known."""

    def __init__(self, reason: str, line: int | None = None) -> None:
        super().__init__(reason)
        self.line = line


@contextmanager
def open_stream(path: Path, limits: Limits, packing: str | None = None) -> Iterator[io.BufferedReader]:
    """Open the file's decompressed bytes. `packing` is gzip, zstd or None.

    Reading raises Damaged for truncated or otherwise broken compression, for more than `limits.file_bytes`, and for
    more than `limits.expansion` times the compressed bytes.
    """
    with ExitStack() as stack:
        packed = stack.enter_context(path.open("rb"))
        yield stack.enter_context(io.BufferedReader(_Bounded(packed, packing, limits), _BUFFER_BYTES))


def _unpacked(packed: IO[bytes], packing: str | None) -> Any:
    if packing == "gzip":
        return gzip.GzipFile(fileobj=packed)
    if packing == "zstd":
        import pyarrow

        # The zstandard package's reader accepts a truncated frame; Arrow's does not.
        return pyarrow.CompressedInputStream(packed, "zstd")
    return packed


class _Bounded(io.RawIOBase):
    def __init__(self, packed: IO[bytes], packing: str | None, limits: Limits) -> None:
        self.packed, self.packing, self.limits = packed, packing, limits
        self.unpacked = _unpacked(packed, packing)
        self.given = 0
        self.damage: Exception | None = None

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        content = b""
        if self.damage is None:
            try:
                content = self.unpacked.read(len(buffer))
            except _DAMAGES as error:
                self.damage = _of_content(error)
                content = self._before_damage()
        if self.damage is not None and not content:
            raise Damaged(f"damaged {self.packing or 'file'}") from self.damage
        self.given += len(content)
        if self.given > self.limits.file_bytes:
            raise Damaged(f"{too_large(self.limits.file_bytes)} as a whole")
        if self.packing and self.given > max(_FREE_BYTES, self.limits.expansion * self.packed.tell()):
            raise Damaged(f"expands more than {self.limits.expansion:g} times")
        buffer[: len(content)] = content
        return len(content)

    def _before_damage(self) -> bytes:
        """Return the intact bytes after those returned so far. A failed read returns nothing, so the file is read
        again, a byte at a time from that position.
        """
        found = bytearray()
        with Path(self.packed.name).open("rb") as packed:
            unpacked = _unpacked(packed, self.packing)
            # gzip's `read` would fill a buffer first, and fail.
            read = unpacked.read1 if self.packing == "gzip" else unpacked.read
            try:
                passed = 0
                while passed < self.given:
                    passed += len(unpacked.read(min(_BUFFER_BYTES, self.given - passed)))
                while byte := read(1):
                    found += byte
            except _DAMAGES as error:
                _of_content(error)
        return bytes(found)


def _of_content(error: Exception) -> Exception:
    """Return an error of the content; raise one of the disk, which has an errno, unlike those of decompressors."""
    if isinstance(error, OSError) and error.errno is not None:
        raise error
    return error


def lines(stream: IO[bytes], max_bytes: int, first: int = 1) -> Iterator[tuple[int, bytes | None]]:
    """Yield (number, line); None for a line of more than `max_bytes`, which is skipped without keeping it.

    Raises Damaged, with the number of the current line, where the stream breaks.
    """
    number = first
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
