"""The registry over real MLflow: on sqlite with local artifacts, and through an MLflow server."""

# ruff: noqa: F811  (pytest finds the imported fixtures by name)

import hashlib
import json
import shutil
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from release_fixtures import Workspace, empty_database, open_copy, workspace, write_model  # noqa: F401

from sluice.core.manifest import file_hash
from sluice.model.directory import load_model, model_hash, write_lineage
from sluice.serving.ledger_trust import Head
from sluice.serving.registry import LEDGER_HEAD, Evidence, Registry

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
    version = registry.register(folder, verdict, Evidence(TAGS, {"bits_per_byte": 1.75}, description="a small one"))
    (info,) = registry.versions()
    assert info.version == version == "1"
    assert info.tags.items() >= TAGS.items() and info.tags["model_hash"] == model_hash(folder)
    assert info.metrics == {"bits_per_byte": 1.75}
    assert info.description == "a small one" and info.aliases == () and info.run_id
    assert registry.verdict_path(version).read_bytes() == verdict.read_bytes()
    assert registry.check_model(version) == model_hash(folder)
    load_model(registry.model_folder(version))
    folders = {path.parent.name for path in (workspace.root / "mlartifacts").rglob("*") if path.is_file()}
    assert folders == {"artifacts", "model", "verdict"}, "the MLflow model, the unchanged directory, the verdict"
    kept = next((workspace.root / "mlartifacts").rglob("model"))
    assert {path.name for path in kept.iterdir()} == {path.name for path in folder.iterdir()}


def test_local_artifacts_are_used_in_place(workspace: Workspace) -> None:
    version = workspace.register("one")
    folder = workspace.registry.model_folder(version)
    assert folder.is_relative_to(workspace.root / "mlartifacts") and folder == workspace.registry.model_folder(version)


def test_prompts_are_versions_by_their_text(workspace: Workspace) -> None:
    registry = workspace.registry
    assert registry.keep_prompts({}) == {}
    assert registry.keep_prompts({"capitals": "What is {x}?", "capitals.rubric.answer": "Score"}) == {
        "capitals": 1,
        "capitals.rubric.answer": 1,
    }
    assert registry.keep_prompts({"capitals": "Say {x}."}) == {"capitals": 2}
    assert registry.keep_prompts({"capitals": "What is {x}?"}) == {"capitals": 1}
    assert (
        registry.keep_prompts({"long": "x" * 200_000}) == registry.keep_prompts({"long": "x" * 200_000}) == {"long": 1}
    )
    kept = registry._client.get_prompt_version(f"{registry.model_name}-capitals", 2)
    assert kept.template == "Say {x}." and kept.tags["sha256"] == hashlib.sha256(b"Say {x}.").hexdigest()
    # A prompt is no model, and gets no alias.
    assert registry.versions() == [] and registry.aliases() == {}


def test_the_newest_ledger_entry_is_noted_with_the_registered_model(workspace: Workspace) -> None:
    registry = workspace.registry
    registry.note_anchor(1, "a" * 64)
    assert registry.anchor() is None, "no version is registered"
    workspace.register("one")
    assert registry.anchor() is None
    registry.note_anchor(3, "b" * 64)
    registry.note_anchor(2, "a" * 64)
    assert registry.anchor() == Head(3, "b" * 64), "a late writer takes nothing back"
    elsewhere = Registry(registry._tracking_uri, "s3://another-machine/without-the-folder", registry.model_name)
    assert elsewhere.anchor() == Head(3, "b" * 64)
    registry.note_anchor(2, "c" * 64, repaired=True)
    assert registry.anchor() == Head(2, "c" * 64)


@pytest.mark.parametrize("text", ["", "3", "three:ab", "-1:ab", "3:"])
def test_an_unreadable_note_of_the_ledger_is_an_error(workspace: Workspace, text: str) -> None:
    workspace.register("one")
    workspace.registry._client.set_registered_model_tag(workspace.registry.model_name, LEDGER_HEAD, text)
    with pytest.raises(ValueError, match="is not SEQUENCE:HASH"):
        workspace.registry.anchor()


