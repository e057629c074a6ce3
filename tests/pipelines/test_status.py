"""`sluice status`: the last run as it is, never an earlier one's result."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sluice.components.artifact import write_metrics
from sluice.components.workspace import STEPS, Workspace
from sluice.pipelines.runner import RunFolder
from sluice.pipelines.status import status


@pytest.fixture
def workspace(tmp_path: Path, default_params: Path) -> Iterator[Workspace]:
    workspace = Workspace(tmp_path)
    workspace.params.write_text(default_params.read_text())
    yield workspace


def add_run(workspace: Workspace, name: str, *events: dict[str, Any]) -> None:
    folder = RunFolder(workspace.runs / name)
    folder.path.mkdir(parents=True)
    folder.events.write_text("".join(json.dumps(event) + "\n" for event in events))


def event(step: str, kind: str, **fields: Any) -> dict[str, Any]:
    return {"step": step, "kind": kind, "time": 1.0, **fields}


def done(step: str, **fields: Any) -> list[dict[str, Any]]:
    return [event(step, "start"), event(step, "done", **fields)]


def test_without_a_run(workspace: Workspace) -> None:
    found = status(workspace)
    assert (found["run"], found["state"], found["verdict"], found["metrics"]) == (None, "none", None, {})


def test_a_failed_run_has_no_verdict_of_an_earlier_one(workspace: Workspace) -> None:
    whole = [each for step in STEPS for each in done(step, outcome="promote" if step == "gate" else None)]
    for step in STEPS:
        write_metrics(workspace, step, {"outcome": "promote"}, {})
    add_run(workspace, "20260101-000000", *whole)
    found = status(workspace)
    assert (found["run"], found["state"], found["verdict"]) == ("20260101-000000", "done", "promote")
    assert next(step for step in found["steps"] if step["name"] == "gate")["outcome"] == "promote"

    add_run(workspace, "20260102-000000", *done("ingest"), event("refine", "failed", message="refine: nothing is kept"))
    found = status(workspace)
    assert (found["run"], found["state"]) == ("20260102-000000", "failed")
    assert found["message"] == "refine: nothing is kept"
    assert (found["verdict"], set(found["metrics"])) == (None, {"ingest"})


@pytest.mark.process
def test_a_killed_run_is_not_running(workspace: Workspace) -> None:
    add_run(workspace, "20260101-000000", *done("ingest"), event("refine", "start"))
    hold = "import fcntl, sys; f = open(sys.argv[1], 'a+'); fcntl.flock(f, 2); print('held', flush=True); input()"
    lock = str(workspace.state / "run.lock")
    with subprocess.Popen(
        [sys.executable, "-c", hold, lock], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        assert status(workspace)["state"] == "running"
        os.kill(holder.pid, signal.SIGKILL)
    found = status(workspace)
    assert found["state"] == "interrupted" and "ended in refine" in found["message"]
    assert {step["name"]: step["state"] for step in found["steps"]}["refine"] == "interrupted"
