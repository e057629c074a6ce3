"""The registry over real MLflow: on sqlite with local artifacts, and through an MLflow server."""

# ruff: noqa: F811  (pytest finds the imported fixtures by name)

import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from release_fixtures import Workspace, empty_database, workspace, write_model  # noqa: F401

from sluice.model.directory import load_model, model_hash
from sluice.serving.registry import Registry

TAGS = {"git_commit": "c0ffee", "dvc_lock": "1" * 64, "data": "2" * 64, "tokenizer": "3" * 64}


@pytest.fixture
def verdict(tmp_path: Path) -> Path:
    path = tmp_path / "verdict.json"
    path.write_text(json.dumps({"outcome": "promote"}))
    return path


def test_a_version_carries_files_lineage_and_metrics(
    workspace: Workspace,
    make_model: Callable[..., Path],
    verdict: Path,
) -> None:
    registry, folder = workspace.registry, make_model(1)
    version = registry.register(folder, verdict, TAGS, {"bits_per_byte": 1.75}, "a small one")
    (info,) = registry.versions()
    assert info.version == version == "1"
    assert info.tags.items() >= TAGS.items() and info.tags["model_hash"] == model_hash(folder)
    assert info.metrics == {"bits_per_byte": 1.75}
    assert info.description == "a small one" and info.aliases == () and info.run_id
    assert registry.verdict_path(version).read_bytes() == verdict.read_bytes()
    assert registry.check_model(version) == model_hash(folder)
    load_model(registry.model_folder(version))
    names = {path.name for path in (workspace.root / "mlartifacts").rglob("*") if path.is_file()}
    assert names == {path.name for path in folder.iterdir()} | {"verdict.json"}


def test_local_artifacts_are_used_in_place(workspace: Workspace) -> None:
    version = workspace.register("one")
    folder = workspace.registry.model_folder(version)
    assert folder.is_relative_to(workspace.root / "mlartifacts") and folder == workspace.registry.model_folder(version)


def test_registering_again_gives_the_same_version(workspace: Workspace, verdict: Path) -> None:
    one, two = (write_model(workspace.root / name, name) for name in ("one", "two"))
    registry = workspace.registry
    assert [registry.register(model, verdict, TAGS, {}) for model in (one, two, one)] == ["1", "2", "1"]
    verdict.write_text(json.dumps({"outcome": "hold"}))
    assert registry.register(one, verdict, TAGS, {}) == "3"
    assert [info.version for info in registry.versions()] == ["1", "2", "3"]


def test_a_registration_killed_between_run_and_version_is_repeated(
    workspace: Workspace,
    verdict: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    registry, folder = workspace.registry, write_model(workspace.root / "one", "one")

    def killed(*args: object, **kwargs: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(registry._client, "create_model_version", killed)
        with pytest.raises(KeyboardInterrupt):
            registry.register(folder, verdict, TAGS, {})
    assert registry.versions() == []
    assert registry.register(folder, verdict, TAGS, {}) == "1"


def test_aliases_move_and_are_dropped(workspace: Workspace) -> None:
    registry = workspace.registry
    assert registry.alias("champion") is None
    first, second = workspace.register("one"), workspace.register("two")
    registry.set_alias("champion", first)
    registry.set_alias("challenger", second)
    registry.set_alias("champion", second)
    assert registry.alias("champion") == second
    assert [info.aliases for info in registry.versions()] == [(), ("challenger", "champion")]
    registry.drop_alias("champion")
    assert registry.alias("champion") is None and registry.alias("challenger") == second


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json"])
def test_changed_files_are_refused(workspace: Workspace, name: str) -> None:
    version = workspace.register("one")
    with (workspace.registry.model_folder(version) / name).open("ab") as file:
        file.write(b" ")
    for read in (workspace.registry.model_folder, workspace.registry.check_model):
        with pytest.raises(ValueError, match="model hash"):
            read(version)


def test_a_changed_or_missing_verdict_is_refused(workspace: Workspace) -> None:
    version = workspace.register("one")
    path = workspace.registry.verdict_path(version)
    path.write_text("{}")
    with pytest.raises(ValueError, match="verdict with which version 1 was registered"):
        workspace.registry.verdict_path(version)
    path.unlink()
    with pytest.raises(ValueError, match="verdict with which version 1 was registered"):
        workspace.registry.verdict_path(version)


def test_mistakes_are_named(workspace: Workspace, verdict: Path, tmp_path: Path) -> None:
    registry, folder = workspace.registry, write_model(tmp_path / "m", "m")
    with pytest.raises(ValueError, match="no such verdict"):
        registry.register(folder, tmp_path / "nothing.json", {}, {})
    with pytest.raises(ValueError, match=r"model_hash.*leave them out"):
        registry.register(folder, verdict, {"model_hash": "mine"}, {})
    with pytest.raises(ValueError, match=r"not a model directory"):
        registry.register(tmp_path / "empty", verdict, {}, {})
    with pytest.raises(ValueError, match="no version 7; registered: none"):
        registry.model_folder("7")
    registry.register(folder, verdict, {}, {})
    with pytest.raises(ValueError, match="no version 7; registered: 1"):
        registry.set_alias("champion", "7")


def test_a_ledger_made_first_does_not_keep_mlflow_from_its_tables(tmp_path: Path, verdict: Path) -> None:
    from sluice.serving.ledger import Ledger

    url = f"sqlite:///{tmp_path / 'mlflow.db'}"
    ledger = Ledger(url)
    assert Registry(url, tmp_path / "mlartifacts").register(write_model(tmp_path / "m", "m"), verdict, {}, {}) == "1"
    assert ledger.verify().ok


@pytest.fixture
def mlflow_server(empty_database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """MLflow's own server, handing out artifacts, in a thread of this process."""
    from mlflow.server import ARTIFACTS_DESTINATION_ENV_VAR, BACKEND_STORE_URI_ENV_VAR, SERVE_ARTIFACTS_ENV_VAR, app
    from werkzeug.serving import make_server

    monkeypatch.setenv(BACKEND_STORE_URI_ENV_VAR, f"sqlite:///{empty_database}")
    monkeypatch.setenv(ARTIFACTS_DESTINATION_ENV_VAR, (tmp_path / "remote").as_uri())
    monkeypatch.setenv(SERVE_ARTIFACTS_ENV_VAR, "true")
    server = make_server("127.0.0.1", 0, app, threaded=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join(timeout=300)


def test_artifacts_behind_a_server_are_downloaded_once_and_checked(
    mlflow_server: str, tmp_path: Path, verdict: Path
) -> None:
    folder = write_model(tmp_path / "m", "remote")
    registry = Registry(mlflow_server, "mlflow-artifacts:/", "remote", downloads=tmp_path / "downloads")
    version = registry.register(folder, verdict, TAGS, {"bits_per_byte": 2.0})
    registry.set_alias("champion", version)
    registry.set_anchor(3, "abc")
    other = Registry(mlflow_server, "mlflow-artifacts:/", "remote", downloads=tmp_path / "downloads")
    fetched = other.model_folder(version)
    assert fetched.is_relative_to(tmp_path / "downloads") and model_hash(fetched) == model_hash(folder)
    assert other.verdict_path(version).read_bytes() == verdict.read_bytes()
    assert other.alias("champion") == version and other.anchor() == (3, "abc")
    assert other.versions()[0].metrics == {"bits_per_byte": 2.0}
    (fetched / "config.json").write_text("changed")
    with pytest.raises(ValueError, match="model hash"):
        other.model_folder(version)
