"""Every format, plain and compressed, gives its texts; every fault of a file is a reject that names its place."""

import gzip
import io
import json
import random
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet
from warcio.statusandheaders import StatusAndHeaders
from warcio.warcwriter import WARCWriter

from sluice.data.document import Document
from sluice.data.sources.compression import Damaged, lines, open_stream
from sluice.data.sources.formats import kind, read_file
from sluice.data.sources.origin import Limits, Origin, Reject

LIMITS = Limits(document_bytes=10_000, file_bytes=10**9, expansion=200)
ORIGIN = Origin("local", "MIT")
TEXTS = ["one", 'two, "quoted"\nand more', "drei – zwölf\u2028x"]


def read(path: Path, limits: Limits = LIMITS, origin: Origin = ORIGIN) -> tuple[list[Document], list[Reject]]:
    found = list(read_file(path, path.name, origin, limits))
    return [each for each in found if isinstance(each, Document)], [each for each in found if isinstance(each, Reject)]


def faults(path: Path, limits: Limits = LIMITS) -> list[tuple[str, int | None]]:
    return [(reject.reason, reject.line) for reject in read(path, limits)[1]]


def stored(path: Path, content: bytes) -> Path:
    pack = {".gz": gzip.compress, ".zst": zstandard.ZstdCompressor().compress}.get(path.suffix, bytes)
    path.write_bytes(pack(content))
    return path


def quoted(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'


def table(separator: str) -> bytes:
    rows = [f"{number}{separator}{quoted(text)}" for number, text in enumerate(TEXTS)]
    return "\r\n".join([f"n{separator}text", *rows, ""]).encode()


def parquet_bytes(columns: dict[str, pa.Array]) -> bytes:
    buffer = io.BytesIO()
    parquet.write_table(pa.table(columns), buffer, row_group_size=2)
    return buffer.getvalue()


@pytest.mark.parametrize("packing", ["", ".gz", ".zst"])
@pytest.mark.parametrize(
    ("name", "content", "numbers"),
    [
        ("a.jsonl", "".join(json.dumps({"text": text}) + "\n" for text in TEXTS).encode(), [1, 2, 3]),
        ("a.NDJSON", "\n\n".join(json.dumps({"text": text}) for text in TEXTS).encode(), [1, 3, 5]),
        ("a.csv", table(","), [2, 3, 5]),
        ("a.tsv", b"\xef\xbb\xbf" + table("\t"), [2, 3, 5]),
    ],
)
def test_rows_come_back_as_they_were_written(
    tmp_path: Path, name: str, content: bytes, numbers: list[int], packing: str
):
    documents, rejects = read(stored(tmp_path / f"{name}{packing}", content))
    assert ([document.text for document in documents], rejects) == (TEXTS, [])
    assert [document.metadata["path"] for document in documents] == [f"{name}{packing}:{n}" for n in numbers]
    fields = {"fields": {"n": "0"}} if "csv" in name or "tsv" in name else {}
    assert documents[0].metadata | {"path": ""} == fields | {
        "source": "local",
        "licence": "MIT",
        "title": Path(f"{name}{packing}:1").stem,
        "markup": "raw",
        "path": "",
    }


@pytest.mark.parametrize("packing", ["", ".gz", ".zst"])
@pytest.mark.parametrize(("suffix", "markup"), [("txt", "txt"), ("md", "md"), ("rst", "rst"), ("htm", "html")])
def test_a_text_file_is_one_document(tmp_path: Path, suffix: str, markup: str, packing: str):
    documents, rejects = read(stored(tmp_path / f"a.{suffix}{packing}", "\ufeffgrün\r\n".encode()))
    assert ([document.text for document in documents], rejects) == (["grün\r\n"], [])
    assert documents[0].metadata["markup"] == markup


@pytest.mark.parametrize("kind_of_text", [pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())])
def test_parquet_gives_a_document_a_row(tmp_path: Path, kind_of_text: pa.DataType):
    texts = pa.array([*TEXTS, None, "x" * 10_001], pa.string()).cast(kind_of_text)
    path = stored(tmp_path / "a.parquet", parquet_bytes({"id": pa.array(range(5)), "text": texts}))
    documents, rejects = read(path)
    assert [document.text for document in documents] == TEXTS
    assert documents[2].metadata["path"] == "a.parquet:3"
    assert [(each.reason, each.line) for each in rejects] == [("empty", 4), ("larger than 10000 bytes", 5)]


