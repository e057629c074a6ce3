"""Web archives: every record that is text, whatever its type, transfer and content encoding; the others are counted."""

import contextlib
import gzip
import io
import zlib
from pathlib import Path
from typing import Any

import brotli
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st
from warcio.statusandheaders import StatusAndHeaders
from warcio.warcwriter import WARCWriter

from sluice.data.config import IngestConfig
from sluice.data.document import Document, read_documents
from sluice.data.sources.compression import Damaged
from sluice.data.sources.formats import read_file
from sluice.data.sources.http_body import read_body
from sluice.data.sources.ingest import ingest
from sluice.data.sources.limits import Limits
from sluice.data.sources.origin import Noted, Origin, Reject

LIMITS = Limits(10_000, 10**9, 200.0)
PAGE = "<p>schön</p>".encode()
PACK = {
    "gzip": gzip.compress,
    "x-gzip": gzip.compress,
    "deflate": zlib.compress,
    "br": brotli.compress,
    "zstd": zstandard.ZstdCompressor().compress,
    "identity": bytes,
    "": bytes,
}


def chunked(content: bytes, trailer: bytes = b"") -> bytes:
    parts = [content[at : at + 7] for at in range(0, len(content), 7)]
    return b"".join(b"%x;note=1\r\n%s\r\n" % (len(part), part) for part in parts) + b"0\r\n" + trailer + b"\r\n"


def response(body: bytes, *headers: tuple[str, str], status: str = "200 OK", protocol: str = "HTTP/1.1") -> Any:
    http = StatusAndHeaders(status, [("Content-Type", "text/html"), *headers], protocol=protocol)
    return ("https://example.org/a", "response", body, http, None)


def archive(*records: Any, gzipped: bool = False) -> bytes:
    buffer = io.BytesIO()
    writer = WARCWriter(buffer, gzip=gzipped)
    for address, kind, body, http, headers in records:
        writer.write_record(
            writer.create_warc_record(
                address,
                kind,
                payload=io.BytesIO(body),
                http_headers=http,
                warc_content_type="" if http else (headers or {}).get("Content-Type", "text/plain"),
                warc_headers_dict={name: value for name, value in (headers or {}).items() if name != "Content-Type"},
            )
        )
    return buffer.getvalue()


def read(tmp_path: Path, content: bytes, limits: Limits = LIMITS) -> list[Any]:
    path = tmp_path / "a.warc"
    path.write_bytes(content)
    return list(read_file(path, "a.warc", Origin("local"), limits))


def only(tmp_path: Path, *records: Any) -> str:
    [each] = read(tmp_path, archive(*records))
    return each.text if isinstance(each, Document) else each.reason


@pytest.mark.parametrize("encoding", PACK)
@pytest.mark.parametrize("trailer", [None, b"", b"Server-Timing: total;dur=3\r\nX-Sum: 1\r\n"])
def test_every_content_encoding_in_chunks_with_trailer_fields_or_none(
    tmp_path: Path, encoding: str, trailer: bytes | None
) -> None:
    body, headers = PACK[encoding](PAGE), [("Content-Encoding", encoding)]
    if trailer is not None:
        body, headers = chunked(body, trailer), [*headers, ("Transfer-Encoding", "chunked")]
    assert only(tmp_path, response(body, *headers)) == PAGE.decode()


def test_encodings_over_one_another_and_headers_that_no_longer_hold(tmp_path: Path) -> None:
    twice = brotli.compress(gzip.compress(PAGE))
    assert only(tmp_path, response(twice, ("Content-Encoding", "gzip, br"))) == PAGE.decode()
    assert only(tmp_path, response(PAGE, ("Content-Encoding", "gzip"))) == PAGE.decode()
    assert only(tmp_path, response(PAGE, ("Transfer-Encoding", "chunked"))) == PAGE.decode()
    assert only(tmp_path, response(PAGE, protocol="HTTP/2")) == PAGE.decode()
    members = gzip.compress(PAGE[:5]) + gzip.compress(PAGE[5:])
    assert only(tmp_path, response(members, ("Content-Encoding", "gzip"))) == PAGE.decode()


