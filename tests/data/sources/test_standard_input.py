"""Standard input and named pipes as sources: the format is found by the beginning, or forced."""

import codecs
import gzip
import io
import json
import os
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from sluice.data.config import IngestConfig, Source
from sluice.data.document import Document, read_documents
from sluice.data.sources.ingest import ingest
from sluice.data.sources.local_hash import contents_sha256

ROWS = b'{"text": "one", "id": "a"}\n{"text": "two", "id": "b"}\n'


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def out(tmp_path: Path) -> Path:
    (tmp_path / "out").mkdir()
    return tmp_path / "out"


def piped(monkeypatch: pytest.MonkeyPatch, content: bytes, out: Path, **settings: Any) -> list[Document]:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
    ingest(IngestConfig(sources="-", **settings), out)
    assert not (out / ".parts").exists(), "raw text is not left behind"
    return list(read_documents(out))


@pytest.mark.parametrize(
    ("content", "settings", "texts"),
    [
        (ROWS, {}, ["one", "two"]),
        (gzip.compress(ROWS, mtime=0), {}, ["one", "two"]),
        (b"\xef\xbb\xbf\n" + ROWS, {}, ["one", "two"]),
        (json.dumps([{"text": "one"}, {"text": "two"}]).encode(), {}, ["one", "two"]),
        (b'[{"text": "one"}]\n[{"text": "two"}]\n', {}, ["one", "two"]),
        (b'{\n "text": "one"\n}\n{\n "text": "two"\n}\n', {}, ["one", "two"]),
        (b'["one", "two"]', {}, ["one", "two"]),
        (b"[ ] buy milk\n", {}, ["[ ] buy milk\n"]),
        (codecs.BOM_UTF16_LE + ROWS.decode().encode("utf-16-le"), {}, ["one", "two"]),
        (b"Plain text.\n\nOf two paragraphs.\n", {}, ["Plain text.\n\nOf two paragraphs.\n"]),
        (b"text,n\none,1\n", {"format": "csv"}, ["one"]),
        (ROWS, {"format": "text"}, [ROWS.decode()]),
    ],
)
def test_standard_input_is_read(
    monkeypatch: pytest.MonkeyPatch, out: Path, content: bytes, settings: dict[str, Any], texts: list[str]
) -> None:
    documents = piped(monkeypatch, content, out, **settings)
    assert [each.text for each in documents] == texts
    assert {each.metadata["source"] for each in documents} == {"stdin"}


def test_rows_of_standard_input_keep_their_fields(monkeypatch: pytest.MonkeyPatch, out: Path) -> None:
    first, _ = piped(monkeypatch, ROWS, out)
    assert (first.metadata["path"], first.metadata["fields"]) == ("stdin:1", {"id": "a"})


def test_an_input_that_is_empty_or_too_large_or_a_terminal_is_one_clear_line(
    monkeypatch: pytest.MonkeyPatch, out: Path
) -> None:
    with pytest.raises(ValueError, match=r"data.sources: - has no document \(1 rejected, first stdin: empty\)"):
        piped(monkeypatch, b"", out)
    with pytest.raises(ValueError, match=r"the input is larger than 20 bytes: raise data.max_file_bytes"):
        piped(monkeypatch, ROWS, out, max_file_bytes=20)
    monkeypatch.setattr(sys, "stdin", Terminal())
    with pytest.raises(ValueError, match="- is the terminal: pipe text into the command"):
        ingest(IngestConfig(sources="-"), out)


def test_a_named_pipe_is_read_once_and_one_inside_a_folder_is_a_reject(tmp_path: Path, out: Path) -> None:
    pipe = tmp_path / "in" / "rows"
    pipe.parent.mkdir()
    os.mkfifo(pipe)
    writer = threading.Thread(target=lambda: pipe.write_bytes(ROWS))
    writer.start()
    ingest(IngestConfig(sources=str(pipe)), out)
    writer.join()
    assert [each.text for each in read_documents(out)] == ["one", "two"]
    pipe.rename(pipe.with_suffix(".jsonl"))
    (tmp_path / "in" / "a.txt").write_text("text")
    report = ingest(IngestConfig(sources=str(tmp_path / "in")), out)
    assert report.rejects == {"not a regular file": 1}


def test_a_run_does_not_read_standard_input() -> None:
    with pytest.raises(ValueError, match="- is standard input, which only `sluice data build` reads"):
        contents_sha256(IngestConfig(sources=[Source(uri="-")]))
