"""Refine on folders: dropped documents keep their reason, and the outcome depends on no order, shard or worker."""

import json
import random
from pathlib import Path
from typing import Any

import pytest

import sluice.data.refining.score
from sluice.data.config import EvaluationSet, RefineConfig
from sluice.data.document import Document, content_id, read_documents, write_documents
from sluice.data.executor import run_tasks
from sluice.data.refining.cut import CutResult
from sluice.data.refining.decide import KEPT, DocumentDecision
from sluice.data.refining.fingerprint import code_files
from sluice.data.refining.refine import refine
from sluice.data.refining.tables import read_decisions
from sluice.data.refining.write import drop_copies
from sluice.data.report import EVIDENCE, RefineReport

TITLES = ("queries", "signals", "templates", "caching", "sessions", "logging", "testing", "settings")
VERBS = ("reads", "writes", "keeps", "drops", "counts", "sorts", "joins", "splits", "checks", "names")


def page(topic: str, seed: int, *, sentences: int = 25) -> str:
    """An rst page of distinct sentences about a topic."""
    generator = random.Random(f"{topic}{seed}")
    body = "\n".join(
        f"The :class:`{topic}.{generator.choice(TITLES).title()}` object {generator.choice(VERBS)} number "
        f"{generator.randrange(10_000)} of the {generator.choice(TITLES)}, and that\nwith "
        f"``{generator.choice(VERBS)}()`` in step {generator.randrange(10_000)}."
        for _ in range(sentences)
    )
    return f"{topic.title()} {seed}\n{'=' * 20}\n\n{body}\n"


def raw(text: str, path: str, source: str = "package==1.0") -> Document:
    metadata = {"source": source, "path": path, "licence": "MIT", "title": path, "markup": "rst"}
    return Document(text=text, id=content_id(text), metadata=metadata)


def planted() -> list[Document]:
    """Twenty good pages, and one of each kind that has to go."""
    documents = [raw(page(TITLES[n % 8], n), f"page{n}.rst") for n in range(20)]
    documents += [raw(page(TITLES[n % 8], n), f"copy{n}.rst", "other==2.0") for n in range(3)]
    documents += [
        raw(page(TITLES[n % 8], n).replace("that\nwith", "that with", 1)[:-40], f"near{n}.rst") for n in (4, 5)
    ]
    documents += [raw("Short\n=====\n\nToo few words.\n", "short.rst"), raw(".. toctree::\n\n   a\n", "toctree.rst")]
    private = page("logging", 99) + "\nWrite to jane@corp.example or to 8.8.8.8 about it.\n"
    return [*documents, raw(private, "private.rst")]


def run(
    tmp_path: Path,
    documents: list[Document],
    name: str,
    *,
    per_shard: int = 512,
    work: Path | None = None,
    executor: Any = run_tasks,
    **settings: Any,
) -> RefineReport:
    (tmp_path / f"{name}-in").mkdir()
    (tmp_path / name).mkdir()
    write_documents(documents, tmp_path / f"{name}-in", per_shard)
    config = RefineConfig(**{"workers": 1, **settings})
    return refine(config, tmp_path / f"{name}-in", tmp_path / name, work=work, executor=executor)


def kept_bytes(folder: Path) -> dict[str, bytes]:
    names = [*folder.glob("documents-*"), folder / EVIDENCE / "decisions.parquet", folder / EVIDENCE / "report.json"]
    return {path.name: path.read_bytes() for path in names}


def test_every_document_is_kept_clean_or_dropped_with_its_reason(tmp_path: Path):
    report = run(tmp_path, planted(), "out")
    kept = list(read_documents(tmp_path / "out"))
    decisions = read_decisions(tmp_path / "out")
    assert len(decisions) == len(planted()) == report.documents_in
    assert report.dropped == {"empty": 1, "exact_duplicate": 3, "near_duplicate": 2, "too_few_words": 1}
    # Of equal documents the one whose source sorts first is kept.
    pages = {f"page{n}.rst" for n in range(3, 20)} | {f"copy{n}.rst" for n in range(3)}
    assert {document.metadata["path"] for document in kept} == pages | {"private.rst"}
    assert [document.id for document in kept] == sorted(content_id(document.text) for document in kept)
    assert not any("``" in document.text or ":class:" in document.text for document in kept)
    assert all(document.metadata["title"] and document.metadata["language"] == "en" for document in kept)
    # Of a text that was masked not even the hash is told.
    masked = {document.id for document in planted() if document.metadata["path"] == "private.rst"}
    raw_ids = {row["raw_id"] for row in decisions if row["path"] != "private.rst"}
    assert raw_ids == {document.id for document in planted()} - masked
    assert masked.isdisjoint(row["raw_id"] for row in decisions)

    ids = {document.id for document in kept}
    assert {row["final_id"] for row in decisions if row["kept"]} == ids
    for row in decisions:
        if row["kept"]:
            assert (row["rule"], row["twin"]) == (None, None)
        elif row["rule"].endswith("duplicate"):
            assert row["twin"] in ids
            assert row["jaccard"] >= RefineConfig().min_jaccard
        else:
            assert "<" in row["comparison"]


