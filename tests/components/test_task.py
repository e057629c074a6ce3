"""A KFP task finds its workspace, settings and code by itself: nobody sets a working folder, an account or a home."""

import getpass
import json
import os
import pwd
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
import yaml

from sluice.components.events import EVENTS_VARIABLE, read_events
from sluice.components.params import load_block
from sluice.components.reproduce import _ask_for_versions
from sluice.components.task import enter_task, remove_program
from sluice.components.workspace import PARAMS_VARIABLE, Workspace
from sluice.core.account import name_user
from sluice.core.failure import StepFailed
from sluice.data.config import IngestConfig, RefineConfig
from sluice.pipelines.compose import compose_without_files


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """A container's environment; what a task sets is taken back."""
    before = dict(os.environ)
    for name in (PARAMS_VARIABLE, EVENTS_VARIABLE, "SLUICE_WORKSPACE"):
        os.environ.pop(name, None)
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    (tmp_path / "volume" / "texts").mkdir(parents=True)
    (tmp_path / "volume" / "texts" / "a.txt").write_text("one")
    return tmp_path / "volume"


def settings(root: Path, *overrides: str) -> str:
    """As they are compiled into a pipeline."""
    params = compose_without_files(Workspace(root), ["profile=tiny", *overrides], here=root)
    return json.dumps(params.dump())


def test_an_empty_volume_becomes_a_workspace_with_the_code_that_runs(root: Path, volume: Path) -> None:
    workspace = enter_task(str(volume / "main"), settings(root), "refine")
    assert workspace.root == volume / "main"
    assert Workspace.find() == workspace, "the stage's own process finds it too"
    for name in ("components", "core", "data", "model", "dvc.yaml"):
        assert (workspace.root / name).resolve() == root / name
    assert (workspace.root / ".dvc" / "config").is_file()
    assert os.environ["PYTHONSAFEPATH"] == "1", "a stage runs the code of the task, not what lies in its folder"
    assert Path(os.environ["DVC_SITE_CACHE_DIR"]).parent == volume.parent / "tmp", "/var/tmp is read-only"
    assert enter_task(str(volume / "main"), settings(root), "refine") == workspace


def test_artifacts_of_another_run_are_refused(root: Path, volume: Path) -> None:
    (volume / "main").mkdir()
    lock = {"stages": {"refine": {"outs": [{"path": "artifacts/refine", "md5": "theirs.dir"}]}}}
    (volume / "main" / "dvc.lock").write_text(yaml.safe_dump(lock))
    enter_task(str(volume / "main"), settings(root), "tokenizer", {"refine": "theirs.dir"})
    with pytest.raises(StepFailed, match=r"artifacts/refine is theirs.dir, and this run made ours.dir: another run"):
        enter_task(str(volume / "main"), settings(root), "tokenizer", {"refine": "ours.dir"})


def test_a_tasks_own_ray_has_a_token(root: Path, volume: Path) -> None:
    """Ray asks for one, and runs in a process of its own, which makes none for others."""
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_ADDRESS"):
        os.environ.pop(name, None)
    enter_task(str(volume / "main"), settings(root), "pretrain")
    assert os.environ["RAY_AUTH_MODE"] == "token" and os.environ["RAY_AUTH_TOKEN"]


def test_a_link_to_another_images_folder_is_made_anew(root: Path, volume: Path) -> None:
    (volume / "main").mkdir()
    (volume / "main" / "core").symlink_to(volume / "gone")
    workspace = enter_task(str(volume / "main"), settings(root), "refine")
    assert (workspace.root / "core").resolve() == root / "core"


def test_settings_and_hashes_of_files_are_the_tasks_own(root: Path, volume: Path) -> None:
    given = settings(root, "data.sources=../texts", "pretrain.steps=7")
    workspace = enter_task(str(volume / "main"), given, "ingest")
    assert workspace.params.parent.parent == volume.parent / "tmp"
    assert not workspace.shown_params.exists()
    assert load_block(workspace, RefineConfig).evaluation_sets[0].sha256 is not None
    first = load_block(workspace, IngestConfig).sources_sha256
    assert first is not None
    (volume / "texts" / "b.txt").write_text("two")
    del os.environ[PARAMS_VARIABLE]
    assert load_block(enter_task(str(volume / "main"), given, "ingest"), IngestConfig).sources_sha256 != first
    del os.environ[PARAMS_VARIABLE]
    other = load_block(enter_task(str(volume / "main"), given, "pack"), IngestConfig)
    assert other.sources_sha256 is None, "the sources are read for ingest alone"


def test_code_of_the_workspace_and_of_the_image_never_mix(root: Path, volume: Path) -> None:
    """A clone on the volume may be of another commit than the image."""
    shutil.copytree(root / "core", volume / "main" / "core")
    enter_task(str(volume / "main"), settings(root), "pack")
    (volume / "main" / "core" / "files.py").write_text("changed")
    events = Path(os.environ[EVENTS_VARIABLE])
    with pytest.raises(StepFailed, match=r"pack: .*/main/core/files.py differs from .* a run has one code"):
        enter_task(str(volume / "main"), settings(root), "pack")
    assert read_events(events)[-1]["kind"] == "failed"


def test_a_user_without_an_account_has_a_name_and_a_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def no_account(_: int) -> Any:
        raise KeyError("getpwuid(): uid not found: 54321")

    monkeypatch.setattr(pwd, "getpwuid", no_account)
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        os.environ.pop(name, None)
    os.environ["HOME"] = "/proc/none"
    name_user()
    assert getpass.getuser() == "sluice"
    assert os.environ["HOME"] == str(tmp_path / "tmp")


def test_new_files_of_a_remote_source_are_a_changed_setting_of_ingest(root: Path, volume: Path) -> None:
    """A nightly run of `s3://` sees them; nothing is downloaded to know."""
    memory = fsspec.filesystem("memory")
    memory.pipe("/nightly/a.txt", b"one")
    workspace = enter_task(str(volume / "main"), settings(root, "data.sources=memory://nightly"), "ingest")

    def versions() -> str | None:
        _ask_for_versions(workspace)
        return load_block(workspace, IngestConfig).versions_sha256

    first = versions()
    assert first is not None and versions() == first
    memory.pipe("/nightly/b.txt", b"two")
    second = versions()
    assert second != first
    memory.pipe("/nightly/b.txt", b"three")
    assert versions() not in {first, second}
    assert "data" in yaml.safe_load((root / "dvc.yaml").read_text())["stages"]["ingest"]["params"]
    memory.rm("/nightly", recursive=True)


def test_the_folder_of_a_components_source_is_removed_and_no_other(tmp_path: Path) -> None:
    own, shared = tmp_path / "own", tmp_path / "shared"
    for folder in (own, shared):
        (folder / "__pycache__").mkdir(parents=True)
        (folder / "ephemeral_component.py").write_text("")
        remove = ["executor_main.py", "--component_module_path", str(folder / "ephemeral_component.py"), "--function"]
        if folder == shared:
            (folder / "notes.txt").write_text("of somebody")
        remove_program(remove)
    remove_program(["executor_main.py"])
    assert not own.exists()
    assert len(list(shared.iterdir())) == 3
