"""Text in every ordinary encoding comes through; what is no text, or only perhaps one, is a reject that says so."""

import codecs
import gzip
import io
import json
import random
import zlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sluice.data.config import IngestConfig, Source
from sluice.data.document import Document, read_documents
from sluice.data.sources.charset import NotText, Recoded, decode
from sluice.data.sources.formats import read_file
from sluice.data.sources.ingest import ingest
from sluice.data.sources.limits import Limits
from sluice.data.sources.origin import Origin

LIMITS = Limits(1_000_000, 10**9, 200.0)
TEXTS: dict[str, str] = json.loads(Path(__file__).with_name("encoded_texts.json").read_text(encoding="utf-8"))
"""Encoding -> a text in it."""
MARKED = {
    "utf-8-sig": codecs.BOM_UTF8,
    "utf-16-le": codecs.BOM_UTF16_LE,
    "utf-16-be": codecs.BOM_UTF16_BE,
    "utf-32-le": codecs.BOM_UTF32_LE,
    "utf-32-be": codecs.BOM_UTF32_BE,
}
ENCODINGS = [*TEXTS, *MARKED]
LOCAL = Origin("local")


def encoded(text: str, encoding: str) -> bytes:
    return MARKED.get(encoding, b"") + text.encode(encoding.removesuffix("-sig"))


def read(path: Path, content: bytes, origin: Origin = LOCAL) -> list[Document | str]:
    path.write_bytes(content)
    found = read_file(path, path.name, origin, LIMITS)
    return [each if isinstance(each, Document) else each.reason for each in found]


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_text_file_comes_through_with_its_encoding_in_the_metadata(tmp_path: Path, encoding: str) -> None:
    text = TEXTS.get(encoding, "Grüße, 日本語")
    [document] = read(tmp_path / "a.txt", encoded(text, encoding))
    assert isinstance(document, Document)
    assert document.text == text
    fields = document.metadata.get("fields", {})
    if encoding == "utf-8-sig":
        assert fields == {}
    elif encoding in MARKED:
        assert fields == {"encoding": encoding, "encoding_by": "byte order mark"}
    elif encoding == "iso2022_jp":
        assert fields["encoding_by"] == "escape sequence"
    else:
        assert fields["encoding_by"] == "guess"
        assert 0.6 <= fields["encoding_confidence"] <= 1
        assert text.encode(encoding).decode(fields["encoding"]) == text


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("suffix", ["jsonl", "csv", "json"])
def test_rows_come_through_in_every_encoding(tmp_path: Path, encoding: str, suffix: str) -> None:
    text = TEXTS.get(encoding, "Grüße, 日本語")
    rows = {
        "jsonl": "".join(json.dumps({"text": each}, ensure_ascii=False) + "\n" for each in ("plain", text, text)),
        "json": json.dumps([{"text": each} for each in ("plain", text, text)], ensure_ascii=False, indent=1),
        "csv": "".join(f'"{each}"\r\n' for each in ("text", "plain", text.replace('"', "'"), text)),
    }
    found = read(tmp_path / f"a.{suffix}", encoded(rows[suffix], encoding))
    assert [each.text for each in found if isinstance(each, Document)] == ["plain", text, text]


def test_a_table_is_decoded_as_the_settings_say_or_its_lines_are_rejects(tmp_path: Path) -> None:
    row = b'{"text": "plain"}\n{"text": "caf\xe9"}\n'
    good, doubtful = read(tmp_path / "a.jsonl", row)
    assert isinstance(good, Document)
    assert doubtful == "not UTF-8 text, perhaps cp1252: set encoding=cp1252 to read it so"
    found = read(tmp_path / "a.jsonl", row, Origin("local", encoding="cp1252"))
    assert [each.text for each in found if isinstance(each, Document)] == ["plain", "café"]
    wrong = b'{"text": "caf\xe9 \x81"}\n{"text": "na\xefve"}\n'
    found = read(tmp_path / "a.jsonl", wrong, Origin("local", encoding="cp1252"))
    assert [each if isinstance(each, str) else each.text for each in found] == ["not cp1252 text", "naïve"]
    found = read(tmp_path / "a.jsonl", row, Origin("local", encoding="UTF8"))
    assert [each if isinstance(each, str) else each.text for each in found] == ["plain", "not UTF-8 text"]
    mixed = b'{"text": "caf\xc3\xa9"}\n' + row
    assert [each for each in read(tmp_path / "b.jsonl", mixed) if isinstance(each, str)] == ["not UTF-8 text"]


def test_ascii_before_the_first_other_byte_does_not_hide_the_encoding(tmp_path: Path) -> None:
    lines = [json.dumps({"text": random.Random(n).randbytes(150).hex()}) for n in range(2000)]
    lines += [json.dumps({"text": TEXTS["cp1251"]}, ensure_ascii=False)]
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress("\n".join(lines).encode("cp1251")))
    last = list(read_file(tmp_path / "a.jsonl.gz", "a.jsonl.gz", Origin("local"), LIMITS))[-1]
    assert isinstance(last, Document)
    assert last.text == TEXTS["cp1251"]


