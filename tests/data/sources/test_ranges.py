"""Ranges of a file of rows, read one after the other, give what the whole file gives, faults and numbers included."""

import codecs
import csv
import io
import json
import tempfile
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pyarrow import parquet

from sluice.core.manifest import read_manifest
from sluice.data.build import build
from sluice.data.config import IngestConfig, RefineConfig
from sluice.data.document import Document
from sluice.data.report import add_count
from sluice.data.sources import ingest as ingest_module
from sluice.data.sources import parts, units
from sluice.data.sources.formats import ranges_of, read_file
from sluice.data.sources.ingest import IngestReport, ingest
from sluice.data.sources.limits import Limits
from sluice.data.sources.origin import Origin
from sluice.data.sources.parts import DONE, ReadTask
from sluice.data.sources.units import FileUnit

LIMITS = Limits(document_bytes=80, file_bytes=10**6, expansion=200)
WIDE = Limits(document_bytes=10**6, file_bytes=10**8, expansion=200)
ORIGIN = Origin("local", "MIT")

LINES = st.sampled_from(
    [
        b'{"text": "one"}',
        b'{"text": "drei \xe2\x80\x93 zw\xc3\xb6lf", "n": 1}',
        b'\xef\xbb\xbf{"text": "a mark in the middle"}',
        b'{"text": "latin \xe9"}',
        b'{"text": "long", "more": "%s"}' % (b"x" * 100),
        b'{"text": ""}',
        b'{"body": 1}',
        b"{broken",
        b"",
        b"  \t",
    ]
)
CELLS = st.sampled_from(
    [
        b"one",
        b'"two, quoted"',
        b'"a\nb\n\nc"',
        b'5" disk',
        b'"open',
        b'a "b" c',
        b"\xff",
        b"x" * 90,
        b'""',
        b"",
        b"a\rb",
    ]
)


def whole_and_ranges(name: str, content: bytes, size_bytes: int, origin: Origin = ORIGIN) -> tuple[Any, Any, int]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(content)
        whole = FileUnit.of(path, name, origin, chosen=False)
        units = whole.split(LIMITS, size_bytes)
        return list(whole.read(LIMITS)), [each for unit in units for each in unit.read(LIMITS)], len(units)


@given(
    st.lists(LINES, max_size=12),
    st.sampled_from([b"\n", b"\r\n"]),
    st.booleans(),
    st.sampled_from([b"", codecs.BOM_UTF8]),
    st.sampled_from(["a.jsonl", "a.json"]),
    st.integers(1, 200),
)
@example([b""] * 9, b"\n", True, b"", "a.jsonl", 2)
def test_lines(content: list[bytes], end: bytes, ends: bool, mark: bytes, name: str, size_bytes: int) -> None:
    joined = mark + end.join(content) + (end if ends else b"")
    whole, ranges, _ = whole_and_ranges(name, joined, size_bytes)
    assert ranges == whole


@given(
    st.lists(st.lists(CELLS, min_size=1, max_size=3), max_size=8),
    st.booleans(),
    st.sampled_from([b"", codecs.BOM_UTF8]),
    st.sampled_from([b"n,text", b'"n",text', b'"two\nlines",text', b"text", b"n,body", b'"n, text', b"\xff,text"]),
    st.integers(1, 100),
)
def test_csv(rows: list[list[bytes]], ends: bool, mark: bytes, header: bytes, size_bytes: int) -> None:
    content = mark + b"\n".join([header, *(b",".join(row) for row in rows)]) + (b"\n" if ends else b"")
    whole, ranges, _ = whole_and_ranges("a.csv", content, size_bytes)
    assert ranges == whole


