"""Bring one content step up to date: the body of its KFP component. DVC decides whether the step has to run."""

import logging
import os
import re
import shutil
import sys
from contextlib import chdir
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from sluice.components.artifact import read_metrics
from sluice.components.events import EVENTS_VARIABLE, emit, read_events
from sluice.components.params import load_block
from sluice.components.saved_files import read_mapping
from sluice.components.workspace import Workspace
from sluice.core.failure import StepFailed, describe
from sluice.core.files import atomic_write
from sluice.core.out_of_memory import count_oom_kills, describe_exit
from sluice.data.config import IngestConfig

if TYPE_CHECKING:
    from dvc.repo import Repo

_EXIT = re.compile(r"exited with (-?\d+)$")
"""End of DVC's message about a command that failed."""


@dataclass(frozen=True)
class Reproduced:
    """Result of a content step for the graph."""

    content_hash: str
    """The hash DVC keeps of artifacts/<step> in dvc.lock."""
    cached: bool
    metrics: dict[str, Any]

    @property
    def numbers(self) -> dict[str, float]:
        """The top-level numbers of the metrics, which is what KFP's metrics artifact can show."""
        return {name: value for name, value in self.metrics.items() if isinstance(value, int | float)}


def reproduce(workspace: Workspace, step: str) -> Reproduced:
    """`dvc repro` of this one stage. Raises StepFailed with the step's own message."""
    emit(step, "start")
    oom_kills = count_oom_kills()
    try:
        if step == "ingest":
            # Relative paths are from the workspace.
            with chdir(workspace.root):
                _ask_for_versions(workspace)
        if workspace.params != workspace.shown_params:
            # Whatever was written there meanwhile: DVC compares the settings that this run reads.
            with atomic_write(workspace.shown_params) as partial:
                shutil.copyfile(workspace.params, partial)
        if (workspace.root / "dvc.lock").is_file():
            read_lock(workspace)
        from dvc.repo import Repo

        from sluice.components.evidence import is_attested

        logging.basicConfig(level=logging.INFO, stream=sys.stderr)
        # The stage's command says `python`: it must be the interpreter that carries the lock.
        os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        # DVC takes the current folder's dvc.yaml, and nobody sets a working folder for a container.
        with chdir(workspace.root), Repo(str(workspace.root)) as repo:
            _refill_cache(repo, step)
            stages = repo.reproduce(targets=[step], single_item=True)
            if step == "evaluate" and not is_attested(workspace):
                # DVC took it from an earlier release or another workspace: the gate reads what was signed here.
                stages = repo.reproduce(targets=[step], single_item=True, force=True)
    except Exception as error:
        # The stage's own message names the mistake. DVC's error only names the stage; its cause has the reason.
        own = _events(step, "error")
        message = str(own[-1]["message"]) if own else describe(error.__cause__ or error)
        if not own and (ended := _EXIT.search(message)):
            how = describe_exit(int(ended[1]), oom_kills, count_oom_kills())
            message = f"its process {how}; the same `sluice run` goes on from there"
        emit(step, "failed", message=message)
        raise StepFailed(f"{step}: {message}") from error
    # DVC also counts a stage as run when it restored the outputs of an earlier run with the same inputs.
    worked = not os.environ.get(EVENTS_VARIABLE) or bool(_events(step, "work"))
    cached = not worked or all(stage.addressing != step for stage in stages)
    emit(step, "done", cached=cached)
    return Reproduced(content_hash(workspace, step), cached, read_metrics(workspace, step))


def _refill_cache(repo: "Repo", step: str) -> None:
    """Copy whole outputs that its cache lacks back to it: DVC would run the step again."""
    with repo.lock:
        for stage in repo.stage.collect(step):
            for out in stage.outs:
                if out.use_cache and out.exists and out.changed_cache() and not out.changed_checksum():
                    out.commit(relink=False)


def _ask_for_versions(workspace: Workspace) -> None:
    """Write the versions of remote sources into the run's settings, so that DVC sees new ones.

    Raises ValueError for a source that does not answer.
    """
    from sluice.data.sources.remote_hash import versions_sha256

    found = versions_sha256(load_block(workspace, IngestConfig))
    values = yaml.safe_load(workspace.params.read_text())
    if found != values["data"].get("versions_sha256"):
        values["data"]["versions_sha256"] = found
        with atomic_write(workspace.params) as partial:
            partial.write_text(yaml.safe_dump(values, sort_keys=False, allow_unicode=True))


def read_lock(workspace: Workspace) -> dict[str, Any]:
    """DVC's record of each stage's settings, inputs and outputs. Raises ValueError if it is damaged."""
    return read_mapping(
        workspace.root / "dvc.lock",
        "remove it; `sluice run` writes it again, and takes back steps that have run from its cache",
    )


def content_hash(workspace: Workspace, step: str) -> str:
    for out in read_lock(workspace)["stages"][step]["outs"]:
        if out["path"] == f"artifacts/{step}":
            return str(out["md5"])
    raise StepFailed(f"dvc.lock has no artifacts/{step}")


def _events(step: str, kind: str) -> list[dict[str, Any]]:
    path = os.environ.get(EVENTS_VARIABLE)
    return (
        [event for event in read_events(Path(path)) if (event["step"], event["kind"]) == (step, kind)] if path else []
    )
