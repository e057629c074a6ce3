"""The hash of what local sources hold: it follows every file that is read, and nothing else."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from sluice.data.config import IngestConfig
from sluice.data.sources.local_hash import contents_sha256, refuse_changed


@pytest.fixture
def texts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "here" / "texts"
    (folder / "below").mkdir(parents=True)
    for name in ("a.md", "below/b.txt", "picture.png"):
        (folder / name).write_text(name)
    monkeypatch.chdir(folder.parent)
    return folder


def of(*sources: Any) -> IngestConfig:
    return IngestConfig(sources=list(sources))


@pytest.mark.parametrize(
    "change",
    [
        lambda folder: (folder / "a.md").write_text("A.md"),
        lambda folder: (folder / "c.md").write_text("new"),
        lambda folder: (folder / "below" / "b.txt").unlink(),
        lambda folder: (folder / "a.md").rename(folder / "aa.md"),
        lambda folder: (folder / "again").symlink_to(folder),
    ],
)
def test_what_changes_the_documents_or_rejects_changes_the_hash(texts: Path, change: Callable[[Path], object]) -> None:
    config = of("texts")
    composed = config.model_copy(update={"sources_sha256": contents_sha256(config)})
    refuse_changed(composed)
    change(texts)
    assert contents_sha256(config) != composed.sources_sha256
    with pytest.raises(ValueError, match="files were changed after the settings were composed"):
        refuse_changed(composed)


def test_time_place_and_files_that_are_not_read_are_of_no_account(texts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = contents_sha256(of("texts"))
    (texts / "picture.png").write_text("another")
    (texts / ".hidden").write_text("not read")
    os.utime(texts / "a.md", (1, 1))
    shutil.move(texts.parent, texts.parents[1] / "there")
    monkeypatch.chdir(texts.parents[1] / "there")
    assert contents_sha256(of("texts")) == before is not None


def test_only_what_a_source_chooses_counts(texts: Path) -> None:
    chosen = of({"uri": "texts", "include": ["*.md"]})
    before = contents_sha256(chosen), contents_sha256(of("texts/*.md"))
    (texts / "below" / "b.txt").write_text("another")
    assert (contents_sha256(chosen), contents_sha256(of("texts/*.md"))) == before
    (texts / "a.md").write_text("another")
    assert not {contents_sha256(chosen), contents_sha256(of("texts/*.md"))} & set(before)


def test_a_file_that_is_none_is_not_waited_for(texts: Path) -> None:
    os.mkfifo(texts / "pipe.txt")
    assert contents_sha256(of("texts")) is not None


def test_sources_elsewhere_have_no_hash_and_one_that_does_not_exist_is_no_error_yet(texts: Path) -> None:
    assert contents_sha256(of("s3://bucket/texts", "pypi:django==5.2.19", "installed:")) is None
    assert contents_sha256(IngestConfig(packages=[PACKAGE])) is None
    gone = contents_sha256(of("gone"))
    (texts.parent / "gone").mkdir()
    (texts.parent / "gone" / "a.md").write_text("here now")
    assert contents_sha256(of("gone")) != gone is not None
    refuse_changed(of("gone"))


def test_settings_speak_of_the_hash_only_where_there_is_one() -> None:
    config = of("texts")
    assert "sources_sha256" not in config.model_dump(mode="json") and "sources_sha256" not in config.shown()
    held = config.model_copy(update={"sources_sha256": "ab"})
    assert IngestConfig.model_validate(yaml.safe_load(yaml.safe_dump(held.model_dump(mode="json")))) == held


PACKAGE: Any = {"name": "a", "version": "1", "sha256": "0" * 64, "licence": "MIT", "include": ["*"]}