@given(
    st.lists(st.lists(st.sampled_from(["one", "zwölf", "", None, "x" * 100]), max_size=4), max_size=5),
    st.booleans(),
    st.integers(1, 300),
)
def test_row_groups(groups: list[list[str | None]], damaged: bool, size_bytes: int) -> None:
    buffer = io.BytesIO()
    schema = pa.schema([("text", pa.string()), ("n", pa.int64())])
    with parquet.ParquetWriter(buffer, schema, compression="zstd") as writer:
        for number, texts in enumerate(groups):
            writer.write_table(pa.table({"text": texts, "n": [number] * len(texts)}, schema), row_group_size=10)
    content = bytearray(buffer.getvalue())
    if damaged and len(groups) > 1 and groups[1]:
        place = parquet.ParquetFile(buffer).metadata.row_group(1).column(0).data_page_offset
        content[place : place + 8] = b"\xff" * 8
    whole, ranges, _ = whole_and_ranges("a.parquet", bytes(content), size_bytes)
    assert ranges == whole


ROWS = [json.dumps({"text": f"the text of row {number}, which is not short", "n": number}) for number in range(40)]


def as_csv(quote: bool) -> bytes:
    buffer = io.StringIO()
    rows = [[n, f"text of row {n}\nin two lines, quoted" if quote else f"text of row {n}"] for n in range(40)]
    csv.writer(buffer).writerows([["n", "text"], *rows])
    return buffer.getvalue().encode()


def as_parquet() -> bytes:
    buffer = io.BytesIO()
    parquet.write_table(pa.Table.from_pylist([json.loads(row) for row in ROWS]), buffer, row_group_size=5)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("name", "content", "cut"),
    [
        ("a.jsonl", "\n".join(ROWS).encode(), True),
        ("a.json", "\n".join(ROWS).encode(), True),
        ("a.csv", as_csv(True), True),
        ("a.csv", as_csv(False), True),
        ("a.parquet", as_parquet(), True),
        ("a.json", f"[{','.join(ROWS)}]".encode(), False),
        ("a.jsonl", "\n".join(ROWS).encode("utf-16"), False),
        ("a.jsonl", "\n".join([*ROWS, '{"text": "größer, später, früher"}']).encode("cp1252"), False),
        ("a.txt", "\n".join(ROWS).encode(), False),
    ],
)
def test_what_is_cut_into_ranges(name: str, content: bytes, cut: bool) -> None:
    whole, ranges, number = whole_and_ranges(name, content, 200)
    assert ranges == whole
    assert (number > 1) == cut
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{name}.gz"
        path.write_bytes(content)
        assert ranges_of(path, path.name, ORIGIN, LIMITS, 100, chosen=False) == [], "what is compressed is one part"