def test_personal_data_reaches_no_file(tmp_path: Path):
    report = run(tmp_path, planted(), "out", work=tmp_path / "work")
    private = next(d for d in read_documents(tmp_path / "out") if d.metadata["path"] == "private.rst")
    assert private.text.endswith("Write to <EMAIL> or to <IP_ADDRESS> about it.")
    assert {kind: count for kind, count in report.masked.items() if count} == {"EMAIL": 1, "IP_ADDRESS": 1}
    import pyarrow.parquet as pq

    for part in (*(tmp_path / "work").rglob("*.parquet"), *(tmp_path / "out").rglob("*.parquet")):
        assert "corp.example" not in str(pq.read_table(part).to_pylist())


def test_the_report_counts_by_source_and_language(tmp_path: Path):
    report = run(tmp_path, planted(), "out")
    other, package = report.by_source["other==2.0"], report.by_source["package==1.0"]
    assert (other.documents_in, other.documents_kept, other.dropped) == (3, 3, {})
    assert (package.documents_in, package.documents_kept) == (25, 18)
    assert report.bytes_kept == sum(len(document.text.encode()) for document in read_documents(tmp_path / "out"))
    assert report.documents_kept == sum(tally.documents_kept for tally in report.by_source.values())
    assert report.documents_in == sum(tally.documents_in for tally in report.by_language.values())
    assert all(seconds >= 0 for seconds in report.timings.values())


@pytest.mark.process
@pytest.mark.parametrize(("seed", "per_shard", "workers"), [(1, 512, 1), (2, 3, 1), (3, 7, 2)])
def test_the_outcome_is_byte_identical_whatever_the_order_shards_and_workers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int, per_shard: int, workers: int
):
    cutting = {"max_piece_copies": 2, "min_substring_words": 20}
    run(tmp_path, planted(), "first", **cutting)
    shuffled = planted()
    random.Random(seed).shuffle(shuffled)
    monkeypatch.setattr("sluice.data.refining.refine._LEAST_PART_BYTES", 2000)  # several parts, small as the corpus is
    run(tmp_path, shuffled, "second", per_shard=per_shard, workers=workers, **cutting)
    assert len(list((tmp_path / "second" / EVIDENCE).glob("scores-*"))) >= (2 if per_shard < 20 else 1)
    assert kept_bytes(tmp_path / "first") == kept_bytes(tmp_path / "second")


def test_scored_parts_are_not_scored_again_neither_after_a_death_nor_for_new_thresholds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("sluice.data.refining.refine._LEAST_PART_BYTES", 2000)
    scored: list[str] = []
    score = sluice.data.refining.score.score

    def counting(text: str, quality: Any = None) -> Any:
        scored.append(text)
        return score(text, quality)

    monkeypatch.setattr(sluice.data.refining.score, "score", counting)

    def dying(function: Any, tasks: Any, **_: Any) -> list[Any]:
        for task in tasks[:3]:
            function(task)
        raise KeyboardInterrupt

    work = tmp_path / "work"
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, planted(), "killed", per_shard=3, work=work, executor=dying)
    before = len(scored)
    assert 0 < before < len(planted())
    report = run(tmp_path, planted(), "again", per_shard=3, work=work)
    assert len(scored) == len(planted()) == report.documents_in
    looser = run(tmp_path, planted(), "looser", per_shard=3, work=work, min_jaccard=1.0)
    assert len(scored) == len(planted())
    assert looser.documents_kept == report.documents_kept + report.dropped["near_duplicate"]
    run(tmp_path, planted(), "undisturbed", per_shard=3)
    assert kept_bytes(tmp_path / "again") == kept_bytes(tmp_path / "undisturbed")