def test_long_lines_of_ascii_are_looked_through_once(tmp_path: Path) -> None:
    long = json.dumps({"text": "a" * 250_000})
    found = read(
        tmp_path / "a.jsonl", f"{long}\n{json.dumps({'text': TEXTS['cp1251']}, ensure_ascii=False)}".encode("cp1251")
    )
    assert [each.text for each in found if isinstance(each, Document)] == ["a" * 250_000, TEXTS["cp1251"]]


def test_a_page_has_its_declared_charset_or_one_that_includes_it_or_a_guess(tmp_path: Path) -> None:
    for declared, text in {
        "gb2312": "昨天傍晚我们去森林，镕",
        "iso-8859-1": "It’s “quoted”",
        "euc-kr": "뷁 똠",
    }.items():
        encoding = {"gb2312": "gb18030", "iso-8859-1": "cp1252", "euc-kr": "cp949"}[declared]
        page = f"<meta charset={declared}><p>{text}</p>"
        [document] = read(tmp_path / "a.html", page.encode(encoding))
        assert isinstance(document, Document)
        assert document.text == page
        assert document.metadata["fields"] == {"encoding": encoding, "encoding_by": "declaration"}
    [document] = read(tmp_path / "b.html", f"<p>{TEXTS['koi8_r']}</p>".encode("koi8_r"))
    assert isinstance(document, Document)
    assert TEXTS["koi8_r"] in document.text
    wrong = f"<meta charset=utf-8><p>{TEXTS['koi8_r']}</p>".encode("koi8_r")
    assert read(tmp_path / "c.html", wrong) == ["not text in the charset it names"]
    [document] = read(tmp_path / "c.html", wrong, Origin("local", encoding="koi8_r"))
    assert isinstance(document, Document)


def test_the_setting_precedes_utf8_and_a_guess_but_not_a_byte_order_mark() -> None:
    assert decode("Grüße".encode(), "cp1252")[0] == "GrÃ¼Ã\x9fe".replace("\x9f", "Ÿ")
    assert decode(encoded("Grüße", "utf-16-le"), "cp1252") == ("Grüße", ("utf-16-le", "byte order mark", None))
    assert decode("Grüße".encode("utf-16-le"), "utf-16-le")[0] == "Grüße"
    with pytest.raises(NotText, match="not utf-8 text, which is set as its encoding"):
        decode(b"\xff", "utf-8")


@pytest.mark.parametrize("name", ["klingon", "base64", "rot13", ""])
def test_an_encoding_that_is_none_is_one_clear_line(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} is no encoding of text: name one such as"):
        Source(uri="a.txt", encoding=name)


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("dans une forêt très éloignée, un garçon naïf qui rêvait d'être célèbre", "cp1252"),
        ("Café au lait, s'il vous plaît; garçon naïve, déjà vu.", "cp1252"),
        ("dag og við ætlum að fara út að ganga með hundinn. Ég á bæði kött og", "cp1252"),
    ],
)
def test_a_short_text_that_the_two_detectors_read_differently_is_a_reject(text: str, encoding: str) -> None:
    with pytest.raises(NotText, match="not UTF-8 text, perhaps"):
        decode(text.encode(encoding))


@pytest.mark.parametrize("encoding", TEXTS)
def test_utf8_with_wrong_bytes_is_not_taken_for_another_encoding(encoding: str) -> None:
    content = TEXTS[encoding].encode()
    for damaged in (content[:60] + b"\xff" + content[60:], content + b"\xe9", content + "日本".encode()[:-1]):
        with pytest.raises(NotText, match="damaged UTF-8 text"):
            decode(damaged)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**9))
def test_binary_content_stays_a_reject(seed: int) -> None:
    noise = random.Random(seed).randbytes(100 + seed % 2000)
    for content in (noise, zlib.compress(noise), b"\x89PNG\r\n\x1a\n" + noise, codecs.BOM_UTF16_LE + noise):
        with pytest.raises(NotText):
            decode(content)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(sorted({*TEXTS, *MARKED})), st.integers(1, 9), st.integers(0, 40))
def test_a_table_is_the_same_in_blocks_of_any_size(encoding: str, block_bytes: int, start: int) -> None:
    text = f"ascii first\n{TEXTS.get(encoding, 'Grüße, 日本語')[start:]}\nlast"
    content = io.BufferedReader(io.BytesIO(encoded(text, encoding)), 1 << 18)  # type: ignore[arg-type]
    stream = Recoded(content, None if encoding in MARKED else encoding)
    found = b""
    while block := stream.read(block_bytes):
        found += block
    assert found.decode() == text


def test_the_report_counts_encodings_and_how_they_are_known(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for name in ("cp1251", "gbk", "utf-16-le"):
        (tmp_path / "in" / f"{name}.txt").write_bytes(encoded(TEXTS.get(name, "Grüße"), name))
    (tmp_path / "in" / "forced.txt").write_bytes(b"plain")
    (tmp_path / "out").mkdir()
    report = ingest(IngestConfig(sources=str(tmp_path / "in")), tmp_path / "out")
    assert report.encodings == {"cp1251 (guess)": 1, "gb18030 (guess)": 1, "utf-16-le (byte order mark)": 1}
    (tmp_path / "again").mkdir()
    report = ingest(IngestConfig(sources=str(tmp_path / "in" / "cp1251.txt"), encoding="cp1251"), tmp_path / "again")
    assert report.encodings == {"cp1251 (setting)": 1}
    assert [each.text for each in read_documents(tmp_path / "again")] == [TEXTS["cp1251"]]
