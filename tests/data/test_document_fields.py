"""Fields of rows through a whole build: kept, masked, not confused with our own, and without what was cut."""

import json
from pathlib import Path
from typing import Any

import pytest
from test_build import QUESTION, everything, loose, words
from test_refine import page

from sluice.data.build import build
from sluice.data.config import EvaluationSet, IngestConfig
from sluice.data.document import Document, read_documents
from sluice.data.privacy.fields import mask_field
from sluice.data.refilter import refilter


def rows(path: Path, *added: dict[str, Any]) -> Path:
    lines = [{"text": page("caching", number), **fields} for number, fields in enumerate(added)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def built(source: Path, out: Path, **settings: Any) -> list[Document]:
    build(IngestConfig(sources=str(source), **settings), loose(), out)
    return sorted(read_documents(out), key=lambda each: each.metadata["path"])


def test_fields_arrive_in_the_corpus_and_survive_new_thresholds_and_another_build(tmp_path: Path) -> None:
    source = rows(
        tmp_path / "a.jsonl",
        {"id": "a-1", "url": "https://e.org/1", "year": 2024, "language": "english", "source": "crawl"},
        {"title": "Given title"},
    )
    first, second = built(source, tmp_path / "out")
    kept = {name: first.metadata[name] for name in ("id", "url", "year", "row_language", "row_source")}
    assert kept == {
        "id": "a-1",
        "url": "https://e.org/1",
        "year": 2024,
        "row_language": "english",
        "row_source": "crawl",
    }
    assert (first.metadata["source"], first.metadata["language"]) == ("local", "en")
    refilter(tmp_path / "out", {"min_words": 1})
    assert [each.metadata for each in sorted(read_documents(tmp_path / "out"), key=lambda d: d.metadata["path"])] == [
        first.metadata,
        second.metadata,
    ]
    again, _ = built(tmp_path / "out", tmp_path / "again")
    assert again.metadata | {"raw_id": ""} == first.metadata | {"raw_id": ""}
    assert built(source, tmp_path / "none", fields=[])[0].metadata.keys().isdisjoint(kept)


def test_personal_data_in_fields_is_masked_wherever_it_is_written(tmp_path: Path) -> None:
    source = rows(
        tmp_path / "a.jsonl",
        {
            "contact": "jane.doe@corp-mail.com",
            "phone": 6305961111,
            "login": {"password": "dY5Ke76gdSiF!x"},
            "year": 2024,
            "url": "https://e.org/?mail=jane.doe@corp-mail.com",
        },
    )
    [document] = built(source, tmp_path / "out", fields=["contact", "phone", "login", "year", "url"])
    assert document.metadata["contact"] == "<EMAIL>"
    assert document.metadata["phone"] == "<PHONE>"
    assert document.metadata["login"] == {"password": "<SECRET>"}
    assert document.metadata["year"] == 2024
    written = everything(tmp_path / "out")
    assert all(value not in written for value in (b"corp-mail", b"6305961111", b"dY5Ke76gdSiF"))


@pytest.mark.parametrize("value", ["plain", 12, 1234567, 1.5, True, None, ["a", {"b": "c"}], "2024-05-06", "user-42"])
def test_other_values_stay_as_they_are(value: Any) -> None:
    assert mask_field("id", value, None) == value


def test_turns_whose_text_was_cut_are_not_in_the_metadata_any_more(tmp_path: Path) -> None:
    quiz = tmp_path / "quiz.jsonl"
    quiz.write_text(json.dumps({"question": QUESTION}) + "\n")
    answer = f"{page('caching', 1)}\n\n{QUESTION}\n\n{words('w', 60)}"
    source = tmp_path / "a.jsonl"
    turns = [
        [{"role": "user", "content": "Tell me."}, {"role": "assistant", "content": text}]
        for text in (answer, page("signals", 2))
    ]
    source.write_text("".join(json.dumps({"messages": each, "id": n}) + "\n" for n, each in enumerate(turns)))
    sets = [EvaluationSet(path=str(quiz), policy="cut")]
    build(
        IngestConfig(sources=str(source)),
        loose(evaluation_sets=sets, min_alphabetic_word_fraction=None),
        tmp_path / "out",
    )
    cut, whole = sorted(read_documents(tmp_path / "out"), key=lambda each: each.metadata["id"])
    assert "captain" not in cut.text and "cut_from" in cut.metadata
    assert "messages" not in cut.metadata
    assert whole.metadata["messages"][0] == {"role": "user", "content": "Tell me."}
    assert whole.text.startswith("user: Tell me.\n\nassistant: ")
