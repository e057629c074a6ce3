"""Builds from faulty sources: every fault is counted with its location, and the next build is complete."""

import csv
import gzip
import json
import os
import signal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet
from test_refine import page

from sluice.core.manifest import read_manifest
from sluice.data.build import BuildReport, build
from sluice.data.config import IngestConfig, RefineConfig
from sluice.data.document import read_documents
from sluice.data.executor import TaskFailed
from sluice.data.refining.score import ScoreTask, Summary, score_part
from sluice.data.report import EVIDENCE, REJECTS
from sluice.data.sources.formats import read_file

OFF = dict.fromkeys(name for name in RefineConfig.model_fields if name.startswith("max_top_"))
LIMITS = {"max_document_bytes": 20_000, "max_expansion": 50.0}
PARTS, DIES = 6, 3


def built(source: Path, out: Path, *, workers: int = 1, **settings: Any) -> BuildReport:
    config = RefineConfig.model_validate({"workers": workers, "min_jaccard": 1.0, **OFF})
    return build(IngestConfig.model_validate({"sources": str(source), **settings}), config, out)


def line(number: int) -> bytes:
    return json.dumps({"text": page("caching", number)}).encode() + b"\n"


@pytest.fixture
def faulty(tmp_path: Path) -> Path:
    """Eight good documents, and every fault that a source can have."""
    folder = tmp_path / "faulty"
    folder.mkdir()
    whole = gzip.compress(b"".join(line(number) for number in range(40, 240)))
    contents = {
        "bomb.jsonl.gz": gzip.compress(line(1) + b'{"text": "' + bytes(10_000_000) + b'"}\n'),
        "empty.md": b"",
        "latin.jsonl": line(2) + b'{"text": "caf\xe9"}\n' + line(3),
        "long.jsonl": line(4) + b'{"text": "' + b"x" * 100_000 + b'"}\n' + line(5),
        "page.rst": page("signals", 6).encode(),
        "plain.txt": page("signals", 7).encode(),
        "truncated.jsonl.gz": whole[: len(whole) // 2],
    }
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    parquet.write_table(pa.table({"body": ["a"], "size": [1]}), folder / "schema.parquet")
    (folder / "loop").symlink_to(folder)
    return folder


def test_every_fault_is_a_counted_reject_with_its_place_and_the_good_documents_are_kept(
    faulty: Path, tmp_path: Path
) -> None:
    report = built(faulty, tmp_path / "out", **LIMITS)
    with (tmp_path / "out" / EVIDENCE / REJECTS).open(newline="", encoding="utf-8") as table:
        rejects = {row["path"]: (row["line"], row["reason"]) for row in csv.DictReader(table)}
    assert {path: rejects[path] for path in rejects if path != "truncated.jsonl.gz"} == {
        "bomb.jsonl.gz": ("2", "expands more than 50 times"),
        "empty.md": ("", "empty"),
        "latin.jsonl": ("2", "not UTF-8 text, perhaps cp1252: set encoding=cp1252 to read it so"),
        "long.jsonl": ("2", "larger than 20000 bytes"),
        "loop": ("", "directory loop"),
        "schema.parquet": ("", "no text column `text`; columns: body, size; set data.text_field"),
    }
    place, reason = rejects["truncated.jsonl.gz"]
    before_the_end = int(place) - 1
    assert 0 < before_the_end < 200 and reason.startswith("damaged ")
    assert sum(report.ingest.rejects.values()) == len(rejects) == 7
    assert report.refine.documents_in == report.refine.documents_kept == 7 + before_the_end
    kept = {document.metadata["path"] for document in read_documents(tmp_path / "out")}
    assert {"bomb.jsonl.gz:1", "latin.jsonl:1", "latin.jsonl:3", "long.jsonl:1", "long.jsonl:3"} <= kept
    assert {"page.rst", "plain.txt"} <= kept
    built(faulty, tmp_path / "again", **LIMITS)
    assert read_manifest(tmp_path / "again")["files"] == read_manifest(tmp_path / "out")["files"]


def test_a_source_that_disappears_during_a_build_is_counted_and_the_next_build_is_complete(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "source"
    source.mkdir()
    texts = {f"{number}.rst": page("queries", number) for number in range(4)}
    for name, text in texts.items():
        (source / name).write_text(text)
    built(source, tmp_path / "undisturbed")
    begun: list[str] = []

    def and_remove(path: Path, shown: str, *arguments: Any, **options: Any) -> Any:
        begun.append(shown)
        if len(begun) == 3:
            for each in source.iterdir():
                each.unlink()
            source.rmdir()
        yield from read_file(path, shown, *arguments, **options)

    with monkeypatch.context() as patched:
        patched.setattr("sluice.data.sources.units.read_file", and_remove)
        report = built(source, tmp_path / "out")
    assert report.refine.documents_kept == 2
    assert report.ingest.rejects == {"cannot be read (No such file or directory)": 2}
    source.mkdir()
    for name, text in texts.items():
        (source / name).write_text(text)
    assert built(source, tmp_path / "out").refine.documents_kept == 4
    assert read_manifest(tmp_path / "out") == read_manifest(tmp_path / "undisturbed")


def die_at_one(task: ScoreTask) -> Summary:
    if task.number == DIES:
        os.kill(os.getpid(), signal.SIGKILL)
    return score_part(task)


@pytest.mark.process
def test_a_killed_local_worker_is_named_and_the_next_build_ends_with_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sluice.data.refining.refine._LEAST_PART_BYTES", 1000)
    source, one = tmp_path / "pages.jsonl", {"documents_per_shard": 1}
    source.write_bytes(b"".join(line(number) for number in range(PARTS)))
    built(source, tmp_path / "undisturbed", **one)
    with monkeypatch.context() as patched:
        patched.setattr("sluice.data.refining.refine.score_part", die_at_one)
        with pytest.raises(
            TaskFailed, match=rf"a worker process was killed by SIGKILL.* at .*documents-{DIES:04d}\.jsonl"
        ):
            built(source, tmp_path / "out", workers=2, **one)
    assert not (tmp_path / "out").exists()
    half = tmp_path / ".out.partial"
    # The other worker may have finished a part before, or none: then nothing is left.
    assert [path.name for path in half.glob("*")] in ([], ["read"], ["read", "work"], ["work", "read"])
    finished = {path.name for path in half.glob("work/*/summary-*.json")}
    assert f"summary-{DIES:04d}.json" not in finished
    report = built(source, tmp_path / "out", workers=2, **one)
    assert report.refine.documents_kept == PARTS
    assert read_manifest(tmp_path / "out")["files"] == read_manifest(tmp_path / "undisturbed")["files"]
    assert not half.exists()


def test_the_documentation_of_the_installed_packages_is_a_source(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    report = built(Path("installed:"), tmp_path / "out", fallback_bytes=60_000)
    assert report.ingest.fallback_reason is None
    assert report.refine.documents_kept > 5
    assert 30_000 < report.ingest.bytes < 400_000
    assert all(document.metadata["licence"] for document in read_documents(tmp_path / "out"))


def test_several_sources_keep_their_names_and_copies_between_them_go(tmp_path: Path) -> None:
    for name, numbers in {"one": (1, 2), "two": (2, 3)}.items():
        (tmp_path / f"{name}.jsonl").write_bytes(b"".join(map(line, numbers)))
    uris = [str(tmp_path / f"{name}.jsonl") for name in ("one", "two")]
    config = RefineConfig.model_validate({"workers": 1, **OFF})
    report = build(IngestConfig.model_validate({"sources": uris}), config, tmp_path / "out")
    assert report.summary()["sources"] == dict.fromkeys(uris, 2)
    assert (report.refine.documents_kept, report.refine.dropped) == (3, {"exact_duplicate": 1})