def test_parquet_of_another_schema_names_its_columns(tmp_path: Path):
    path = stored(tmp_path / "a.parquet", parquet_bytes({"body": pa.array(["a"]), "url": pa.array(["b"])}))
    assert faults(path) == [("no text column `text`; columns: body, url; set data.text_field", None)]
    assert read(path, origin=Origin("local", text_field="body"))[0][0].text == "a"
    stored(path, parquet_bytes({"text": pa.array([1, 2])}))
    assert faults(path) == [("column `text` is int64, not a string", None)]


def test_parquet_with_columns_of_one_name_is_read_without_them(tmp_path: Path):
    def table(*names: str) -> Path:
        buffer = io.BytesIO()
        parquet.write_table(pa.table([pa.array([f"{place}"]) for place, _ in enumerate(names)], names=names), buffer)
        return stored(tmp_path / "a.parquet", buffer.getvalue())

    documents, rejects = read(table("text", "a", "a", "b"))
    assert ([each.text for each in documents], rejects) == (["0"], [])
    assert documents[0].metadata["fields"] == {"b": "3"}
    assert documents[0].metadata["left_out"] == ["a"]
    assert faults(table("text", "text")) == [("several columns are named `text`: rename all but one", None)]


def test_damaged_parquet_gives_what_it_can_and_one_reject(tmp_path: Path):
    whole = parquet_bytes({"text": pa.array(TEXTS)})
    for content in (whole[: len(whole) // 2], b"PAR1", b"not parquet at all"):
        assert faults(stored(tmp_path / "a.parquet", content)) == [("damaged Parquet", None)]
    wrong = pa.array([b"good", b"\xff\xfe", b"fine"]).view(pa.string())
    documents, rejects = read(stored(tmp_path / "b.parquet", parquet_bytes({"text": wrong})))
    assert [document.text for document in documents] == ["good", "fine"]
    assert [(each.reason, each.line) for each in rejects] == [("not UTF-8 text", 2)]


def test_csv_faults_name_their_line_and_the_rest_is_read(tmp_path: Path):
    content = b"id,text\n1,good\n2\n3,\xff\n4,fine\n" + b"5," + b"y" * 10_001 + b"\n6,last\n7,\n"
    documents, rejects = read(stored(tmp_path / "a.csv", content))
    assert [document.text for document in documents] == ["good", "fine", "last"]
    assert [(each.line, each.reason) for each in rejects] == [
        (3, "row has another number of fields than the header"),
        (4, "not UTF-8 text, perhaps cp1251: set encoding=cp1251 to read it so"),
        (6, "larger than 10000 bytes"),
        (8, "empty"),
    ]
    assert faults(stored(tmp_path / "b.csv", b"a,b\n1,2\n")) == [("no text column `text`: set data.text_field", None)]
    assert faults(stored(tmp_path / "d.csv", b"text,text\n1,2\n")) == [
        ("several columns are named `text`: rename all but one", None)
    ]
    documents, rejects = read(stored(tmp_path / "e.tsv", b'id\ttext\n1\tgood\n2\t"open\n3\tnext\n'))
    assert [document.text for document in documents] == ["good"]
    assert [(each.line, each.reason) for each in rejects] == [(3, "quote is not closed")]
    open_quote = b'text\ngood\n"never closed\n' + b"line after line\n" * 1000
    documents, rejects = read(stored(tmp_path / "c.csv", open_quote))
    assert documents[0].text == "good"
    assert ("row is not CSV", 3) in [(each.reason, each.line) for each in rejects]


@pytest.mark.parametrize("name", ["a.csv", "a.tsv"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_a_table_is_read_whatever_its_delimiter(tmp_path: Path, name: str, delimiter: str):
    content = f'id{delimiter}text\r\n1{delimiter}"a,b;c\td"\r\n'
    documents, rejects = read(stored(tmp_path / name, content.encode()))
    assert ([document.text for document in documents], rejects) == (["a,b;c\td"], [])


def warc(pages: list[tuple[str, str, str, bytes]]) -> bytes:
    buffer = io.BytesIO()
    writer = WARCWriter(buffer, gzip=False)
    writer.write_record(writer.create_warcinfo_record("a.warc", {"software": "test"}))
    for address, status, kind_of_page, body in pages:
        headers = StatusAndHeaders(status, [("Content-Type", kind_of_page)], protocol="HTTP/1.1")
        writer.write_record(
            writer.create_warc_record(address, "request", payload=io.BytesIO(b""), http_headers=headers)
        )
        writer.write_record(
            writer.create_warc_record(address, "response", payload=io.BytesIO(body), http_headers=headers)
        )
    return buffer.getvalue()


PAGES = [
    (
        "https://u:secret@example.org/a?key=secret",
        "200 OK",
        "text/html; charset=latin-1",
        "<p>grün</p>".encode("latin-1"),
    ),
    ("https://example.org/b", "200 OK", "text/html", b'<meta charset="utf-16"><p>x</p>'),
    ("https://example.org/c.png", "200 OK", "image/png", b"\x89PNG"),
    ("https://example.org/d", "404 Not Found", "text/html", b"<p>gone</p>"),
    ("https://example.org/e", "200 OK", "text/html", b"<p>" + b"x" * 10_000),
    ("https://example.org/f", "200 OK", "Text/HTML", "<p>schön</p>".encode()),
]


@pytest.mark.parametrize("packing", ["", ".gz", ".zst"])
def test_a_web_archive_gives_its_pages(tmp_path: Path, packing: str):
    documents, rejects = read(stored(tmp_path / f"a.warc{packing}", warc(PAGES)))
    assert [document.text for document in documents] == ["<p>grün</p>", "<p>schön</p>"]
    assert documents[0].metadata["path"] == f"a.warc{packing}:https://example.org/a"
    assert documents[0].metadata["markup"] == "html"
    assert [each.reason for each in rejects] == [
        "not text in the charset it names",
        "not a page of HTML or a plain text",
        "HTTP status 404",
        "larger than 10000 bytes",
    ]


def test_a_web_archive_that_ends_early_or_is_none_is_a_reject(tmp_path: Path):
    whole = warc(PAGES[-1:])
    documents, rejects = read(stored(tmp_path / "a.warc", whole[:-12]))
    assert (documents, [each.reason for each in rejects]) == ([], ["ends early"])
    assert faults(stored(tmp_path / "b.warc", b"no archive\n" * 9)) == [("damaged WARC", None)]
    assert faults(stored(tmp_path / "c.warc.gz", warc([]))) == [("no response record", None)]


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_truncated_compression_gives_the_lines_before_it_and_one_reject_with_its_line(tmp_path: Path, suffix: str):
    rows = [json.dumps({"text": f"{n} {random.Random(n).randbytes(300).hex()}"}) + "\n" for n in range(4000)]
    path = stored(tmp_path / f"a.jsonl{suffix}", "".join(rows).encode())
    path.write_bytes(path.read_bytes()[:-1000])
    documents, rejects = read(path)
    assert 1000 < len(documents) < 4000
    assert [each.reason.split()[0] for each in rejects] == ["damaged"]
    assert rejects[0].line == len(documents) + 1
    path.write_bytes(b"never compressed\n" * 99)
    assert faults(path)[0][0].startswith("damaged ")


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_a_bomb_is_stopped_early(tmp_path: Path, suffix: str):
    path = stored(tmp_path / f"a.jsonl{suffix}", b'{"text": "x"}\n' * 200_000)
    bound = Limits(10_000, 10**9, expansion=20)
    documents, rejects = read(path, bound)
    assert [each.reason for each in rejects] == ["expands more than 20 times"]
    assert len(documents) < 200_000
    with open_stream(path, bound, kind(path.name)[1]) as stream, pytest.raises(Damaged):
        while stream.read(1000):
            pass
    [(reason, line)] = faults(path, Limits(10_000, 2_000_000, 10**6))
    assert reason == "larger than 2000000 bytes as a whole"
    assert line is not None
    assert 100_000 < line <= 142_858
    small = stored(tmp_path / f"b.txt{suffix}", b"x" * 9_000)
    assert faults(small) == [], "a small file may expand as it likes"


@pytest.mark.process
def test_a_line_beyond_the_limit_is_one_reject_and_is_never_held(tmp_path: Path):
    path = tmp_path / "a.jsonl"
    with path.open("wb") as file:
        file.write(b'{"text": "before"}\n')
        file.seek(1_000_000_000, io.SEEK_CUR)  # a hole of zeros
        file.write(b'\n{"text": "after"}\n')
    packed = tmp_path / "b.jsonl.gz"
    with gzip.open(packed, "wb", compresslevel=1) as out:
        out.write(b'{"text": "before"}\n')
        for _ in range(200):
            out.write(bytes(1_000_000))
        out.write(b'\n{"text": "after"}\n')
    script = """
import resource, sys
from pathlib import Path
from sluice.data.sources.formats import read_file
from sluice.data.sources.origin import Limits, Origin
base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for name in sys.argv[1:]:
    found = list(read_file(Path(name), name, Origin("local"), Limits(1_000_000, 10**10, 10**6)))
    print([getattr(each, "text", None) or (each.reason, each.line) for each in found])
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - base)
"""
    ran = subprocess.run([sys.executable, "-c", script, str(path), str(packed)], capture_output=True, text=True)
    first, second, grown = ran.stdout.splitlines()
    assert first == second == "['before', ('larger than 1000000 bytes', 2), 'after']"
    assert int(grown) < 30_000, f"{grown} KB more for a line of 1 GB"


@given(st.lists(st.binary(max_size=12).map(lambda line: line.replace(b"\n", b"")), max_size=8), st.integers(1, 9))
def test_lines_are_those_of_the_file_less_the_long_ones(contents: list[bytes], limit: int):
    stream = io.BufferedReader(io.BytesIO(b"\n".join(contents)), 4)  # type: ignore[arg-type]
    expected = [line if len(line) <= limit else None for line in contents]
    if expected and contents[-1] == b"":
        expected.pop()
    found = list(lines(stream, limit))
    assert [number for number, _ in found] == list(range(1, len(expected) + 1))
    assert [line if line is None else line.removesuffix(b"\n") for _, line in found] == expected


def test_json_lines_that_are_not_utf8_or_too_deep_are_rejects_of_their_own(tmp_path: Path):
    rows = [b'\xef\xbb\xbf{"text": "one"}', b'{"text": "\xff"}', b"[" * 5000, b'{"text": "two"}', b'{"text": ""}']
    documents, rejects = read(stored(tmp_path / "a.jsonl", b"\n".join(rows)))
    assert [document.text for document in documents] == ["one", "two"]
    assert [(each.line, each.reason) for each in rejects] == [
        (2, "not UTF-8 text"),
        (3, "line is not a JSON object"),
        (5, "empty"),
    ]


@pytest.mark.parametrize("name", ["a.txt", "a.jsonl", "a.csv", "a.parquet", "a.warc", "a.md.gz", "a.jsonl.zst"])
def test_an_empty_file_is_a_reject(tmp_path: Path, name: str):
    (tmp_path / name).write_bytes(b"")
    assert faults(tmp_path / name) == [("empty", None)]


def test_an_unknown_suffix_is_read_where_the_source_sets_the_markup(tmp_path: Path):
    path = stored(tmp_path / "README", b"# words\n")
    assert faults(path) == [("unsupported suffix (none)", None)]
    assert read(path, origin=Origin("local", markup="md"))[0][0].metadata["markup"] == "md"


@pytest.mark.parametrize(
    ("name", "content", "shown"),
    [
        ("a.txt", b"words\n", "txt"),
        ("a.md", b"words\n", "md"),
        ("a.htm", b"<p>words</p>\n", "html"),
        ("a.jsonl", b'{"text": "words"}\n', "raw"),
        ("a.csv", b"text\nwords\n", "raw"),
        ("a.json", b'[{"text": "words"}]', "raw"),
    ],
)
def test_the_markup_of_a_source_precedes_that_of_all_and_that_one_what_a_file_shows(
    tmp_path: Path, name: str, content: bytes, shown: str
):
    path = stored(tmp_path / name, content)
    for origin, markup in (
        (Origin("local"), shown),
        (Origin("local", default_markup="wrapped"), "wrapped"),
        (Origin("local", markup="rst", default_markup="wrapped"), "rst"),
    ):
        assert read(path, origin=origin)[0][0].metadata["markup"] == markup


def test_the_markup_of_all_sources_has_no_file_of_an_unknown_suffix_read(tmp_path: Path):
    path = stored(tmp_path / "README", b"words\n")
    assert read(path, origin=Origin("local", default_markup="raw")) == read(path)
