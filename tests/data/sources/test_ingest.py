"""Local sources: what is read, what is a counted reject, what is one clear line."""

import csv
import random
from pathlib import Path

import pytest

from sluice.data.config import IngestConfig
from sluice.data.document import content_id, read_documents
from sluice.data.sources.ingest import ingest


def write(folder: Path, files: dict[str, str | bytes]) -> Path:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder


@pytest.fixture
def out(tmp_path: Path) -> Path:
    folder = tmp_path / "out"
    folder.mkdir()
    return folder


def test_a_directory_gives_its_documents_with_their_provenance(tmp_path: Path, out: Path):
    source = write(
        tmp_path / "docs",
        {"b.md": "# B\n", "a/guide.rst": "A\n=\n", "page.html": "<p>x</p>", "note.txt": "n", ".git/x.txt": "hidden"},
    )
    report = ingest(IngestConfig(sources=str(source)), out)
    documents = list(read_documents(out))
    found = [(document.metadata["path"], document.metadata["markup"]) for document in documents]
    assert found == [("b.md", "md"), ("note.txt", "txt"), ("page.html", "html"), ("a/guide.rst", "rst")]
    assert documents[0].metadata["source"] == "local"
    assert all(document.id == content_id(document.text) for document in documents)
    assert (report.documents, report.bytes, report.rejects) == (4, sum(len(d.text) for d in documents), {})
    assert report.fallback_reason is None


def test_jsonl_lines_are_documents_and_bad_lines_are_rejects_with_file_and_line(tmp_path: Path, out: Path):
    lines = ['{"text": "one"}', "{not json", '{"text": 5}', "", '["text"]', '{"text": " "}', '{"text": "two", "x": 1}']
    lines += ['{"text": "\\ud800"}']
    source = write(tmp_path, {"lines.jsonl": "\n".join(lines) + "\n"}) / "lines.jsonl"
    report = ingest(IngestConfig(sources=str(source)), out)
    assert [document.text for document in read_documents(out)] == ["one", "two"]
    assert [document.metadata["path"] for document in read_documents(out)] == ["lines.jsonl:1", "lines.jsonl:7"]
    with (out / "rejects.csv").open(newline="") as table:
        rejects = list(csv.DictReader(table))
    assert [(each["path"], each["line"]) for each in rejects] == [("lines.jsonl", n) for n in "23568"]
    assert {each["source"] for each in rejects} == {"local"}
    assert sum(report.rejects.values()) == 5


def test_unreadable_files_are_counted_and_the_others_are_read(tmp_path: Path, out: Path):
    noise = random.Random(0).randbytes(400)
    source = write(
        tmp_path / "docs",
        {
            "good.txt": "fine",
            "noise.txt": noise,
            "nul.txt": "a\0b",
            "empty.md": " \n",
            "x.bin": noise,
            "big.txt": "y" * 999,
        },
    )
    report = ingest(IngestConfig(sources=[str(source)], max_document_bytes=500), out)
    assert report.documents == 1
    assert report.rejects == {
        "binary": 2,
        "empty": 1,
        "larger than 500 bytes": 1,
        "unsupported suffix .bin": 1,
    }


def test_a_source_that_does_not_exist_is_one_clear_line(tmp_path: Path, out: Path):
    with pytest.raises(ValueError, match=r"data.sources: .*/nowhere does not exist"):
        ingest(IngestConfig(sources=[str(tmp_path / "nowhere")]), out)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "has no document (it is empty)"),
        ({"a.bin": b"\xff"}, "1 rejected, first a.bin: unsupported suffix .bin"),
        ({"a.txt": b"\xff\xfe\xfd"}, "1 rejected, first a.txt: not utf-16-le text, which its byte order mark names"),
        ({"a.jsonl": "nonsense\n"}, "1 rejected, first a.jsonl:1: line is not a JSON object"),
    ],
)
def test_a_source_without_a_document_is_one_clear_line(
    tmp_path: Path, out: Path, files: dict[str, str | bytes], message: str
):
    (tmp_path / "docs").mkdir()
    with pytest.raises(ValueError) as error:
        ingest(IngestConfig(sources=str(write(tmp_path / "docs", files))), out)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_ingesting_twice_is_byte_identical(tmp_path: Path):
    source = write(tmp_path / "docs", {f"{n}.txt": f"text {n}" for n in range(20)})
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        ingest(IngestConfig(sources=str(source), documents_per_shard=8), tmp_path / name)
    names = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert names == [f"documents-000{n}.jsonl" for n in range(3)] + ["rejects.csv"]
    assert all((tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes() for name in names)
