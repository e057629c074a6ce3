"""Builds from start to end: what must never be written or lost, and what is refused before anything is read."""

import errno
import fcntl
import json
import os
import unicodedata
from pathlib import Path
from typing import Any

import pytest
from test_refine import page

from sluice.core.manifest import read_manifest
from sluice.data.build import build
from sluice.data.config import EvaluationSet, IngestConfig, RefineConfig, Source
from sluice.data.refilter import refilter
from sluice.data.refining.tables import PAIRS, read_decisions

QUESTION = "Which of the seven seas did the very old captain of the wooden ship cross first in spring"


def jsonl(path: Path, texts: list[str]) -> Path:
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return path


def loose(**settings: Any) -> RefineConfig:
    """Only what a test asks for can drop a document."""
    off = {name: None for name in RefineConfig.model_fields if name.startswith(("max_top_", "min_stop", "max_dup"))}
    return RefineConfig(**{**off, "workers": 1, **settings})


def words(prefix: str, count: int) -> str:
    return " ".join(f"{prefix}{number}" for number in range(count))


def kept_texts(folder: Path) -> list[str]:
    return [json.loads(line)["text"] for path in sorted(folder.glob("*.jsonl")) for line in path.open()]


def everything(folder: Path) -> bytes:
    import pyarrow.parquet as pq

    tables = [str(pq.read_table(path).to_pylist()).encode() for path in folder.rglob("*.parquet")]
    return b"".join([*tables, *(path.read_bytes() for path in folder.rglob("*") if path.is_file())])


def test_no_secret_of_a_uri_and_no_address_in_a_name_is_written(tmp_path: Path):
    source = jsonl(tmp_path / "jane.doe@corp-mail.com.jsonl", [page("caching", n) for n in range(3)])
    config = IngestConfig(sources=[Source(uri=f"file://user:hunter2@{source}?X-Signature=SECRETSIG", markup="rst")])
    assert "hunter2" not in str(config.shown()) and "SECRETSIG" not in str(config.shown())
    build(IngestConfig(sources=str(tmp_path / "*.jsonl")), loose(), tmp_path / "out")
    assert b"corp-mail" not in everything(tmp_path / "out" / "evidence")
    assert b"corp-mail" not in (tmp_path / "out" / "card.html").read_bytes()


def test_the_first_row_of_a_table_without_a_header_is_in_no_message(tmp_path: Path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "people.csv").write_text("jane.doe@corp-mail.com,4111 1111 1111 1111\njohn@corp-mail.com,5\n")
    jsonl(tmp_path / "in" / "pages.jsonl", [page("caching", n) for n in range(3)])
    report = build(IngestConfig(sources=str(tmp_path / "in")), loose(), tmp_path / "out")
    assert report.ingest.rejects == {"no text column `text`: set data.text_field": 1}
    assert b"corp-mail" not in everything(tmp_path / "out")


def test_raw_text_stays_nowhere_after_a_failure(tmp_path: Path):
    source = jsonl(tmp_path / "a.jsonl", ["Write to jane.doe@corp-mail.com."])
    with pytest.raises(ValueError, match=r"kept none .*; the scores are kept in .*/\.out\.partial for the next try"):
        build(IngestConfig(sources=str(source)), loose(), tmp_path / "out")
    left = [path for path in tmp_path.rglob("*") if path.is_file() and path != source]
    assert not any(b"corp-mail" in path.read_bytes() for path in left)


def test_a_twin_that_is_dropped_after_cutting_drops_no_other_document(tmp_path: Path):
    """Y is the longer of two near duplicates and so kept; but a leak is cut out of it, and it gets too short."""
    shared = words("alpha", 38)
    x, y = f"{shared} {words('beta', 8)}", f"{shared} {words('beta', 5)} {QUESTION}"
    sets = [EvaluationSet(path=str(jsonl(tmp_path / "quiz.jsonl", [QUESTION])), policy="cut")]
    settings = loose(min_words=45, min_jaccard=0.5, evaluation_sets=sets)
    source = jsonl(tmp_path / "a.jsonl", [x, y])
    report = build(IngestConfig(sources=str(source)), settings, tmp_path / "out")
    assert report.refine.dropped == {"too_few_words": 1}
    assert kept_texts(tmp_path / "out") == [x]


def test_a_line_is_kept_by_a_document_that_stays(tmp_path: Path):
    line = words("gamma", 10)
    falls, stays = f"{words('delta', 32)}\n\n{line}\n\n{QUESTION}.", f"{words('eps', 60)}\n\n{line}"
    sets = [EvaluationSet(path=str(jsonl(tmp_path / "quiz.jsonl", [QUESTION])), policy="cut")]
    for order in ([falls, stays], [stays, falls]):
        source = jsonl(tmp_path / "a.jsonl", order)
        settings = loose(min_words=45, max_piece_copies=1, evaluation_sets=sets)
        build(IngestConfig(sources=str(source)), settings, tmp_path / "out")
        assert [text.count(line) for text in kept_texts(tmp_path / "out")] == [1]


