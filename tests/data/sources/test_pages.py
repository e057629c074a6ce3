"""Pages of HTML in other charsets than UTF-8, as files."""

from pathlib import Path

import pytest

from sluice.data.sources.formats import read_file
from sluice.data.sources.origin import Document, Limits, Origin

LIMITS = Limits(1_000_000, 10**9, 200.0)


def read(path: Path, content: bytes) -> list[str]:
    path.write_bytes(content)
    found = read_file(path, path.name, Origin("local"), LIMITS)
    return [each.text if isinstance(each, Document) else each.reason for each in found]


@pytest.mark.parametrize(
    ("declaration", "charset"),
    [
        ('<meta charset="windows-1252">', "windows-1252"),
        ('<META http-equiv="Content-Type" content="text/html; charset=iso-8859-1">', "iso-8859-1"),
        ("<meta charset=shift_jis>", "shift_jis"),
        ("<meta charset=utf-8>", "utf-8"),
        ('<?xml version="1.0" encoding="iso-8859-1"?>', "iso-8859-1"),
        ("", "utf-8"),
    ],
)
def test_a_page_is_read_in_the_charset_that_it_names(tmp_path: Path, declaration: str, charset: str) -> None:
    page = f"<html><head>{declaration}</head><body><p>{'日本語' if charset == 'shift_jis' else 'Grüße, olé'}</p></body>"
    assert read(tmp_path / "a.html", page.encode(charset)) == [page]


def test_what_is_no_text_in_that_charset_is_a_reject(tmp_path: Path) -> None:
    assert read(tmp_path / "a.html", b"<meta charset=ascii>\xff") == ["not text in the charset it names"]
    assert read(tmp_path / "b.html", b"<meta charset=klingon>x") == ["not text in the charset it names"]
    assert read(tmp_path / "c.html", b"<p>\xff") == [
        "not UTF-8 text, perhaps cp1251: set encoding=cp1251 to read it so"
    ]


def test_a_byte_order_mark_precedes_the_declared_charset(tmp_path: Path) -> None:
    page = "<meta charset=iso-8859-1><p>Grüße</p>"
    assert read(tmp_path / "a.html", page.encode("utf-8-sig")) == [page]
