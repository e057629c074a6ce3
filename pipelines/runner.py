"""A local run from the outside: start the child that runs the pipeline, show its events, record and check the result.

Nothing of KFP, DVC or Ray is imported here.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import psutil

import sluice
from sluice.components.artifact import read_metrics
from sluice.components.events import Tail, read_events
from sluice.components.params import Params
from sluice.components.workspace import STEPS, Workspace
from sluice.core.failure import StepFailed
from sluice.core.files import lock_holder, try_lock, write_json
from sluice.core.out_of_memory import count_oom_kills, describe_exit
from sluice.pipelines.compose import write_params
from sluice.pipelines.terminal import View, open_view

_POLL_S = 0.1
_LOCK_WAIT_S = 20.0
_GRACE_S = 10.0
_TIME_LENGTH = len("20260101-000000")


@dataclass(frozen=True)
class RunFolder:
    """`.sluice/runs/<name>`."""

    path: Path

    @property
    def events(self) -> Path:
        return self.path / "events.jsonl"

    @property
    def params(self) -> Path:
        return self.path / "params.yaml"

    @property
    def log(self) -> Path:
        return self.path / "log.txt"

    @property
    def record(self) -> Path:
        return self.path / "record.json"


def latest_run(workspace: Workspace) -> RunFolder | None:
    """Names are times, so the last by name is the last by time."""
    folders = [path for path in workspace.runs.glob("*") if path.is_dir()]
    return RunFolder(max(folders, key=lambda path: _order(path.name))) if folders else None


def _order(name: str) -> tuple[str, int]:
    """Key by which names of runs are in order: their time, and the number of runs that have it."""
    started, number = name[:_TIME_LENGTH], name[_TIME_LENGTH + 1 :]
    return started, int(number) if number.isdigit() else 0


def name_run(workspace: Workspace, now: str) -> str:
    """Return a name after those of all earlier runs, also within a second and after the clock was set back."""
    last = latest_run(workspace)
    if last is None or _order(last.path.name) < (now, 0):
        return now
    started, number = _order(last.path.name)
    return f"{started}-{number + 1}"


def run_pipeline(workspace: Workspace, params: Params) -> dict[str, Any]:
    """Run the lifecycle to its end and return the record of the run. Raises StepFailed with the failing step's own
    line, and ValueError while another run is going, whose settings stay as they are.
    """
    with only_run(workspace) as lock:
        folder = RunFolder(workspace.runs / name_run(workspace, time.strftime("%Y%m%d-%H%M%S")))
        folder.path.mkdir(parents=True)
        write_params(folder.params, params)
        write_params(workspace.params, params)
        started, oom_kills = time.time(), count_oom_kills()
        view = open_view(STEPS)
        try:
            code = _run_child(workspace, folder, lock, view)
        finally:
            view.close()
            # What kfp.local leaves there; a run that is interrupted cannot remove it itself.
            shutil.rmtree(folder.path / "kfp", ignore_errors=True)
        record = make_record(read_events(folder.events), workspace, time.time() - started)
        write_json(folder.record, record)
        _check(record, code, folder, oom_kills)
        return record


def make_record(events: list[dict[str, Any]], workspace: Workspace, seconds: float) -> dict[str, Any]:
    """State of each step, and the share of time spent in the steps' own work.

    A content step's own work is the function that it calls, less the time that function spent on starting workers.
    """
    steps = [step_record(events, step) for step in STEPS]
    for step in steps:
        timings = (
            read_metrics(workspace, step["name"]).get("timings", {})
            if step["state"] == "done" and not step["cached"]
            else {}
        )
        step["work_seconds"] = round(max(0.0, timings.get("work_seconds", 0.0) - timings.get("launch_seconds", 0.0)), 2)
    work = sum(step["work_seconds"] for step in steps)
    return {"seconds": round(seconds, 2), "work_seconds": round(work, 2), "steps": steps}


def step_record(events: list[dict[str, Any]], step: str) -> dict[str, Any]:
    """State of one step by its events: `pending`, `running`, `done` or `failed`."""
    record: dict[str, Any] = {
        "name": step,
        "state": "pending",
        "seconds": None,
        "cached": False,
        "outcome": None,
        "message": None,
    }
    started = None
    for event in events:
        if event["step"] != step:
            continue
        if event["kind"] == "start":
            started = event["time"]
            record["state"] = "running"
        elif event["kind"] in {"done", "failed"}:
            record["state"] = event["kind"]
            record["seconds"] = round(event["time"] - (started or event["time"]), 2)
            record["cached"] = bool(event.get("cached"))
            record["outcome"] = event.get("outcome")
            record["message"] = event.get("message")
    return record


def run_state(steps: list[dict[str, Any]], *, is_going: bool) -> tuple[str, str | None]:
    """State of a run, `running | done | failed | interrupted`, and why it did not come to its end.

    What was running when the run ended is marked as interrupted.
    """
    if failed := [step for step in steps if step["state"] == "failed"]:
        return "failed", failed[0]["message"]
    if is_going:
        return "running", None
    unfinished = [step for step in steps if step["state"] != "done"]
    if not unfinished:
        return "done", None
    for step in unfinished:
        step["state"] = "interrupted" if step["state"] == "running" else step["state"]
    return "interrupted", f"the run ended in {unfinished[0]['name']}; the same `sluice run` goes on from there"


def _check(record: dict[str, Any], code: int, folder: RunFolder, oom_kills: int | None = None) -> None:
    """kfp.local can report success where nothing ran, so each step must have reported success itself."""
    for step in record["steps"]:
        if step["state"] == "failed":
            raise StepFailed(f"{step['message']} (log: {folder.log})")
    missing = [step["name"] for step in record["steps"] if step["state"] != "done"]
    if missing or code:
        raise StepFailed(
            f"the run ended before {', '.join(missing) or 'it was complete'}: its process "
            f"{describe_exit(code, oom_kills, count_oom_kills())}; the same `sluice run` goes on from there "
            f"(log: {folder.log})"
        )


@contextmanager
def only_run(workspace: Workspace) -> Iterator[IO[str]]:
    """One run or promotion a workspace, or ValueError naming the process that is going.

    The child inherits the lock, so it is free only when the whole of an earlier run is gone.
    """
    workspace.runs.mkdir(parents=True, exist_ok=True)
    with (workspace.state / "run.lock").open("a+") as lock:
        deadline = time.monotonic() + _LOCK_WAIT_S
        while not try_lock(lock):
            lock.seek(0)
            holder = lock.read().strip()
            if (holder.isdigit() and psutil.pid_exists(int(holder))) or time.monotonic() > deadline:
                raise ValueError(
                    f"another run or promotion (process {holder or 'unknown'}) is going in {workspace.root}: wait for "
                    "it or end it"
                )
            time.sleep(_POLL_S)
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield lock


def is_going(workspace: Workspace) -> bool:
    """Return whether a run holds the workspace's lock, which the system releases with its last process."""
    return lock_holder(workspace.state / "run.lock") is not None