def test_documents_that_are_dropped_do_not_hide_near_duplicates(tmp_path: Path):
    body = words("zeta", 80)
    hidden = [f"{body} ..." + " ..." * (20 + n) for n in range(70)]
    texts = [*hidden, body, body.replace(" ", "  ", 1).replace("zeta79", "zeta79!")]
    source = jsonl(tmp_path / "a.jsonl", texts)
    report = build(IngestConfig(sources=str(source)), loose(max_ellipsis_line_fraction=None), tmp_path / "out")
    assert report.refine.dropped["symbols"] == 70
    assert report.refine.documents_kept == 1


@pytest.mark.parametrize(
    ("document", "item"),
    [
        ("Où est l'été où naïveté déjà chérie rêvait à côté du château", None),
        ("Please write to the desk at jane.doe@corp-mail.com before the ninth of May", None),
        ("What is the capital city of Mongolia", {"question": "What is the capital city of Mongolia", "why": QUESTION}),
    ],
)
def test_items_are_found_however_they_are_written(tmp_path: Path, document: str, item: dict[str, str] | None):
    asked = item or {"question": unicodedata.normalize("NFD", document)}
    (tmp_path / "quiz.jsonl").write_text(json.dumps(asked) + "\n")
    source = jsonl(tmp_path / "a.jsonl", [f"{page('caching', 1)}\n{document}\n", page("caching", 2)])
    settings = loose(evaluation_sets=[str(tmp_path / "quiz.jsonl")])
    report = build(IngestConfig(sources=str(source)), settings, tmp_path / "out")
    assert report.refine.dropped == {"contaminated": 1}


def test_a_refiltered_build_is_what_a_fresh_build_with_these_thresholds_is(tmp_path: Path):
    quiz = jsonl(tmp_path / "quiz.jsonl", [QUESTION])
    texts = [page("caching", n) for n in range(4)] + [f"{page('signals', 1)}\n{QUESTION}\n", words("eta", 20)]
    texts += copies(80, longer=40)
    source = IngestConfig(sources=str(jsonl(tmp_path / "a.jsonl", texts)))
    build(source, loose(evaluation_sets=[str(quiz)]), tmp_path / "refiltered")
    new = {"contamination_policy": "cut", "min_words": 10, "max_words": 405}
    refilter(tmp_path / "refiltered", new)
    build(source, loose(evaluation_sets=[str(quiz)], **new), tmp_path / "fresh")
    same_build(tmp_path / "refiltered", tmp_path / "fresh")


def copies(count: int, longer: int) -> list[str]:
    """Variants of a text of 400 words, each with one word changed; some are longer by 22 words."""
    template = [f"theta{number}" for number in range(400)]
    texts = []
    for number in range(count):
        changed = [*template]
        changed[number * 7 % 400] = f"changed{number}"
        texts.append(" ".join([*changed, *(f"more{number}x{each}" for each in range(22 if number < longer else 0))]))
    return texts


def same_build(one: Path, other: Path) -> None:
    assert read_manifest(one) == read_manifest(other)
    assert read_decisions(one) == read_decisions(other)
    assert (one / "evidence" / PAIRS).read_bytes() == (other / "evidence" / PAIRS).read_bytes()


def test_a_refiltered_build_finds_the_near_duplicates_that_longer_copies_hid(tmp_path: Path):
    """Each of a hundred longer copies is compared with the first of the band; without them, others are the first."""
    texts = [*copies(300, longer=100), *(page("caching", number) for number in range(5))]
    source = IngestConfig(sources=str(jsonl(tmp_path / "a.jsonl", texts)))
    off = {"min_substring_words": None, "max_piece_copies": None}
    build(source, loose(**off), tmp_path / "refiltered")
    before = read_manifest(tmp_path / "refiltered")
    build(source, loose(**off, max_words=405), tmp_path / "fresh")
    for _ in range(2):
        done = refilter(tmp_path / "refiltered", {"max_words": 405})
        same_build(tmp_path / "refiltered", tmp_path / "fresh")
        assert done.after.documents_kept == 6
        refilter(tmp_path / "refiltered", {"max_words": loose().max_words})
        assert read_manifest(tmp_path / "refiltered") == before, "there and back again"


