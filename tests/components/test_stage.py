"""A step's artifact is whole or absent, says what it was made from, and a failing step says one clear line."""

import json
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from sluice.components.artifact import artifact_hash, check_artifact, read_metrics
from sluice.components.effect import run_effect_step
from sluice.components.events import EVENTS_VARIABLE, EventProgress, read_events
from sluice.components.file_hashes import with_hashes
from sluice.components.reproduce import read_lock
from sluice.components.stage import Stage, run_content_step
from sluice.components.workspace import Workspace
from sluice.core.failure import StepFailed, describe
from sluice.data.config import EvaluationSet, RefineConfig, TokenizerConfig


@dataclass
class Report:
    documents: int
    timings: dict[str, float]


@pytest.fixture
def workspace(tmp_path: Path, root: Path, default_params: Path) -> Workspace:
    """A workspace with the real settings and stage definitions, and code of its own to depend on."""
    (tmp_path / "conf").mkdir()
    shutil.copy(root / "dvc.yaml", tmp_path)
    shutil.copy(default_params, tmp_path)
    for path in yaml.safe_load((root / "dvc.yaml").read_text())["stages"]["ingest"]["deps"]:
        (tmp_path / path).parent.mkdir(exist_ok=True)
        copy = shutil.copytree if (root / path).is_dir() else shutil.copy
        copy(root / path, tmp_path / path)
    return Workspace(tmp_path)


def write_two_files(stage) -> Report:
    (stage.out / "b.txt").write_text("second")
    (stage.out / "a.txt").write_text("first")
    return Report(2, {"read_s": 1.5})


def test_artifact_is_sealed_with_what_it_holds_and_was_made_from(workspace: Workspace) -> None:
    run_content_step(workspace, "ingest", write_two_files)
    folder = workspace.artifact("ingest")
    manifest = json.loads((folder / "manifest.json").read_text())
    assert [entry["name"] for entry in manifest["files"]] == ["a.txt", "b.txt"]
    assert manifest["report"] == {"documents": 2}
    assert set(manifest["parameters"]) == {"data"}
    check_artifact(folder)
    metrics = read_metrics(workspace, "ingest")
    assert metrics["documents"] == 2
    assert metrics["timings"]["read_s"] == 1.5
    assert metrics["timings"]["work_seconds"] >= 0


def test_the_same_step_again_gives_the_same_bytes(workspace: Workspace) -> None:
    hashes = set()
    for _ in range(2):
        run_content_step(workspace, "ingest", write_two_files)
        hashes.add(artifact_hash(workspace.artifact("ingest")))
    assert len(hashes) == 1
    (workspace.root / "data/sources/files.py").write_text("changed = True\n")
    run_content_step(workspace, "ingest", write_two_files)
    assert artifact_hash(workspace.artifact("ingest")) not in hashes, "the code is part of what it was made from"


def test_a_step_that_fails_leaves_the_artifact_before_it_alone(workspace: Workspace) -> None:
    run_content_step(workspace, "ingest", write_two_files)
    before = artifact_hash(workspace.artifact("ingest"))

    def fail_half_way(stage) -> Report:
        (stage.out / "a.txt").write_text("half")
        raise ValueError("a source is broken")

    with pytest.raises(ValueError, match="a source is broken"):
        run_content_step(workspace, "ingest", fail_half_way)
    assert artifact_hash(workspace.artifact("ingest")) == before


def test_an_artifact_that_lost_a_byte_is_refused(workspace: Workspace) -> None:
    run_content_step(workspace, "ingest", write_two_files)
    folder = workspace.artifact("ingest")
    (folder / "a.txt").write_text("firs")
    with pytest.raises(ValueError, match=r"a\.txt has 4 bytes, its manifest says 5"):
        check_artifact(folder)
    with pytest.raises(ValueError, match=r"missing or has no manifest\.json"):
        check_artifact(workspace.artifact("refine"))


