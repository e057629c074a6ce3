"""A Parquet file takes memory by its pages, never by how often its rows repeat a value."""

import io
import random
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

import sluice.data.sources.parquet as reader
from sluice.data.document import Document
from sluice.data.sources.formats import read_file
from sluice.data.sources.origin import Limits, Origin
from sluice.data.sources.parquet_pages import page_sizes

LIMITS = Limits(1_000_000, 10**10, 200)
WAYS = [
    {},
    {"use_dictionary": False, "compression": "zstd"},
    {"use_dictionary": False, "column_encoding": {"text": "DELTA_BYTE_ARRAY"}, "compression": "none"},
    {"data_page_version": "2.0", "data_page_size": 100},
    {"write_page_checksum": True, "row_group_size": 7, "write_page_index": True},
]


def sizes(content: bytes) -> list[int]:
    metadata = parquet.ParquetFile(io.BytesIO(content)).metadata
    groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
    return [size for group in groups for size in page_sizes(io.BytesIO(content), group.column(0))]


def written(texts: list[str], **way: Any) -> bytes:
    buffer = io.BytesIO()
    parquet.write_table(pa.table({"text": texts, "n": range(len(texts))}), buffer, **way)
    return buffer.getvalue()


@pytest.mark.parametrize("way", WAYS)
@settings(deadline=None, max_examples=30)
@given(st.lists(st.text(max_size=300), min_size=1, max_size=60))
def test_no_value_is_longer_than_the_largest_page(way: dict[str, Any], texts: list[str]):
    content = written(texts, **way)
    found = sizes(content)
    assert max(len(text.encode()) for text in texts) <= max(found)
    metadata = parquet.ParquetFile(io.BytesIO(content)).metadata
    whole = sum(
        metadata.row_group(number).column(0).total_uncompressed_size for number in range(metadata.num_row_groups)
    )
    # The chunk counts the headers too.
    assert 8 * len(found) <= whole - sum(found) <= 2000 * len(found)


@given(st.binary(max_size=200))
def test_an_invalid_page_header_is_refused(content: bytes):
    chunk = SimpleNamespace(data_page_offset=0, has_dictionary_page=False, total_compressed_size=len(content))
    try:
        assert min(page_sizes(io.BytesIO(content), chunk), default=0) >= 0
    except ValueError:
        assert content


@pytest.mark.parametrize("way", WAYS)
def test_the_rows_are_the_same_however_few_are_read_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: dict[str, Any]
):
    path = tmp_path / "a.parquet"
    path.write_bytes(written([f"{number % 40} words" * (number % 9) for number in range(600)], **way))
    whole = list(read_file(path, path.name, Origin("local"), LIMITS))
    assert sum(isinstance(each, Document) for each in whole) == 533
    monkeypatch.setattr(reader, "_BATCH_BYTES", 1)
    assert list(read_file(path, path.name, Origin("local"), LIMITS)) == whole


def test_a_page_that_is_too_large_to_be_held_is_a_reject(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "a.parquet"
    path.write_bytes(written(["x" * 2000]))
    monkeypatch.setattr(reader, "_MOST_PAGE_BYTES", 1000)
    [reject] = read_file(path, path.name, Origin("local"), LIMITS)
    assert getattr(reject, "reason", None) == "a page larger than 1000 bytes"


@pytest.mark.process
def test_a_long_value_that_rows_repeat_is_never_held_for_all_of_them(tmp_path: Path):
    long = random.Random(1).randbytes(1_000_000).hex()
    entries = pa.array([long, "short"])
    repeated = pa.DictionaryArray.from_arrays(pa.array([0] * 260 + [1], pa.int32()), entries)
    parquet.write_table(pa.table({"text": repeated}), tmp_path / "dictionary.parquet", store_schema=False)
    table = pa.table({"text": [long] * 260 + ["short"]})
    parquet.write_table(
        table, tmp_path / "prefix.parquet", use_dictionary=False, column_encoding={"text": "DELTA_BYTE_ARRAY"}
    )
    script = """
import resource, sys
from collections import Counter
from pathlib import Path
from sluice.data.sources.formats import read_file
from sluice.data.sources.origin import Limits, Origin
base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
found = read_file(Path(sys.argv[1]), sys.argv[1], Origin("local"), Limits(1_000_000, 10**10, 10**6))
print(Counter(getattr(each, "text", None) or each.reason for each in found))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - base)
"""
    for path in sorted(tmp_path.iterdir()):
        assert path.stat().st_size < 3_000_000
        ran = subprocess.run([sys.executable, "-c", script, str(path)], capture_output=True, text=True)
        counted, grown = ran.stdout.splitlines()
        assert counted == "Counter({'larger than 1000000 bytes': 260, 'short': 1})", path.name
        assert int(grown) < 500_000, f"{grown} KB more for {path.name}, whose rows of a batch took over 1 GB"