def test_what_a_failed_build_kept_is_no_duplicate_of_a_later_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    index = tmp_path / "index"
    lost = jsonl(tmp_path / "lost.jsonl", [page("caching", 1)])
    new = jsonl(tmp_path / "new.jsonl", [page("signals", 2)])
    settings = loose(index=str(index))

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "manifest.json")

    with monkeypatch.context() as patch:
        patch.setattr("sluice.data.build.seal", full)
        with pytest.raises(OSError, match="No space left"):
            build(IngestConfig(sources=str(lost)), settings, tmp_path / "out")
    both = build(IngestConfig(sources=[str(lost), str(new)]), settings, tmp_path / "out")
    assert both.refine.documents_kept == 2, "what nobody has is kept by the next build that reads it"
    assert len([path for path in index.iterdir() if path.is_dir()]) == 1


def test_both_sizes_of_ngrams_are_reported_and_a_setting_chooses_one(tmp_path: Path):
    quiz, few = jsonl(tmp_path / "quiz.jsonl", [QUESTION]), " ".join(QUESTION.split()[:9])
    whole, edited = f"{page('signals', 1)}\n{QUESTION}\n", f"{page('caching', 2)}\n{few}\n"
    source = IngestConfig(sources=str(jsonl(tmp_path / "a.jsonl", [page("caching", 1), whole, edited])))
    report = build(source, loose(evaluation_sets=[str(quiz)]), tmp_path / "out")
    assert report.refine.dropped == {"contaminated": 1}
    assert report.summary()["contaminated"] == {"quiz": 1}
    assert report.summary()["shared_ngrams"] == {"quiz": {"8": 2, "13": 1}}
    assert [text for text in kept_texts(tmp_path / "out") if few in text] != []
    done = refilter(tmp_path / "out", {"contamination_sign": "any"})
    assert done.after.dropped == {"contaminated": 2}
    assert done.after.contaminated == {"quiz": 2}
    assert done.after.shared_ngrams == report.refine.shared_ngrams
    build(source, loose(evaluation_sets=[str(quiz)], contamination_sign="any"), tmp_path / "fresh")
    assert read_manifest(tmp_path / "out") == read_manifest(tmp_path / "fresh")


def test_the_hash_is_of_what_is_kept_however_it_lies_in_files(tmp_path: Path):
    texts = [page("caching", n) for n in range(9)]
    one = IngestConfig(sources=str(jsonl(tmp_path / "one.jsonl", texts)))
    (tmp_path / "many").mkdir()
    for name, part in (("b", texts[:4]), ("a", texts[:3:-1])):
        jsonl(tmp_path / "many" / f"{name}.jsonl", part)
    many = IngestConfig(sources=str(tmp_path / "many"), documents_per_shard=2)
    index = str(tmp_path / "index")
    hashes = {
        build(source, loose(index=index), tmp_path / name).refine.content_sha256
        for source, name in ((one, "out-one"), (many, "out-many"))
    }
    assert len(hashes) == 1, "the index must know the same texts in other files as the same run"


def test_what_cannot_go_well_is_refused_before_anything_is_read(tmp_path: Path):
    (tmp_path / "in").mkdir()
    source = IngestConfig(sources=str(jsonl(tmp_path / "in" / "a.jsonl", [page("caching", 1)]).parent))
    with pytest.raises(ValueError, match="contain each other"):
        build(source, loose(), tmp_path / "in" / "out")
    with pytest.raises(ValueError, match="no-such-set"):
        build(source, loose(evaluation_sets=[str(tmp_path / "no-such-set.jsonl")]), tmp_path / "out")
    with pytest.raises(ValueError, match="is a file"):
        build(source, loose(), tmp_path / "in" / "a.jsonl" / "out")
    with pytest.raises(ValueError, match="listed twice"):
        IngestConfig(sources=["a", "a"])
    with pytest.raises(ValueError, match="is empty"):
        IngestConfig(sources=[""])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in"]


def test_two_builds_of_one_folder_do_not_disturb_each_other(tmp_path: Path):
    source = IngestConfig(sources=str(jsonl(tmp_path / "a.jsonl", [page("caching", 1)])))
    half = tmp_path / ".out.partial"
    half.mkdir()
    lock = os.open(half, os.O_RDONLY)
    fcntl.flock(lock, fcntl.LOCK_EX)
    try:
        with pytest.raises(ValueError, match="another build is running"):
            build(source, loose(), tmp_path / "out")
    finally:
        os.close(lock)
    assert build(source, loose(), tmp_path / "out").refine.documents_kept == 1


def test_a_build_that_died_while_it_was_put_in_place_is_put_back(tmp_path: Path):
    source = IngestConfig(sources=str(jsonl(tmp_path / "a.jsonl", [page("caching", 1)])))
    build(source, loose(), tmp_path / "out")
    before = read_manifest(tmp_path / "out")
    (tmp_path / "out").rename(tmp_path / ".out.old")
    with pytest.raises(ValueError, match="kept none"):
        build(source, loose(min_words=90_000), tmp_path / "out")
    assert read_manifest(tmp_path / "out") == before
