"""A truncated compressed file yields every complete line before the end, and one reject for the line after."""

import gzip
import json
import random
import tempfile
import zlib
from pathlib import Path

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from sluice.data.document import Document
from sluice.data.sources.formats import read_file
from sluice.data.sources.origin import Limits, Origin, Reject

LIMITS = Limits(1_000_000, 10**10, 200)
ROWS = [json.dumps({"text": f"{n} {random.Random(n).randbytes(30).hex()}"}) + "\n" for n in range(2000)]
CONTENT = "".join(ROWS).encode()


def pack(content: bytes, suffix: str) -> bytes:
    if suffix == "gz":
        return gzip.compress(content, mtime=0)
    # Small blocks, as a stream that is flushed has them.
    packer = zstandard.ZstdCompressor().compressobj()
    blocks = [
        packer.compress(content[start : start + 5000]) + packer.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK)
        for start in range(0, len(content), 5000)
    ]
    return b"".join([*blocks, packer.flush()])


def unpacked(content: bytes, suffix: str) -> bytes:
    """Lines that the format's own library reads from a truncated stream."""
    return (zlib.decompressobj(31) if suffix == "gz" else zstandard.ZstdDecompressor().decompressobj()).decompress(
        content
    )


def read(content: bytes, suffix: str) -> tuple[list[Document], list[Reject]]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"a.jsonl.{suffix}")
        path.write_bytes(content)
        found = list(read_file(path, path.name, Origin("local"), LIMITS))
    return [each for each in found if isinstance(each, Document)], [each for each in found if isinstance(each, Reject)]


PACKED = {suffix: pack(CONTENT, suffix) for suffix in ("gz", "zst")}


@pytest.mark.parametrize("suffix", PACKED)
@settings(deadline=None, max_examples=12)
@given(st.floats(0.001, 0.999))
def test_every_complete_line_before_the_cut_is_a_document(suffix: str, place: float):
    content = PACKED[suffix][: int(place * len(PACKED[suffix]))]
    whole = unpacked(content, suffix).decode().splitlines(keepends=True)
    if whole and not whole[-1].endswith("\n"):
        whole.pop()
    documents, rejects = read(content, suffix)
    assert [document.text for document in documents] == [json.loads(row)["text"] for row in whole]
    name = {"gz": "gzip", "zst": "zstd"}[suffix]
    assert [(each.reason, each.line) for each in rejects] == [(f"damaged {name}", len(whole) + 1)]


@pytest.mark.parametrize("suffix", PACKED)
def test_a_file_cut_in_half_gives_about_half_of_its_lines(suffix: str):
    documents, _ = read(PACKED[suffix][: len(PACKED[suffix]) // 2], suffix)
    assert 900 < len(documents) < 1100


@pytest.mark.parametrize("suffix", PACKED)
def test_content_before_garbage_is_read(suffix: str):
    documents, rejects = read(PACKED[suffix] + b"garbage after the end", suffix)
    assert (len(documents), [each.line for each in rejects]) == (2000, [2001])
    again, rejects = read(PACKED[suffix] * 2, suffix)
    assert (len(again), rejects) == (4000, [])
    longer, rejects = read(pack(CONTENT, suffix) + pack(CONTENT * 6, suffix)[:-1], suffix)
    assert (len(longer), [each.line for each in rejects]) == (14_000, [14_001]), "the sum at the end is not whole"


@pytest.mark.parametrize("place", [0.3, 0.6, 0.95])
def test_a_wrong_byte_loses_no_line_before_it(place: float):
    content = bytearray(PACKED["gz"])
    at = int(place * len(content))
    content[at : at + 40] = bytes(40)
    whole = unpacked(PACKED["gz"][:at], "gz").count(b"\n")
    documents, rejects = read(bytes(content), "gz")
    assert [document.text for document in documents[:whole]] == [json.loads(row)["text"] for row in ROWS[:whole]]
    assert whole > 500
    assert rejects