def test_registering_again_gives_the_same_version(workspace: Workspace, verdict: Path) -> None:
    one, two = (write_model(workspace.root / name, name) for name in ("one", "two"))
    registry = workspace.registry
    assert [registry.register(model, verdict, Evidence(TAGS)) for model in (one, two, one)] == ["1", "2", "1"]
    verdict.write_text(json.dumps({"outcome": "hold"}))
    assert registry.register(one, verdict, Evidence(TAGS)) == "3"
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
            registry.register(folder, verdict, Evidence(TAGS))
    assert registry.versions() == []
    assert registry.register(folder, verdict, Evidence(TAGS)) == "1"


def test_a_copied_workspace_stands_alone(workspace: Workspace, tmp_path_factory: pytest.TempPathFactory) -> None:
    version = workspace.register("one")
    before = sorted((workspace.root / "mlartifacts").rglob("*"))
    copy = open_copy(workspace.root, tmp_path_factory.mktemp("copy"))
    second = copy.register("two")
    assert sorted((workspace.root / "mlartifacts").rglob("*")) == before, "the copy wrote into the original"
    shutil.rmtree(workspace.root)
    for each in (version, second):
        assert copy.registry.model_folder(each).is_relative_to(copy.root)
        assert copy.registry.verdict_path(each).is_relative_to(copy.root)
    with closing(sqlite3.connect(copy.root / "mlflow.db")) as connection:
        assert str(workspace.root) not in "".join(connection.iterdump()), "an absolute path is stored"


def test_a_workspace_whose_experiment_names_another_place_is_read_and_written_at_its_own(
    workspace: Workspace, verdict: Path, tmp_path: Path
) -> None:
    """As databases of earlier releases do."""
    registry, elsewhere = workspace.registry, tmp_path / "elsewhere"
    client = registry._client
    experiment = client.create_experiment(registry.model_name, artifact_location=elsewhere.as_uri())
    run = client.create_run(experiment)
    model = write_model(workspace.root / "mlartifacts" / run.info.run_id / "artifacts" / "model", "one")
    client.create_registered_model(registry.model_name)
    tags = {"model_hash": model_hash(model), "verdict": file_hash(verdict)}
    client.create_model_version(
        registry.model_name, f"{run.info.artifact_uri}/model", run.info.run_id, tags=tags, await_creation_for=0
    )
    assert registry.model_folder("1") == model
    second = registry.register(write_model(tmp_path / "two", "two"), verdict, Evidence())
    assert registry.model_folder(second).is_relative_to(workspace.root / "mlartifacts") and not elsewhere.exists()
    assert registry.register(model, verdict, Evidence()) == "1", "its verdict's hash has another tag"
    assert registry.verdict_path("1").read_bytes() == verdict.read_bytes()


def test_the_page_of_a_version_says_what_it_is_and_why_it_may_serve(workspace: Workspace, verdict: Path) -> None:
    lineage, card = workspace.root / "params.yaml", workspace.root / "README.md"
    lineage.write_text("pretrain: {steps: 3}")
    card.write_text("# the card")
    evidence = Evidence(
        tags={"verdict": "promote", "params": file_hash(lineage)},
        metrics={f"evaluate/{number}": float(number) for number in range(120)},
        params={f"pretrain.{number}": str(number) for number in range(120)},
        description="# the card",
        files={"lineage": [lineage], "": [card]},
        user="ada",
    )
    registry = workspace.registry
    version = registry.register(write_model(workspace.root / "one", "one"), verdict, evidence)
    lineage.unlink()
    (info,) = registry.versions()
    assert info.description == "# the card" and info.tags["verdict"] == "promote"
    assert info.tags["verdict_sha256"] == file_hash(verdict)
    run = registry._client.get_run(info.run_id)
    assert (run.info.run_name, run.data.tags["mlflow.user"]) == (f"sluice v{version}", "ada")
    assert run.data.tags["mlflow.note.content"] == "# the card" and run.data.tags["verdict"] == "promote"
    assert (run.data.params, dict(run.data.metrics)) == (evidence.params, evidence.metrics)
    kept = registry.model_folder(version).parent
    assert file_hash(kept / "lineage" / "params.yaml") == info.tags["params"]
    assert (kept / "README.md").read_text() == "# the card"
    assert registry._registered().description