def test_the_longest_part_is_scored_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("sluice.data.refining.refine._LEAST_PART_BYTES", 2000)
    sizes: list[list[int]] = []

    def listening(function: Any, tasks: Any, **settings: Any) -> list[Any]:
        sizes.append([getattr(task, "size_bytes", 0) for task in tasks])
        return run_tasks(function, tasks, **settings)

    run(tmp_path, planted(), "out", per_shard=3, executor=listening)
    assert len(set(sizes[0])) > 2
    assert sizes[0] == sorted(sizes[0], reverse=True)


def test_texts_that_cutting_makes_equal_are_kept_once():
    results = {row: CutResult("same", 50, 300, 300, {}) for row in (0, 2)}
    first, second, third, fourth = drop_copies(["a", "b", "c", "same"], [KEPT, KEPT, KEPT, KEPT], results)
    assert (first, second) == (KEPT, KEPT)
    assert third == fourth == DocumentDecision("exact_duplicate", twin="same", jaccard=1.0)
    dropped = DocumentDecision("too_few_words", "words 1 < 40")
    assert drop_copies(["a", "same"], [dropped, KEPT], {}) == [dropped, KEPT]


@pytest.mark.parametrize("policy", ["drop", "cut", "report"])
def test_contamination_is_treated_by_the_policy_of_its_set(tmp_path: Path, policy: str):
    question = "Which of the seven seas did the very old captain of the wooden ship cross first in spring"
    path = tmp_path / "quiz.jsonl"
    path.write_text("".join(json.dumps({"question": each}) + "\n" for each in (question, "Yes.")))
    leaked = page("caching", 5).replace("step", f"step. {question.upper()}? Then", 1)
    documents = [raw(page("caching", 6), "clean.rst"), raw(leaked, "leaked.rst")]
    report = run(tmp_path, documents, "out", evaluation_sets=[EvaluationSet(path=str(path), policy=policy)])
    assert (report.contaminated, report.evaluation_sets) == ({"quiz": 1}, {"quiz": 1})
    assert report.short_items == {"quiz": 1}, "what is not looked for is said"
    texts = {document.metadata["path"]: document.text for document in read_documents(tmp_path / "out")}
    assert "clean.rst" in texts
    if policy == "drop":
        assert report.dropped == {"contaminated": 1}
        assert set(texts) == {"clean.rst"}
    else:
        assert ("SEVEN SEAS" in texts["leaked.rst"]) is (policy == "report")
        assert report.contamination_cut == (1 if policy == "cut" else 0)


def test_repeated_lines_and_runs_are_cut_and_what_is_left_is_named_anew(tmp_path: Path):
    banner = "This page is part of the handbook that every new member of the team has to read before the first day."
    documents = [raw(f"{page('testing', n)}\n{banner}\n", f"page{n}.rst") for n in range(4)]
    report = run(tmp_path, documents, "out", max_piece_copies=1)
    kept = list(read_documents(tmp_path / "out"))
    assert sum(banner in document.text for document in kept) == 1
    assert report.pieces_removed == 3
    assert all(document.id == content_id(document.text) for document in kept)
    assert sum("cut_from" in document.metadata for document in kept) == 3
    assert sum(row["cut_characters"] >= len(banner) for row in read_decisions(tmp_path / "out")) == 3


def test_what_an_earlier_run_kept_is_not_kept_twice(tmp_path: Path):
    index = str(tmp_path / "index")
    first = run(tmp_path, planted(), "monday", index=index)
    new = [raw(page("sessions", n), f"new{n}.rst") for n in range(100, 103)]
    second = run(tmp_path, [*planted(), *new], "tuesday", index=index)
    assert {d.metadata["path"] for d in read_documents(tmp_path / "tuesday")} == {d.metadata["path"] for d in new}
    assert second.dropped["earlier_duplicate"] >= first.documents_kept
    again = run(tmp_path, planted(), "monday-again", index=index)
    assert again.documents_kept == first.documents_kept


def test_nothing_kept_is_an_error_with_the_reason(tmp_path: Path):
    with pytest.raises(ValueError, match=r"kept none of 1 documents \(too_few_words 1\): loosen refine\.min_words"):
        run(tmp_path, [raw("Too short.", "a.rst")], "out")


def test_an_empty_folder_is_an_error(tmp_path: Path):
    with pytest.raises(ValueError, match="holds no document"):
        run(tmp_path, [], "out")


def test_the_fingerprint_of_scored_parts_covers_the_code_that_decides_them(root: Path):
    covered = {path.relative_to(root.resolve()).as_posix() for path in map(Path.resolve, code_files())}
    data = {path.relative_to(root).as_posix() for path in (root / "data").rglob("*.py")}
    assert covered == data | {"core/arrow.py", "core/hashing.py"}
