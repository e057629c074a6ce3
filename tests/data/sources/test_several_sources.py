"""Sources beside each other: a file that two of them reach, and settings that hold for all."""

import json
from pathlib import Path

import pytest

from sluice.data.build import build
from sluice.data.config import IngestConfig, RefineConfig, Source
from sluice.data.document import read_documents
from sluice.data.sources.ingest import IngestReport, ingest


def take(folder: Path, *sources: Source | str, **settings: str) -> IngestReport:
    (folder / "out").mkdir()
    return ingest(IngestConfig(sources=list(sources), **settings), folder / "out")


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    folder = tmp_path / "notes"
    (folder / "deep").mkdir(parents=True)
    for name in ("a.txt", "b.txt", "deep/c.txt"):
        (folder / name).write_text(f"The text of {name}.")
    return folder


def test_a_file_that_two_sources_reach_is_read_once_and_counted(notes: Path, tmp_path: Path) -> None:
    report = take(tmp_path, str(notes / "deep"), str(notes))
    assert [each.metadata["path"] for each in read_documents(tmp_path / "out")] == ["c.txt", "a.txt", "b.txt"]
    assert report.rejects == {"already read by another name": 1}


@pytest.mark.parametrize("again", ["{}/", "{}/../notes", "{}/**/*.txt"])
def test_a_source_by_another_name_is_one_clear_line(notes: Path, tmp_path: Path, again: str) -> None:
    with pytest.raises(ValueError, match=r"no document \(3 rejected, first a.txt: already read by another name\)"):
        take(tmp_path, str(notes), again.format(notes))


def test_the_text_field_is_one_for_all_but_for_sources_that_name_their_own(tmp_path: Path) -> None:
    for name in ("body", "story"):
        (tmp_path / f"{name}.jsonl").write_text(json.dumps({name: f"By {name}."}) + "\n")
    (tmp_path / "body.csv").write_text("body,n\nOf a table.,1\n")
    own = Source(uri=str(tmp_path / "story.jsonl"), text_field="story")
    take(tmp_path, str(tmp_path / "body.jsonl"), str(tmp_path / "body.csv"), own, text_field="body")
    assert [each.text for each in read_documents(tmp_path / "out")] == ["By body.", "Of a table.", "By story."]


def test_a_field_that_is_not_there_is_named_with_its_setting(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"content": "x"}\n')
    with pytest.raises(ValueError, match=r"1 rejected, first a.jsonl:1: no string under `text`: set data.text_field"):
        take(tmp_path, str(tmp_path / "a.jsonl"))


def test_where_nothing_is_kept_the_rejects_are_named(notes: Path, tmp_path: Path) -> None:
    (notes / "d.jsonl").write_text("{broken\n" * 3)
    (notes / "e.bin").write_text("x")
    with pytest.raises(ValueError, match=r"kept none of 3 documents .*; 4 more could not be read \(line is not a JSON"):
        build(IngestConfig(sources=str(notes)), RefineConfig(workers=1), tmp_path / "out")
