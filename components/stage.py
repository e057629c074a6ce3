"""A content step: settings and inputs in, a complete artifact or none out.

dvc.yaml is the one definition of a step: its blocks of params.yaml, the artifacts it reads and the code it runs are
taken from there.
"""

import hashlib
import shutil
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from sluice.components.artifact import artifact_hash, check_artifact, plain, write_metrics
from sluice.components.events import EventProgress, emit
from sluice.components.params import BLOCKS, load_block
from sluice.components.ray_head import prepare_own_ray
from sluice.components.workspace import Workspace
from sluice.core.failure import describe
from sluice.core.manifest import file_hash, write_manifest
from sluice.core.settings.files import AnyBlock, hash_files


@dataclass(frozen=True)
class Stage:
    """A running content step."""

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

    def block(self, kind: type[AnyBlock]) -> AnyBlock:
        """A block of params.yaml that dvc.yaml lists for the stage: a change to any other would go unnoticed.

        Raises ValueError where a file that it names has changed since params.yaml was composed.
        """
        listed = self.definition["params"]
        assert kind.block_name in listed, (
            f"dvc.yaml: stage {self.step} does not list the params block {kind.block_name}"
        )
        block = load_block(self.workspace, kind)
        hash_files(kind, block.model_dump(mode="json"), self.workspace.root, composing=False)
        return block

    def input(self, step: str) -> Path:
        """Folder of another step's artifact. Raises ValueError if it is missing or does not match its manifest."""
        assert step in self.inputs, f"dvc.yaml: stage {self.step} does not list artifacts/{step}"
        folder = self.workspace.artifact(step)
        check_artifact(folder)
        return folder


def run_content_step(workspace: Workspace, step: str, work: Callable[[Stage], Any]) -> None:
    """Run `work` into a temporary sibling of artifacts/<step>, write its manifest and rename it to artifacts/<step>.

    The manifest holds neither time nor place: equal inputs, code and parameters give an equal manifest.
    """
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
    kinds = [kind for kind in BLOCKS if kind.block_name in stage.definition["params"]]
    write_manifest(
        partial,
        step=step,
        report=report,
        parameters={kind.block_name: load_block(workspace, kind).shown() for kind in kinds},
        code_sha256=tree_hash(workspace.root, stage.code),
        inputs={name: artifact_hash(workspace.artifact(name)) for name in stage.inputs},
    )
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)
    timings["work_seconds"] = time.perf_counter() - started
    write_metrics(workspace, step, report, timings)
    if remember := getattr(worked, "remember", None):
        remember()


def main(step: str, work: Callable[[Stage], Any]) -> None:
    """Run `python -m sluice.components.<step>`; a failure ends it with one line on stderr."""
    prepare_own_ray()
    try:
        run_content_step(Workspace.find(), step, work)
    except Exception as error:
        traceback.print_exc()
        message = describe(error)
        emit(step, "error", message=message)
        sys.exit(f"{step}: {message}")


def tree_hash(root: Path, names: list[str]) -> str:
    """sha256 over the Python and YAML files at or below `names`."""
    digest = hashlib.sha256()
    for name in sorted(names):
        top = root / name
        for path in sorted(top.rglob("*") if top.is_dir() else [top]):
            if path.suffix in {".py", ".yaml"}:
                digest.update(f"{path.relative_to(root).as_posix()} {file_hash(path)}\n".encode())
    return digest.hexdigest()