def test_lost_or_changed_files_are_written_again_by_registering_the_same_model(
    workspace: Workspace, verdict: Path
) -> None:
    registry, folder = workspace.registry, write_model(workspace.root / "one", "one")
    version = registry.register(folder, verdict, Evidence())
    kept = registry.model_folder(version)
    shutil.rmtree(kept)
    with pytest.raises(ValueError, match=r"files of version 1, is gone: .*`sluice promote`"):
        registry.model_folder(version)
    assert registry.register(folder, verdict, Evidence()) == version and registry.check_model(version)
    (kept.parent / "verdict" / "verdict.json").write_text("{}")
    assert registry.register(folder, verdict, Evidence()) == version
    assert registry.verdict_path(version).read_bytes() == verdict.read_bytes()
    shutil.rmtree(kept)
    verdict.write_text(json.dumps({"outcome": "hold"}))
    assert registry.register(folder, verdict, Evidence()) == "2" and registry.check_model(version)


def test_files_that_do_not_match_their_lineage_are_neither_registered_nor_served(
    workspace: Workspace, verdict: Path
) -> None:
    registry, folder = workspace.registry, write_model(workspace.root / "one", "one")
    (folder / "generation_config.json").write_text("{}")
    write_lineage(folder, {}, ("model.safetensors", "generation_config.json"))
    weights = (folder / "model.safetensors").read_text()
    (folder / "model.safetensors").write_text("other weights")
    with pytest.raises(ValueError, match=r"one/model.safetensors is not the file that was saved .*: restore"):
        registry.register(folder, verdict, Evidence())
    assert registry.versions() == []
    (folder / "model.safetensors").write_text(weights)
    version = registry.register(folder, verdict, Evidence())
    # A file that the model's hash does not cover.
    (registry.model_folder(version) / "generation_config.json").write_text('{"eos_token_id": 7}')
    for read in (registry.model_folder, registry.check_model):
        with pytest.raises(ValueError, match=r"model/generation_config.json is not the file that was saved"):
            read(version)


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
        registry.register(folder, tmp_path / "nothing.json", Evidence())
    with pytest.raises(ValueError, match=r"model_hash.*leave them out"):
        registry.register(folder, verdict, Evidence({"model_hash": "mine"}))
    with pytest.raises(ValueError, match=r"not a model directory"):
        registry.register(tmp_path / "empty", verdict, Evidence())
    with pytest.raises(ValueError, match="no version 7; registered: none"):
        registry.model_folder("7")
    registry.register(folder, verdict, Evidence())
    with pytest.raises(ValueError, match="no version 7; registered: 1"):
        registry.set_alias("champion", "7")


def test_a_ledger_made_first_does_not_keep_mlflow_from_its_tables(tmp_path: Path, verdict: Path) -> None:
    from sluice.serving.ledger import Ledger
    from sluice.serving.ledger_trust import LedgerTrust

    url = f"sqlite:///{tmp_path / 'mlflow.db'}"
    ledger = Ledger(url, "sluice", LedgerTrust(tmp_path / "ledger"))
    assert (
        Registry(url, tmp_path / "mlartifacts").register(write_model(tmp_path / "m", "m"), verdict, Evidence()) == "1"
    )
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
    version = registry.register(folder, verdict, Evidence(TAGS, {"bits_per_byte": 2.0}))
    registry.set_alias("champion", version)
    other = Registry(mlflow_server, "mlflow-artifacts:/", "remote", downloads=tmp_path / "downloads")
    fetched = other.model_folder(version)
    assert fetched.is_relative_to(tmp_path / "downloads") and model_hash(fetched) == model_hash(folder)
    assert other.verdict_path(version).read_bytes() == verdict.read_bytes()
    assert other.alias("champion") == version
    assert other.versions()[0].metrics == {"bits_per_byte": 2.0}
    (fetched / "config.json").write_text("changed")
    with pytest.raises(ValueError, match="model hash"):
        other.model_folder(version)
