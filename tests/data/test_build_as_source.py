"""A finished build as the source of another: its clean documents come in as they are, and nothing else of it."""

import json
from pathlib import Path

from test_build import jsonl, kept_texts, loose
from test_refine import page

from sluice.data.build import build
from sluice.data.config import EvaluationSet, IngestConfig, Source
from sluice.data.document import read_documents

QUESTION = "Which of the seven seas did the very old captain of the wooden ship cross first in spring"


def test_it_gives_its_documents_with_their_first_origin_and_none_that_it_dropped(tmp_path: Path) -> None:
    quiz = tmp_path / "quiz.jsonl"
    quiz.write_text(json.dumps({"question": QUESTION}) + "\n")
    (tmp_path / "in").mkdir()
    jsonl(tmp_path / "in" / "pages.jsonl", [*(page("caching", n) for n in range(5)), f"{page('leak', 1)} {QUESTION}?"])
    sources = [Source(uri=str(tmp_path / "in"), licence="MIT")]
    sets = [EvaluationSet(path=str(quiz), policy="drop")]
    first = build(IngestConfig(sources=sources), loose(evaluation_sets=sets), tmp_path / "first")
    assert first.refine.dropped == {"contaminated": 1}

    again = build(IngestConfig(sources=str(tmp_path / "first")), loose(), tmp_path / "again")
    assert (again.ingest.documents, again.ingest.rejects) == (5, {})
    assert again.refine.content_sha256 == first.refine.content_sha256
    assert kept_texts(tmp_path / "again") == kept_texts(tmp_path / "first")
    assert origins(tmp_path / "again") == origins(tmp_path / "first")
    assert {(source, licence) for source, _, licence, _ in origins(tmp_path / "again")} == {("local", "MIT")}


def origins(folder: Path) -> list[tuple[str, ...]]:
    names = ("source", "path", "licence", "title")
    return [tuple(each.metadata[name] for name in names) for each in read_documents(folder)]


def test_a_licence_of_the_settings_precedes_the_one_of_the_row(tmp_path: Path) -> None:
    source = jsonl(tmp_path / "pages.jsonl", [page("caching", n) for n in range(3)])
    build(IngestConfig(sources=str(source)), loose(), tmp_path / "first")
    said = IngestConfig(sources=[Source(uri=str(tmp_path / "first"), licence="CC0-1.0")])
    build(said, loose(), tmp_path / "again")
    assert {each.metadata["licence"] for each in read_documents(tmp_path / "again")} == {"CC0-1.0"}


def test_a_build_below_a_source_is_met_like_one_that_is_a_source(tmp_path: Path) -> None:
    jsonl(tmp_path / "a.jsonl", [page("caching", n) for n in range(3)])
    build(IngestConfig(sources=str(tmp_path / "a.jsonl")), loose(), tmp_path / "top" / "first")
    report = build(IngestConfig(sources=str(tmp_path / "top")), loose(), tmp_path / "again")
    assert (report.ingest.documents, report.ingest.rejects) == (3, {})
