"""Data sets of the hub, without the hub: rows that stream, and the one line where none can."""

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sluice.data.config import IngestConfig, Source
from sluice.data.document import read_documents
from sluice.data.sources.ingest import ingest
from sluice.data.sources.remote_hash import versions_sha256


def test_rows_are_streamed_with_their_origin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    asked: list[tuple[Any, ...]] = []

    def load(
        name: str, configuration: str | None, *, split: str, revision: str | None, streaming: bool
    ) -> Iterator[dict[str, Any]]:
        asked.append((name, configuration, split, revision, streaming))
        yield from ({"story": "one", "n": 1}, {"story": None}, {"story": "three"})

    monkeypatch.setattr("datasets.load_dataset", load)
    source = Source(uri="hf:owner/name:small", split="test", revision="1a2b", text_field="story", licence="MIT")
    report = ingest(IngestConfig(sources=[source]), tmp_path)
    assert asked == [("owner/name", "small", "test", "1a2b", True)]
    documents = list(read_documents(tmp_path))
    assert [(each.text, each.metadata["path"]) for each in documents] == [("one", "test:1"), ("three", "test:3")]
    assert documents[0].metadata["source"] == "hf:owner/name:small"
    assert report.rejects == {"no string under `story`: set data.text_field": 1}
    with pytest.raises(ValueError, match=r"hf:owner/name has no text column `text`; columns: story, n; set data"):
        ingest(IngestConfig(sources="hf:owner/name"), tmp_path)


def test_the_library_itself_streams_a_data_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    # It takes a folder of that name before the hub, and reads it by the same code.
    folder = tmp_path / "owner" / "name"
    folder.mkdir(parents=True)
    for split in ("train", "test"):
        rows = [{"text": f"{split} {number}", "n": number} for number in range(3)]
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    monkeypatch.chdir(tmp_path)
    ingest(IngestConfig(sources=[Source(uri="hf:owner/name", split="test")]), tmp_path)
    found = [(each.text, each.metadata["path"]) for each in read_documents(tmp_path)]
    assert found == [(f"test {number}", f"test:{number + 1}") for number in range(3)]


def test_a_new_commit_is_a_new_version_unless_one_is_pinned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    commits = iter("ab")

    def dataset_info(_: Any, repository: str, *, revision: str | None) -> Any:
        assert (repository, revision) == ("owner/name", None)
        return SimpleNamespace(sha=next(commits) * 40)

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("sluice.data.sources.dataset.connection_fault", lambda url: None)
    monkeypatch.setattr("huggingface_hub.HfApi.dataset_info", dataset_info)
    newest = IngestConfig(sources="hf:owner/name")
    assert versions_sha256(newest) != versions_sha256(newest)
    assert versions_sha256(IngestConfig(sources=[Source(uri="hf:owner/name", revision="c" * 40)])) is None
    (tmp_path / "owner" / "name").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert versions_sha256(newest) is None


def test_no_version_is_asked_for_offline_where_the_library_reads_its_cache(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.HfApi.dataset_info", pytest.fail)
    assert versions_sha256(IngestConfig(sources="hf:owner/name")) is None


def test_without_the_hub_it_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    with pytest.raises(ValueError, match=r"data.sources: hf:owner/name \(split train\) cannot be read") as error:
        ingest(IngestConfig(sources="hf:owner/name"), tmp_path)
    assert "\n" not in str(error.value)


def test_the_libraries_say_nothing_of_their_retries(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    talkative = [logging.getLogger(f"{name}.tries") for name in ("huggingface_hub", "datasets", "fsspec")]
    handler = logging.StreamHandler()
    levels = [logger.parent.level for logger in talkative if logger.parent]

    def load(*_: Any, **__: Any) -> Iterator[dict[str, Any]]:
        for logger in talkative:
            logger.warning("Retrying in 1s")
        raise ConnectionError("no route")

    monkeypatch.setattr("datasets.load_dataset", load)
    for logger in talkative:
        monkeypatch.setattr(logger, "handlers", [handler])
    talkative[0].warning("audible outside")
    with pytest.raises(ValueError, match="no route"):
        ingest(IngestConfig(sources="hf:owner/name"), tmp_path)
    said = capsys.readouterr().err
    assert "Retrying" not in said
    assert "audible outside" in said, "the test would hear it"
    assert [logger.parent.level for logger in talkative if logger.parent] == levels


def test_without_a_network_it_is_said_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("datasets.load_dataset", pytest.fail)
    with pytest.raises(
        ValueError, match=(unreachable := r"hf:owner/name cannot be read, because .* be reached \(127.0.0.1: Conn")
    ):
        ingest(IngestConfig(sources="hf:owner/name"), tmp_path)
    with pytest.raises(ValueError, match=unreachable):
        versions_sha256(IngestConfig(sources="hf:owner/name"))
