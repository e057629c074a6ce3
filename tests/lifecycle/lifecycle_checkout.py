"""A copy of the project in a folder of its own, and the commands in it."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import yaml

from sluice.components.events import read_events
from sluice.components.workspace import Workspace
from sluice.pipelines.runner import latest_run


@dataclass(frozen=True)
class Checkout:
    """A copy of the project in a folder of its own, and the commands in it."""

    workspace: Workspace
    corpus: Path
    port: int

    @property
    def settings(self) -> list[str]:
        return ["profile=tiny", f"data.sources={self.corpus}", f"serve.port={self.port}"]

    @property
    def environment(self) -> dict[str, str]:
        root = str(self.workspace.root)
        environment = {**os.environ, "SLUICE_WORKSPACE": root, "PYTHONPATH": root, "OMP_NUM_THREADS": "1"}
        # Not the session's head: a run has its own.
        return {name: value for name, value in environment.items() if name not in {"RAY_ADDRESS", "SLUICE_EVENTS"}}

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "sluice.pipelines.cli", *arguments]

    def sluice(self, *arguments: str, timeout: float = 1800) -> subprocess.CompletedProcess[str]:
        """Run one command to its end."""
        return subprocess.run(
            self.command(*arguments),
            cwd=self.workspace.root,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=timeout,
        )

    def run(self, *settings: str, status: int = 0) -> subprocess.CompletedProcess[str]:
        done = self.sluice("run", *self.settings, *settings)
        assert done.returncode == status, done.stdout + done.stderr + self.log_tail()
        return done

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start a command and leave it running."""
        return subprocess.Popen(
            self.command(*arguments),
            cwd=self.workspace.root,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def status(self) -> dict[str, Any]:
        done = self.sluice("status", "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def events(self) -> list[dict[str, Any]]:
        """Events of the newest run."""
        run = latest_run(self.workspace)
        return read_events(run.events) if run else []

    def artifact_hashes(self) -> dict[str, str]:
        """DVC's hash of every content step's artifact."""
        lock = yaml.safe_load((self.workspace.root / "dvc.lock").read_text())
        return {
            out["path"]: out["md5"]
            for stage in lock["stages"].values()
            for out in stage["outs"]
            if out["path"].startswith("artifacts/")
        }

    def file_hashes(self, step: str) -> dict[str, str]:
        """SHA-256 of every file of the step's artifact, by its path below it."""
        folder = self.workspace.artifact(step)
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        return {path.relative_to(folder).as_posix(): sha256(path.read_bytes()).hexdigest() for path in files}

    def copy_artifacts(self, steps: Sequence[str], other: "Checkout") -> None:
        """Give a checkout in which nothing ran the settings and the steps' artifacts of this one."""
        shutil.copy2(self.workspace.params, other.workspace.params)
        for step in steps:
            shutil.copytree(self.workspace.artifact(step), other.workspace.artifact(step))

    def run_stage(self, step: str) -> None:
        """Run one stage as DVC does, without DVC."""
        command = [sys.executable, "-m", f"sluice.components.{step}"]
        done = subprocess.run(
            command, cwd=self.workspace.root, env=self.environment, capture_output=True, text=True, timeout=1800
        )
        assert done.returncode == 0, done.stderr[-6000:]

    def log_tail(self) -> str:
        logs = sorted(self.workspace.runs.glob("*/log.txt"))
        return logs[-1].read_text()[-6000:] if logs else ""

    def wait_for(self, process: subprocess.Popen[str], step: str, kind: str, done: int = 0) -> None:
        """Return when the running command has said this much."""
        deadline = time.monotonic() + 900
        while time.monotonic() < deadline:
            if any((e["step"], e["kind"]) == (step, kind) and e.get("done", 0) >= done for e in self.events()):
                return
            assert process.poll() is None, f"ended before {step} {kind}: {self.log_tail()}"
            time.sleep(0.05)
        raise AssertionError(f"{step} {kind} never came: {self.log_tail()}")
