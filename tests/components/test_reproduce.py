"""Stages that DVC runs again, and those that it does not."""

import os
import shutil
from pathlib import Path

import pytest
import yaml
from release_fixtures import write_model
from synthetic_evaluations import items, write_evaluation

from sluice.components.artifact import write_metrics
from sluice.components.evidence import attest_candidate
from sluice.components.reproduce import reproduce
from sluice.components.workspace import Workspace
from sluice.core.failure import StepFailed
from sluice.core.manifest import write_manifest
from sluice.model.model_files import model_hash


@pytest.fixture
def done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """A workspace in which the step ingest is done."""
    from dvc.repo import Repo

    monkeypatch.setenv("DVC_SITE_CACHE_DIR", str(tmp_path / "site"))
    monkeypatch.setitem(os.environ, "PATH", os.environ["PATH"])
    workspace = Workspace(tmp_path / "workspace")
    (workspace.root / ".dvc").mkdir(parents=True)
    (workspace.root / ".dvc" / "config").write_text("[core]\n    no_scm = true\n    analytics = false\n")
    stage = {"cmd": "exit 9", "params": ["data"], "outs": ["artifacts/ingest"]}
    (workspace.root / "dvc.yaml").write_text(yaml.safe_dump({"stages": {"ingest": stage}}))
    workspace.shown_params.write_text("data: {sources: texts}")
    for name in ("one.txt", "below/two.txt"):
        (workspace.artifact("ingest") / name).parent.mkdir(parents=True, exist_ok=True)
        (workspace.artifact("ingest") / name).write_text(name)
    write_metrics(workspace, "ingest", {"documents": 2}, {})
    monkeypatch.chdir(workspace.root)
    with Repo(str(workspace.root)) as repo:
        repo.commit("ingest", force=True)
    return workspace


@pytest.mark.parametrize("lost", [".", "files", "files/md5/*", "runs"])
def test_a_lost_cache_repeats_nothing_where_the_artifact_is_whole(done: Workspace, lost: str) -> None:
    cache = done.root / ".dvc" / "cache"
    for path in cache.glob(lost) if lost != "." else [cache]:
        shutil.rmtree(path)
    again = reproduce(done, "ingest")
    assert again.cached and again.metrics["documents"] == 2
    # The cache is whole again: a lost artifact comes back from it.
    shutil.rmtree(done.artifact("ingest"))
    assert reproduce(done, "ingest").content_hash == again.content_hash
    assert (done.artifact("ingest") / "below" / "two.txt").read_text() == "below/two.txt"


def test_a_changed_artifact_is_not_taken_for_the_lost_one(done: Workspace) -> None:
    from dvc.repo import Repo

    from sluice.components.reproduce import _refill_cache

    shutil.rmtree(done.root / ".dvc" / "cache")
    (done.artifact("ingest") / "one.txt").write_text("changed")
    with Repo(str(done.root)) as repo:
        _refill_cache(repo, "ingest")
        assert repo.status("ingest")
    assert not list((done.root / ".dvc" / "cache").rglob("*.dir"))


@pytest.mark.process
@pytest.mark.parametrize(
    ("command", "how"), [("kill -9 $$", "was killed by SIGKILL.*"), ("sh -c 'kill -9 $$'; exit $?", "was killed by .*")]
)
def test_a_step_that_the_system_kills_says_so_and_what_goes_on(done: Workspace, command: str, how: str) -> None:
    stage = {"cmd": command, "params": ["data"], "outs": ["artifacts/ingest"]}
    (done.root / "dvc.yaml").write_text(yaml.safe_dump({"stages": {"ingest": stage}}))
    with pytest.raises(StepFailed, match=rf"^ingest: its process {how}; the same `sluice run` goes on from there$"):
        reproduce(done, "ingest")


@pytest.mark.process
def test_an_evaluation_that_nobody_here_attested_is_measured_again(done: Workspace) -> None:
    """As after an upgrade, or in a workspace whose `.sluice` was lost."""
    from dvc.repo import Repo

    write_model(done.artifact("tune"), "candidate")
    write_evaluation(done.artifact("evaluate"), model_hash(done.artifact("tune")), items(0.0, seed=1))
    write_manifest(done.artifact("evaluate"), parameters={}, code_sha256="c", inputs={})
    write_metrics(done, "evaluate", {}, {})
    shutil.copytree(done.artifact("evaluate"), done.root / "kept")
    stage = {"cmd": "cp -r kept artifacts/evaluate && touch again", "params": ["data"], "outs": ["artifacts/evaluate"]}
    (done.root / "dvc.yaml").write_text(yaml.safe_dump({"stages": {"evaluate": stage}}))
    with Repo(str(done.root)) as repo:
        repo.commit("evaluate", force=True)
    attest_candidate(done)
    assert reproduce(done, "evaluate").cached and not (done.root / "again").exists()
    shutil.rmtree(done.state / "attestations")
    assert not reproduce(done, "evaluate").cached and (done.root / "again").exists()


def test_a_damaged_lock_is_named_before_anything_is_removed(done: Workspace) -> None:
    lock = done.root / "dvc.lock"
    lock.write_text(": : [")
    with pytest.raises(StepFailed, match=r"dvc\.lock is damaged .*: remove it; `sluice run` writes it again"):
        reproduce(done, "ingest")
    assert done.artifact("ingest").is_dir()