@pytest.fixture
def large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file of many parts, a fourth of its lines being rejects, and a folder of small files around it."""
    folder = tmp_path / "source"
    folder.mkdir()
    lines = [row if number % 4 else f"{{broken {number}" for number, row in enumerate(ROWS * 4)]
    (folder / "m.jsonl").write_text("\n".join(lines))
    (folder / "a.txt").write_text("before it")
    (folder / "z.txt").write_text("after it")
    monkeypatch.setattr(parts, "PART_BYTES", 1000)
    monkeypatch.setattr(ingest_module, "SPLIT_BYTES", 2000)
    return folder


def read(source: Path, out: Path, **options: Any) -> tuple[dict[str, Any], bytes, bytes]:
    """Return the report, the lines of all documents, and the rejects."""
    out.mkdir()
    report: IngestReport = ingest(IngestConfig(sources=str(source), workers=1), out, **options)
    documents = b"".join(path.read_bytes() for path in sorted(out.glob("documents-*.jsonl")))
    return report.model_dump(exclude={"timings"}), documents, (out / "rejects.csv").read_bytes()


def test_the_parts_do_not_change_what_is_read(large: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(ingest_module, "SPLIT_BYTES", 10**9)
        whole = read(large, tmp_path / "whole")
    for size_bytes in (70, 400, 1000, 5000):
        monkeypatch.setattr(parts, "PART_BYTES", size_bytes)
        assert read(large, tmp_path / str(size_bytes)) == whole


def interrupting(after: int, seen: list[int]) -> Callable[..., list[Any]]:
    """Return an executor that stops after some parts, and notes those that it reads."""

    def run(function: Any, tasks: list[ReadTask], *, note: str, **_: Any) -> list[Any]:
        results = []
        for task in tasks:
            if note == "read" and len(seen) == after:
                raise KeyboardInterrupt
            if note == "read" and not (task.folder / DONE).is_file():
                seen.append(task.number)
            results.append(function(task))
        return results

    return run


def test_an_interrupted_reading_of_one_file_goes_on_in_it(large: Path, tmp_path: Path) -> None:
    undisturbed = read(large, tmp_path / "undisturbed")
    first, second = [], []  # type: list[int], list[int]
    with pytest.raises(KeyboardInterrupt):
        read(large, tmp_path / "half", work=tmp_path / "work", executor=interrupting(5, first))
    assert read(large, tmp_path / "out", work=tmp_path / "work", executor=interrupting(99, second)) == undisturbed
    assert (len(first), len(second)) == (5, 3)
    assert set(first).isdisjoint(second)


def test_a_build_has_the_same_hash_for_any_parts(large: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refine = RefineConfig(workers=1, min_words=2, min_stop_words=None, max_control_character_fraction=None)
    hashes = []
    for size_bytes in (300, 1000, 10**9):
        monkeypatch.setattr(parts, "PART_BYTES", size_bytes)
        build(IngestConfig(sources=str(large), workers=1), refine, tmp_path / str(size_bytes))
        hashes.append(read_manifest(tmp_path / str(size_bytes))["files"])
    assert hashes[0] == hashes[1] == hashes[2]


@given(st.lists(st.sampled_from("abcdefgh."), max_size=40), st.lists(st.integers(0, 40), max_size=4))
def test_counts_of_many_names_do_not_depend_on_the_parts(names: list[str], cuts: list[int]) -> None:
    def counted(names: list[str]) -> IngestReport:
        report = IngestReport()
        for name in names:
            add_count(report.fields, name)
        return report

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("sluice.data.report._MOST_NAMES", 3)
        edges = [0, *sorted(cuts), len(names)]
        merged = IngestReport.merged([counted(names[start:end]) for start, end in pairwise(edges)])
        assert merged == IngestReport.merged([counted(names)])
        assert sum(merged.fields.values()) == len(names)
        assert len(merged.fields) <= 4


def _cut_off(path: Path) -> None:
    with path.open("rb+") as file:
        file.truncate(path.stat().st_size - 10)


def _rewritten(path: Path) -> None:
    other = path.with_suffix(".other")
    other.write_bytes(b"x" * path.stat().st_size)
    other.replace(path)


def _appended(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b'{"text": "half of')


@pytest.mark.parametrize("change", [_cut_off, _rewritten, _appended])
def test_a_file_changed_while_it_is_read_is_a_reject_by_name_without_half_rows(
    tmp_path: Path, change: Callable[[Path], None]
) -> None:
    rows = [{"text": f"row {number} " + "y" * 60} for number in range(10_000)]
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    whole = FileUnit.of(path, "a.jsonl", ORIGIN, chosen=False)
    first, second = whole.split(WIDE, path.stat().st_size // 2)
    reading = whole.read(WIDE)
    begun = [next(reading) for _ in range(3)]
    change(path)
    *read, last = [*begun, *reading]
    assert (last.path, last.reason) == ("a.jsonl", "changed while it was read")
    assert [each.text for each in read if isinstance(each, Document)] == [row["text"] for row in rows[: len(read)]]
    # Where a range of it begins is no longer known.
    assert [each.reason for each in second.read(WIDE)] == ["changed while it was read"]
    assert [each.reason for each in first.read(WIDE)] == ["changed while it was read"]


def test_a_text_changed_while_it_is_read_is_no_document(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.txt"
    path.write_text("A whole text.\n")

    def then_replaced(*arguments: Any, **options: Any) -> Any:
        yield from read_file(*arguments, **options)
        path.write_text("Another text.\n")

    monkeypatch.setattr(units, "read_file", then_replaced)
    [only] = FileUnit.of(path, "a.txt", ORIGIN, chosen=False).read(LIMITS)
    assert only.reason == "changed while it was read"