@pytest.mark.parametrize("content", ["", "{garb", "[1]"])
def test_damaged_records_of_a_step_are_named_with_the_way_out(workspace: Workspace, content: str) -> None:
    run_content_step(workspace, "ingest", write_two_files)
    workspace.metrics("ingest").write_text(content)
    with pytest.raises(ValueError, match=r"ingest\.json is damaged .*: remove it, and `sluice run` writes it again"):
        read_metrics(workspace, "ingest")
    (workspace.artifact("ingest") / "manifest.json").write_text(content)
    with pytest.raises(ValueError, match=r"manifest\.json is damaged .*: remove .*artifacts/ingest and run again"):
        check_artifact(workspace.artifact("ingest"))
    (workspace.root / "dvc.lock").write_text(": : [" + content)
    with pytest.raises(ValueError, match=r"dvc\.lock is damaged .*: remove it; `sluice run` writes it again"):
        read_lock(workspace)


def test_effects_say_how_they_ended(workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events = tmp_path / "events.jsonl"
    monkeypatch.setenv(EVENTS_VARIABLE, str(events))
    run_effect_step(workspace, "gate", lambda: {"outcome": "hold", "reason": "n=3 < 30"})

    def fail() -> dict[str, str]:
        raise OSError("No space left on device")

    with pytest.raises(StepFailed, match="register: OSError: No space left on device"):
        run_effect_step(workspace, "register", fail)
    said = [(event["step"], event["kind"], event.get("outcome")) for event in read_events(events)]
    assert said == [
        ("gate", "start", None),
        ("gate", "done", "hold"),
        ("register", "start", None),
        ("register", "failed", None),
    ]
    assert read_metrics(workspace, "gate")["reason"] == "n=3 < 30"


def test_a_mistake_speaks_for_itself_and_anything_else_says_its_kind() -> None:
    assert describe(ValueError("a\n  b")) == "a b"
    assert describe(KeyError("x")) == "KeyError: 'x'"


@pytest.mark.process
def test_a_stage_names_the_missing_source_in_one_line(workspace: Workspace, root: Path, tmp_path: Path) -> None:
    params = yaml.safe_load(workspace.params.read_text())
    params["data"]["sources"] = "/no/such/folder"
    workspace.params.write_text(yaml.safe_dump(params))
    done = subprocess.run(
        [sys.executable, "-m", "sluice.components.ingest"],
        cwd=root,
        env={"SLUICE_WORKSPACE": str(workspace.root), "PATH": "/usr/bin:/bin", EVENTS_VARIABLE: str(tmp_path / "e")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert "/no/such/folder" in done.stderr.splitlines()[-1]
    (error,) = [event for event in read_events(tmp_path / "e") if event["kind"] == "error"]
    assert "/no/such/folder" in error["message"]
    assert not workspace.artifact("ingest").exists()


def test_progress_reaches_the_file_whole_and_survives_pickling(tmp_path: Path) -> None:
    import pickle

    path = tmp_path / "events.jsonl"
    progress = pickle.loads(pickle.dumps(EventProgress("pack", str(path))))
    progress(1, 3, "first")
    progress(2, 3, "too soon after the first to be worth a line")
    progress(3, 3, "last")
    with path.open("ab") as file:
        file.write(b'{"step": "pack", "kind": "cut o')
    assert [(event["done"], event["note"]) for event in read_events(path)] == [(1, "first"), (3, "last")]


def test_sources_of_params_are_read_from_the_workspace_whatever_the_current_folder(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sluice.components.ingest

    monkeypatch.setattr(sluice.components.ingest, "request_head", lambda: None)
    texts, elsewhere = {"a": "first", "b": "second"}, tmp_path / "elsewhere"
    for folder, written in ((workspace.root, texts), (elsewhere, dict.fromkeys(texts, "another"))):
        for name, text in written.items():
            (folder / "texts" / name).mkdir(parents=True)
            (folder / "texts" / name / "page.md").write_text(text)
    params = yaml.safe_load(workspace.params.read_text())
    params["data"]["sources"] = ["texts/a", {"uri": "texts/b", "markup": "txt"}]
    workspace.params.write_text(yaml.safe_dump(params))
    monkeypatch.chdir(elsewhere)
    run_content_step(workspace, "ingest", sluice.components.ingest.work)
    read = (workspace.artifact("ingest") / "documents-0000.jsonl").read_text().splitlines()
    assert [json.loads(line)["text"] for line in read] == ["first", "second"]
    sources = [json.loads(line)["metadata"]["source"] for line in read]
    assert sources == ["texts/a", "texts/b"], "an artifact does not know where the workspace lies"


def test_an_interrupted_ingest_goes_on_with_what_it_has_read(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sluice.components.ingest
    from sluice.data.sources import parts

    monkeypatch.setattr(sluice.components.ingest, "request_head", lambda: None)
    monkeypatch.setattr(parts, "PART_UNITS", 2)
    (workspace.root / "texts").mkdir()
    for number in range(8):
        (workspace.root / "texts" / f"{number}.md").write_text(f"text {number}")
    params = yaml.safe_load(workspace.params.read_text())
    params["data"]["sources"] = ["texts"]
    workspace.params.write_text(yaml.safe_dump(params))
    read: list[int] = []
    most = 2

    def read_some(task: parts.ReadTask) -> parts.PartReport:
        if not (task.folder / parts.DONE).is_file():
            if len(read) == most:
                raise KeyboardInterrupt
            read.append(task.number)
        return parts.read_part(task)

    monkeypatch.setattr("sluice.data.sources.ingest.read_part", read_some)
    with pytest.raises(KeyboardInterrupt):
        run_content_step(workspace, "ingest", sluice.components.ingest.work)
    most = 4
    run_content_step(workspace, "ingest", sluice.components.ingest.work)
    shards = sorted(workspace.artifact("ingest").glob("documents-*.jsonl"))
    texts = [json.loads(line)["text"] for shard in shards for line in shard.read_text().splitlines()]
    assert texts == [f"text {number}" for number in range(8)]
    assert sorted(read) == [0, 1, 2, 3], "each part once"
    assert not (workspace.state / "read").exists()


def test_a_file_that_changed_after_params_were_composed_is_refused(workspace: Workspace, tmp_path: Path) -> None:
    names = {name: workspace.root / f"{name}.json" for name in ("quiz", "quality", "tokenizer")}
    first = '{"model": {"vocab": {}}}'
    for path in names.values():
        path.write_text(first)
    sets = [EvaluationSet(path="quiz.json")]
    refine = with_hashes(RefineConfig(evaluation_sets=sets, quality_model="quality.json"), workspace.root)
    tokenizer = with_hashes(TokenizerConfig(path="tokenizer.json"), workspace.root)
    params = yaml.safe_load(workspace.params.read_text())
    blocks = {"refine": refine.model_dump(mode="json"), "tokenizer": tokenizer.model_dump(mode="json")}
    workspace.params.write_text(yaml.safe_dump({**params, **blocks}))
    held = (
        ("quiz", "refine", RefineConfig),
        ("quality", "refine", RefineConfig),
        ("tokenizer", "tokenizer", TokenizerConfig),
    )
    for name, step, kind in held:
        stage = Stage(workspace, step, tmp_path)
        assert stage.block(kind) == (refine if step == "refine" else tokenizer)
        names[name].write_text("second")
        with pytest.raises(ValueError, match=rf"{name}\.json is not the file that params\.yaml was composed with"):
            stage.block(kind)
        names[name].unlink()
        with pytest.raises(ValueError, match=rf"{name}\.json is no file"):
            stage.block(kind)
        names[name].write_text(first)
    unhashed = refine.model_copy(update={"quality_model_sha256": None}).model_dump(mode="json")
    workspace.params.write_text(yaml.safe_dump({**params, "refine": unhashed}))
    with pytest.raises(ValueError, match=r"quality\.json is not the file"):
        Stage(workspace, "refine", tmp_path).block(RefineConfig)
