"""What every step has in common: its settings, its inputs, an artifact that is whole or absent, its metrics, one clear
line when it fails.

dvc.yaml is the one definition of a step: its parameter blocks, the artifacts it reads and the code it runs are taken
from there.
"""

import hashlib
import json
import os
import shutil
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass, is_dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel

from sluice.components.events import EVENTS_VARIABLE, EventProgress, emit
from sluice.components.files import check_hashes
from sluice.components.params import load_block
from sluice.components.workspace import Workspace
from sluice.core.manifest import MANIFEST, SCHEMA, file_hash, list_files
from sluice.core.settings.block import Block

AnyBlock = TypeVar("AnyBlock", bound=Block)


class StepFailed(Exception):
    """A step ended without a result. The message is one line for the user."""


@dataclass(frozen=True)
class Stage:
    """A content step at work."""

    workspace: Workspace
    step: str
    out: Path
    """Empty folder to write into; it becomes the artifact when the step returns."""

    @cached_property
    def definition(self) -> dict[str, Any]:
        stage: dict[str, Any] = yaml.safe_load((self.workspace.root / "dvc.yaml").read_text())["stages"][self.step]
        return stage

    @property
    def inputs(self) -> list[str]:
        return [Path(path).name for path in self.definition["deps"] if path.startswith("artifacts/")]

    @property
    def code(self) -> list[str]:
        return [path for path in self.definition["deps"] if not path.startswith("artifacts/")]

    @property
    def progress(self) -> EventProgress:
        return EventProgress(self.step)

    def block(self, name: str, kind: type[AnyBlock]) -> AnyBlock:
        """A block of params.yaml; it must be among the stage's params, or a change to it would go unnoticed.

        ValueError where a file that it names has changed since params.yaml was composed.
        """
        assert name in self.definition["params"], f"dvc.yaml: stage {self.step} does not list the params block {name}"
        block = load_block(self.workspace, name)
        assert isinstance(block, kind)
        check_hashes(block, self.workspace.root)
        return block

    def input(self, step: str) -> Path:
        """Folder of another step's artifact. Raises ValueError where it is missing or does not match its manifest."""
        assert step in self.inputs, f"dvc.yaml: stage {self.step} does not list artifacts/{step}"
        folder = self.workspace.artifact(step)
        check_artifact(folder)
        return folder


def run_content_step(workspace: Workspace, step: str, work: Callable[[Stage], Any]) -> None:
    """Run `work` into a temporary sibling of artifacts/<step>, seal it with a manifest and move it into place."""
    started = time.perf_counter()
    emit(step, "work")
    folder = workspace.artifact(step)
    partial = folder.with_name(f".{step}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    stage = Stage(workspace, step, partial)
    worked = work(stage)
    report = plain(worked)
    timings = report.pop("timings", {})
    write_json(partial / MANIFEST, _manifest(stage, report))
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)
    if remember := getattr(worked, "remember", None):
        remember()
    timings["work_seconds"] = time.perf_counter() - started
    write_metrics(workspace, step, report, timings)


def run_effect_step(workspace: Workspace, step: str, work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Run a step that acts on the world outside. `work` returns its metrics, with `outcome` among them: what it decided
    or did.

    Raises StepFailed with one line for the user.
    """
    started = time.perf_counter()
    emit(step, "start")
    try:
        result = work()
    except Exception as error:
        if os.environ.get(EVENTS_VARIABLE):
            # Into the run's log; a command shows it with --debug.
            traceback.print_exc()
        message = describe(error)
        emit(step, "failed", message=message)
        raise StepFailed(f"{step}: {message}") from error
    timings = {**result.pop("timings", {}), "work_seconds": time.perf_counter() - started}
    write_metrics(workspace, step, result, timings)
    emit(step, "done", cached=False, outcome=result["outcome"])
    return result


def write_metrics(workspace: Workspace, step: str, report: dict[str, Any], timings: dict[str, float]) -> None:
    """metrics/<step>.json: what was counted, and apart from it what was timed, which differs from run to run."""
    rounded = {name: round(value, 4) for name, value in sorted(timings.items())}
    write_json(workspace.metrics(step), {**report, "timings": rounded})


def read_metrics(workspace: Workspace, step: str) -> dict[str, Any]:
    path = workspace.metrics(step)
    return json.loads(path.read_text()) if path.is_file() else {}


def artifact_hash(folder: Path) -> str:
    """The sha256 of an artifact's manifest, which holds the sha256 of everything else in it."""
    return hashlib.sha256((folder / MANIFEST).read_bytes()).hexdigest()


def check_artifact(folder: Path) -> None:
    """Raise ValueError unless the folder holds what its manifest says, by name and size."""
    if not (folder / MANIFEST).is_file():
        raise ValueError(f"{folder} is missing or has no {MANIFEST}: `sluice run` makes it")
    for entry in json.loads((folder / MANIFEST).read_text())["files"]:
        path = folder / entry["name"]
        size = path.stat().st_size if path.is_file() else None
        if size != entry["size_bytes"]:
            raise ValueError(
                f"{path} has {size} bytes, its manifest says {entry['size_bytes']}: remove {folder} and run again"
            )


def main(step: str, work: Callable[[Stage], Any]) -> None:
    """The whole of `python -m components.<step>`."""
    try:
        run_content_step(Workspace.find(), step, work)
    except Exception as error:
        traceback.print_exc()
        message = describe(error)
        emit(step, "error", message=message)
        sys.exit(f"{step}: {message}")


def describe(error: BaseException) -> str:
    """An exception as one line: a user's mistake speaks for itself, anything else says what kind it is."""
    text = " ".join(str(error).split()) or "no message"
    return text if isinstance(error, ValueError | StepFailed) else f"{type(error).__name__}: {text}"


def plain(report: Any) -> dict[str, Any]:
    """A room's report as a dict."""
    if isinstance(report, BaseModel):
        return report.model_dump(mode="json")
    assert is_dataclass(report) and not isinstance(report, type), (
        f"a report is a model or a dataclass, not {type(report)}"
    )
    return asdict(report)


def write_json(path: Path, value: Any) -> None:
    """Sorted, indented, whole or absent."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n")
    temporary.replace(path)


def _manifest(stage: Stage, report: dict[str, Any]) -> dict[str, Any]:
    """Nothing of time or place in it: equal inputs, code and parameters give an equal manifest."""
    return {
        "schema": SCHEMA,
        "step": stage.step,
        "report": report,
        "parameters": {name: load_block(stage.workspace, name).shown() for name in stage.definition["params"]},
        "code_sha256": tree_hash(stage.workspace.root, stage.code),
        "inputs": {step: artifact_hash(stage.workspace.artifact(step)) for step in stage.inputs},
        "files": list_files(stage.out),
    }


def tree_hash(root: Path, names: list[str]) -> str:
    """sha256 over the Python and YAML files at or below `names`."""
    digest = hashlib.sha256()
    for name in sorted(names):
        top = root / name
        for path in sorted(top.rglob("*") if top.is_dir() else [top]):
            if path.suffix in {".py", ".yaml"}:
                digest.update(f"{path.relative_to(root).as_posix()} {file_hash(path)}\n".encode())
    return digest.hexdigest()