def _run_child(workspace: Workspace, folder: RunFolder, lock: IO[str], view: View) -> int:
    """Start the child in a process group of its own, follow its events, return its exit status."""
    read_end, write_end = os.pipe()
    command = [sys.executable, "-m", "sluice.pipelines.local_child"]
    options = ["--workspace", str(workspace.root), "--run", str(folder.path), "--lifeline", str(read_end)]
    with folder.log.open("ab") as log:
        child = subprocess.Popen(
            [*command, *options],
            # The steps run the code of this command, wherever they work.
            env={**os.environ, "PYTHONPATH": str(Path(sluice.__file__).parents[1]), "PYTHONSAFEPATH": "1"},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=(read_end, lock.fileno()),
            start_new_session=True,
        )
    os.close(read_end)
    try:
        # The child's last line is shown too: it is read after the child was seen to have ended.
        tail, has_ended = Tail(folder.events), False
        while not has_ended:
            has_ended = child.poll() is not None
            for event in tail.read():
                view.show(event)
            if not has_ended:
                time.sleep(_POLL_S)
    finally:
        # The child and all its processes, whatever ended the run.
        if child.poll() is None:
            _signal_group(child, signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                child.wait(_GRACE_S)
        _signal_group(child, signal.SIGKILL)
        os.close(write_end)
    return child.wait()


def _signal_group(child: subprocess.Popen[bytes], number: int) -> None:
    try:
        os.killpg(child.pid, number)
    except ProcessLookupError:
        return
