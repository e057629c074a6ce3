"""The body of an HTTP response in a web archive: chunks joined, every content encoding undone, within a limit."""

import gzip
import http.client
import io
import zlib
from typing import Any, Protocol

from sluice.data.sources.compression import Damaged
from sluice.data.sources.limits import too_large

_SIZE_DIGITS = frozenset(b"0123456789abcdefABCDEF")


class _Headers(Protocol):
    def get_header(self, name: str) -> str | None: ...


def read_body(stream: Any, headers: _Headers, max_bytes: int) -> bytes:
    """Return the decoded body. `stream` is the body as it was sent. Raises Damaged if it is too large or broken."""
    if "chunked" in (headers.get_header("Transfer-Encoding") or "").lower():
        sent = _joined_chunks(stream, max_bytes)
    else:
        sent = _read(stream, max_bytes)
    listed = (headers.get_header("Content-Encoding") or "").lower().split(",")
    for encoding in reversed([each.strip() for each in listed if each.strip() not in ("", "identity")]):
        sent = _decoded(sent, encoding, max_bytes)
    return sent


def _read(stream: Any, max_bytes: int) -> bytes:
    """Read to the end, where a single read may return less."""
    content = bytearray()
    while len(content) <= max_bytes and (block := stream.read(1 << 16)):
        content += block
    if len(content) > max_bytes:
        raise Damaged(too_large(max_bytes))
    return bytes(content)


def _joined_chunks(stream: Any, max_bytes: int) -> bytes:
    """Join the chunks. Some crawlers have joined them already and kept the header."""
    buffered = io.BufferedReader(_Raw(stream))
    first = buffered.peek(16).split(b";")[0].split(b"\r\n")[0].strip()
    if not first or not _SIZE_DIGITS.issuperset(first):
        return _read(buffered, max_bytes)
    # The standard library's reader knows chunk extensions and trailer fields.
    response = http.client.HTTPResponse(_Connection(buffered))  # type: ignore[arg-type]
    response.chunked, response.chunk_left, response.length, response.will_close = True, None, None, True
    try:
        return _read(response, max_bytes)
    except (http.client.HTTPException, ValueError) as error:
        if isinstance(error, Damaged):
            raise
        raise Damaged("ends early") from error


class _Raw(io.RawIOBase):
    def __init__(self, stream: Any) -> None:
        self.stream = stream

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        content = self.stream.read(len(buffer))
        buffer[: len(content)] = content
        return len(content)


class _Connection:
    """Stands for the socket of the response."""

    def __init__(self, stream: io.BufferedReader) -> None:
        self.stream = stream

    def makefile(self, _mode: str) -> io.BufferedReader:
        return self.stream


def _decoded(content: bytes, encoding: str, max_bytes: int) -> bytes:
    """Undo one content encoding. Content that is not encoded so is returned as it is, if its header says otherwise."""
    try:
        match encoding:
            case "gzip" | "x-gzip":
                if not content.startswith(b"\x1f\x8b"):
                    return content
                found = gzip.GzipFile(fileobj=io.BytesIO(content)).read(max_bytes + 1)
            case "deflate":
                try:
                    found = zlib.decompressobj().decompress(content, max_bytes + 1)
                except zlib.error:  # some servers leave out the header
                    found = zlib.decompressobj(-zlib.MAX_WBITS).decompress(content, max_bytes + 1)
            case "br":
                import brotli

                found = brotli.Decompressor().process(content, output_buffer_limit=max_bytes + 1)
            case "zstd":
                import pyarrow

                found = pyarrow.CompressedInputStream(io.BytesIO(content), "zstd").read(max_bytes + 1)
            case _:
                raise Damaged(f"unknown content encoding {encoding[:20]}")
    except Damaged:
        raise
    except Exception as error:  # every decoder has its own errors
        raise Damaged(f"not {encoding} content") from error
    if len(found) > max_bytes:
        raise Damaged(too_large(max_bytes))
    return bytes(found)
