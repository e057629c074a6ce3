"""Reading in parts: the same documents for any workers, and after an interrupt nothing is read twice."""

import json
import os
import signal
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from test_build import loose
from test_refine import page

from sluice.core.manifest import read_manifest
from sluice.data.build import build
from sluice.data.config import IngestConfig, Source
from sluice.data.document import read_documents
from sluice.data.executor import TaskFailed, run_tasks
from sluice.data.sources import parts
from sluice.data.sources.ingest import IngestReport, ingest
from sluice.data.sources.parts import DONE, PartReport, ReadTask, read_part

DOCUMENTS = 48


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Files of every kind, with rejects among them."""
    folder = tmp_path / "source"
    folder.mkdir()
    for number in range(DOCUMENTS // 4):
        text = page("caching", number)
        (folder / f"{number:02d}.txt").write_text(text)
        (folder / f"{number:02d}.md").write_text(f"# Part {number}\n\n{page('signals', number)}")
        (folder / f"{number:02d}.html").write_text(f"<html><body><p>{page('queries', number)}</p></body></html>")
        row = json.dumps({"text": page("files", number), "id": number})
        (folder / f"{number:02d}.jsonl").write_text(f"{row}\n{{broken\n")
    (folder / "noise.bin").write_bytes(b"\0")
    return folder


@pytest.fixture(autouse=True)
def _small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "PART_UNITS", 5)
    monkeypatch.setattr("sluice.data.sources.ingest.LEAST_UNITS", 10)


def read(source: Path, out: Path, **options: Any) -> IngestReport:
    out.mkdir()
    workers = options.pop("workers", 1)
    return ingest(IngestConfig(sources=str(source), workers=workers), out, **options)


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


class Interrupted(BaseException):
    """A key press, or a kill that the process does not survive."""


def interrupting(after: int, seen: list[ReadTask]) -> Any:
    """Return an executor that stops after some parts, and notes those that it reads."""

    def run(function: Any, tasks: list[ReadTask], **_: Any) -> list[PartReport]:
        reports = []
        for task in tasks:
            if len(reports) == after:
                raise Interrupted
            if not (task.folder / DONE).is_file():
                seen.append(task)
            reports.append(function(task))
        return reports

    return run


@pytest.mark.process
def test_documents_do_not_depend_on_the_workers(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A file that is read in ranges.
    rows = [json.dumps({"text": page("ranges", number)}) for number in range(DOCUMENTS)]
    (source / "large.jsonl").write_text("\n".join(["{broken", *rows]))
    large = (source / "large.jsonl").stat().st_size
    monkeypatch.setattr(parts, "PART_BYTES", large // 6)
    with monkeypatch.context() as patched:
        patched.setattr("sluice.data.sources.ingest.SPLIT_BYTES", large)
        alone = read(source, tmp_path / "one")
        together = read(source, tmp_path / "three", workers=3)
    read(source, tmp_path / "whole")
    assert files(tmp_path / "one") == files(tmp_path / "three")
    assert alone.model_dump(exclude={"timings"}) == together.model_dump(exclude={"timings"})
    assert (alone.documents, alone.rejects) == (
        2 * DOCUMENTS,
        {"line is not a JSON object": DOCUMENTS // 4 + 1, "unsupported suffix .bin": 1},
    )
    first, whole = (list(read_documents(tmp_path / name)) for name in ("one", "whole"))
    assert first == whole


@pytest.mark.parametrize("after", [0, 3, 9])
def test_an_interrupted_reading_goes_on_where_it_was(source: Path, tmp_path: Path, after: int) -> None:
    read(source, tmp_path / "undisturbed")
    work, first, second = tmp_path / "work", [], []  # type: Path, list[ReadTask], list[ReadTask]
    with pytest.raises(Interrupted):
        read(source, tmp_path / "half", work=work, executor=interrupting(after, first))
    assert len(first) == after
    read(source, tmp_path / "out", work=work, executor=interrupting(99, second))
    assert {task.key for task in first}.isdisjoint(task.key for task in second)
    assert len(first) + len(second) == 10
    assert files(tmp_path / "out") == files(tmp_path / "undisturbed")


def test_a_part_that_was_half_written_is_read_again(source: Path, tmp_path: Path) -> None:
    read(source, tmp_path / "undisturbed")
    work = tmp_path / "work"
    read(source, tmp_path / "first", work=work)
    for folder in sorted(work.iterdir())[:3]:
        (folder / DONE).unlink()
        (folder / "documents-0000.jsonl").write_text("cut o")
        (folder / "documents-0007.jsonl").write_text("left by another version")
    read(source, tmp_path / "out", work=work)
    assert files(tmp_path / "out") == files(tmp_path / "undisturbed")


def test_only_the_parts_of_changed_files_are_read_again(source: Path, tmp_path: Path) -> None:
    work, seen = tmp_path / "work", []  # type: Path, list[ReadTask]
    read(source, tmp_path / "first", work=work)
    (source / "05.txt").write_text("changed text")
    read(source, tmp_path / "second", work=work, executor=interrupting(99, seen))
    assert len(seen) == 1
    assert "changed text" in {each.text for each in read_documents(tmp_path / "second")}
    assert len(list(work.iterdir())) == 10, "the part before the change is gone"
    seen.clear()
    (tmp_path / "third").mkdir()
    config = IngestConfig(sources=str(source), fields=[])
    ingest(config, tmp_path / "third", work=work, executor=interrupting(99, seen))
    assert len(seen) == 10, "another setting, another part"


def test_raw_text_is_for_its_owner_and_goes_with_a_finished_build(source: Path, tmp_path: Path) -> None:
    out, half = tmp_path / "out", tmp_path / ".out.partial"
    modes: list[int] = []

    def look(_done: int, _total: int, _note: str) -> None:
        modes.extend(stat.S_IMODE(path.stat().st_mode) for path in (half, half / "read") if path.exists())

    build(IngestConfig(sources=str(source), workers=1), loose(), out, progress=look)
    assert set(modes) == {0o700}
    assert not half.exists()


@pytest.mark.parametrize("where", ["read_part", "similar_pairs", "write_outcome"])
def test_a_build_interrupted_anywhere_ends_with_the_same_bytes(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    config = IngestConfig(sources=str(source), workers=1)
    build(config, loose(), tmp_path / "undisturbed")
    calls: list[int] = []

    def stop(*_: Any, **__: Any) -> Any:
        raise KeyboardInterrupt

    def stop_later(task: ReadTask) -> PartReport:
        calls.append(task.number)
        return read_part(task) if len(calls) < 5 else stop()

    module = "sources.ingest" if where == "read_part" else "refining.refine"
    with monkeypatch.context() as patched:
        patched.setattr(f"sluice.data.{module}.{where}", stop_later if where == "read_part" else stop)
        with pytest.raises(KeyboardInterrupt):
            build(config, loose(), tmp_path / "out")
    kept = len(list((tmp_path / ".out.partial" / "read").glob(f"*/{DONE}")))
    assert kept == (4 if where == "read_part" else 10)
    build(config, loose(), tmp_path / "out")
    assert read_manifest(tmp_path / "out")["files"] == read_manifest(tmp_path / "undisturbed")["files"]


def test_after_a_mistake_of_the_user_no_raw_text_is_left(source: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="kept none"):
        build(IngestConfig(sources=str(source), workers=1), loose(min_words=10_000), tmp_path / "out")
    assert not (tmp_path / ".out.partial" / "read").exists()


def die_at_the_fourth(task: ReadTask) -> PartReport:
    if task.number == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return read_part(task)


@pytest.mark.process
def test_a_killed_worker_is_named_and_the_next_reading_is_complete(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read(source, tmp_path / "undisturbed")
    with monkeypatch.context() as patched:
        patched.setattr("sluice.data.sources.ingest.read_part", die_at_the_fourth)
        with pytest.raises(TaskFailed, match=r"killed by SIGKILL.* at .*\.(txt|md|html|jsonl) to .* \(reading\)"):
            read(source, tmp_path / "half", work=tmp_path / "work", executor=run_tasks, workers=2)
    read(source, tmp_path / "out", work=tmp_path / "work", executor=run_tasks, workers=2)
    assert files(tmp_path / "out") == files(tmp_path / "undisturbed")


def test_what_has_no_version_is_read_each_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def rows(*_: Any) -> Iterator[dict[str, Any]]:
        yield {"text": "one"}

    monkeypatch.setattr("sluice.data.sources.dataset._rows", rows)
    seen: list[ReadTask] = []
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        config = IngestConfig(sources=["hf:owner/name"])
        ingest(config, tmp_path / name, work=tmp_path / "work", executor=interrupting(99, seen))
    assert [task.key for task in seen] == ["", ""]
    seen.clear()
    for name in ("third", "fourth"):
        (tmp_path / name).mkdir()
        config = IngestConfig(sources=[Source(uri="hf:owner/name", revision="0" * 40)])
        ingest(config, tmp_path / name, work=tmp_path / "work", executor=interrupting(99, seen))
    assert len(seen) == 1, "a commit pins the content"