@pytest.mark.parametrize(
    ("body", "headers", "reason"),
    [
        (gzip.compress(PAGE, mtime=0)[:-9], [("Content-Encoding", "gzip")], "not gzip content"),
        (b"\x00\x01\x02" * 9, [("Content-Encoding", "br")], "not br content"),
        (PAGE, [("Content-Encoding", "sdch")], "unknown content encoding sdch"),
        (brotli.compress(bytes(10_000_000)), [("Content-Encoding", "br")], "larger than 10000 bytes"),
        (gzip.compress(bytes(10_000_000), mtime=0), [("Content-Encoding", "gzip")], "larger than 10000 bytes"),
        (chunked(PAGE)[:-12], [("Transfer-Encoding", "chunked")], "ends early"),
    ],
)
def test_a_broken_body_is_a_reject_that_says_how(
    tmp_path: Path, body: bytes, headers: list[tuple[str, str]], reason: str
) -> None:
    good = response(PAGE)
    found = read(tmp_path, archive(response(body, *headers), good))
    assert [each.text if isinstance(each, Document) else each.reason for each in found] == [reason, PAGE.decode()]


@settings(max_examples=150, deadline=None)
@given(
    st.one_of(st.binary(max_size=60), st.binary(max_size=60).map(gzip.compress), st.binary(max_size=60).map(chunked)),
    st.lists(st.sampled_from([*PACK, "chunked", "other"]), max_size=3),
    st.booleans(),
)
def test_any_bytes_are_a_body_within_the_limit_or_damaged(
    content: bytes, encodings: list[str], is_chunked: bool
) -> None:
    headers = StatusAndHeaders(
        "200 OK",
        [("Content-Encoding", ", ".join(encodings)), ("Transfer-Encoding", "chunked" if is_chunked else "")],
        protocol="HTTP/1.1",
    )
    with contextlib.suppress(Damaged):
        assert len(read_body(io.BytesIO(content), headers, 50)) <= 50


def test_the_texts_of_wet_files_and_of_resources_and_plain_responses_are_read(tmp_path: Path) -> None:
    plain = StatusAndHeaders("200 OK", [("Content-Type", "text/plain; charset=koi8-r")], protocol="HTTP/1.1")
    wet = {"WARC-Identified-Content-Language": "deu", "WARC-Date": "2024-05-06T07:08:09Z"}
    found = read(
        tmp_path,
        archive(
            ("https://example.org/w", "conversion", "Erste Zeile\nzweite schöne Zeile\n".encode(), None, wet),
            ("https://example.org/r", "resource", PAGE, None, {"Content-Type": "text/html; charset=utf-8"}),
            ("https://example.org/p", "response", "Привет".encode("koi8-r"), plain, None),
            ("dns:example.org", "response", b"example.org. A", None, {"Content-Type": "text/dns"}),
            ("https://example.org/i", "resource", b"\x89PNG", None, {"Content-Type": "image/png"}),
        ),
    )
    documents = [each for each in found if isinstance(each, Document)]
    assert [each.text for each in documents] == ["Erste Zeile\nzweite schöne Zeile\n", PAGE.decode(), "Привет"]
    fields = documents[0].metadata["fields"]
    assert fields == {
        "url": "https://example.org/w",
        "date": "2024-05-06T07:08:09Z",
        "identified_language": "deu",
    }
    assert [each.reason for each in found if isinstance(each, Reject)] == ["not a page of HTML or a plain text"] * 2


def test_other_records_and_truncated_ones_are_counted_by_kind(tmp_path: Path) -> None:
    records = [
        ("https://example.org/a", "metadata", b"fetchTimeMs: 3", None, {"Content-Type": "application/warc-fields"}),
        ("https://example.org/a", "request", b"GET / HTTP/1.1\r\n\r\n", None, None),
        ("https://example.org/b", "request", b"GET / HTTP/1.1\r\n\r\n", None, None),
        ("https://example.org/t", "conversion", b"cut te", None, {"WARC-Truncated": "length"}),
    ]
    found = read(tmp_path, archive(*records))
    assert [each.what for each in found if isinstance(each, Noted)] == [
        "WARC metadata record passed over",
        "WARC request record passed over",
        "WARC request record passed over",
        "WARC record truncated by its crawler (length)",
    ]
    (tmp_path / "out").mkdir()
    report = ingest(IngestConfig(sources=str(tmp_path / "a.warc")), tmp_path / "out")
    assert report.noted == {
        "WARC metadata record passed over": 1,
        "WARC record truncated by its crawler (length)": 1,
        "WARC request record passed over": 2,
    }
    [document] = read_documents(tmp_path / "out")
    assert document.metadata["fields"]["truncated"] == "length"


def test_the_suffix_of_wet_files(tmp_path: Path) -> None:
    path = tmp_path / "part.warc.wet.gz"
    path.write_bytes(archive(("https://example.org/w", "conversion", b"text", None, None), gzipped=True))
    [document] = read_file(path, path.name, Origin("local"), LIMITS)
    assert isinstance(document, Document)
