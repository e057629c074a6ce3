"""Refine on whole folders: what it drops keeps its reason, and its outcome knows of no order, shard or worker."""

import random
from pathlib import Path

import pytest

from data.config import RefineConfig
from data.document import Document, content_id, read_documents, read_shard, write_documents
from data.refine import RefineReport, refine

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
    tmp_path: Path, documents: list[Document], name: str, *, per_shard: int = 512, workers: int = 1
) -> RefineReport:
    (tmp_path / f"{name}-in").mkdir()
    (tmp_path / name).mkdir()
    write_documents(documents, tmp_path / f"{name}-in", per_shard)
    return refine(RefineConfig(workers=workers), tmp_path / f"{name}-in", tmp_path / name)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.rglob("*"))}


def test_every_document_is_kept_clean_or_dropped_with_its_reason(tmp_path: Path):
    report = run(tmp_path, planted(), "out")
    kept = list(read_documents(tmp_path / "out"))
    dropped = list(read_shard(tmp_path / "out" / "dropped-0000.jsonl.gz"))
    assert len(kept) + len(dropped) == len(planted()) == report.documents_in
    assert report.dropped == {"empty": 1, "exact_duplicate": 3, "near_duplicate": 2, "too_few_words": 1}
    # Of equal documents the one whose source sorts first is kept.
    pages = {f"page{n}.rst" for n in range(3, 20)} | {f"copy{n}.rst" for n in range(3)}
    assert {document.metadata["path"] for document in kept} == pages | {"private.rst"}
    assert [document.id for document in kept] == sorted(content_id(document.text) for document in kept)
    assert not any("``" in document.text or ":class:" in document.text for document in kept)
    assert all(document.metadata["title"] for document in kept)
    raw_ids = {document.id for document in planted()}
    assert all(document.metadata["raw_id"] in raw_ids for document in kept + dropped)

    ids = {document.id for document in kept}
    for document in dropped:
        if document.metadata["reason"].endswith("duplicate"):
            assert document.metadata["duplicate_of"] in ids
            assert document.metadata["jaccard"] >= RefineConfig().min_jaccard
        else:
            assert "<" in document.metadata["comparison"]

    private = next(document for document in kept if document.metadata["path"] == "private.rst")
    assert private.text.endswith("Write to <EMAIL> or to <IP_ADDRESS> about it.")
    assert report.masked == {"<EMAIL>": 1, "<IP_ADDRESS>": 1}


def test_the_report_counts_by_source(tmp_path: Path):
    report = run(tmp_path, planted(), "out")
    other, package = report.by_source["other==2.0"], report.by_source["package==1.0"]
    assert (other.documents_in, other.documents_kept, other.dropped) == (3, 3, {})
    assert (package.documents_in, package.documents_kept) == (25, 18)
    assert report.bytes_kept == sum(len(document.text.encode()) for document in read_documents(tmp_path / "out"))
    assert report.documents_kept == sum(tally.documents_kept for tally in report.by_source.values())
    assert all(seconds >= 0 for seconds in report.timings.values())


@pytest.mark.parametrize(("seed", "per_shard", "workers"), [(1, 512, 1), (2, 3, 1), (3, 7, 2)])
def test_the_outcome_is_byte_identical_whatever_the_order_shards_and_workers(
    tmp_path: Path, seed: int, per_shard: int, workers: int
):
    run(tmp_path, planted(), "first")
    shuffled = planted()
    random.Random(seed).shuffle(shuffled)
    run(tmp_path, shuffled, "second", per_shard=per_shard, workers=workers)
    assert contents(tmp_path / "first") == contents(tmp_path / "second")


def test_nothing_kept_is_an_error_that_says_why(tmp_path: Path):
    with pytest.raises(ValueError, match=r"kept none of 1 documents \(too_few_words 1\)"):
        run(tmp_path, [raw("Too short.", "a.rst")], "out")


def test_an_empty_folder_is_an_error(tmp_path: Path):
    with pytest.raises(ValueError, match="holds no document"):
        run(tmp_path, [], "out")
