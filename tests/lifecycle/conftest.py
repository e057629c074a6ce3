"""A checkout of its own for each undisturbed or disturbed run, and a small real corpus for all of them."""

import ast
import json
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from components.workspace import Workspace


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
        return [sys.executable, "-m", "pipelines.cli", *arguments]

    def sluice(self, *arguments: str, timeout: float = 420) -> subprocess.CompletedProcess[str]:
        """Run one command to its end."""
        return subprocess.run(
            self.command(*arguments),
            cwd=self.workspace.root,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=timeout,
        )

    def run(self, *settings: str) -> subprocess.CompletedProcess[str]:
        done = self.sluice("run", *self.settings, *settings)
        assert done.returncode == 0, done.stdout + done.stderr + self.log_tail()
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
        from components.events import read_events
        from pipelines.runner import latest_run

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

    def log_tail(self) -> str:
        logs = sorted(self.workspace.runs.glob("*/log.txt"))
        return logs[-1].read_text()[-6000:] if logs else ""


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Documentation of the standard library: a Markdown file a module, a section a documented name."""
    folder = tmp_path_factory.mktemp("corpus")
    library = Path(sysconfig.get_paths()["stdlib"])
    for path in sorted(library.glob("*.py")) + sorted(library.glob("*/*.py")):
        if "test" in path.as_posix() or "site-packages" in path.parts:
            continue
        text = _documentation(path, library)
        if len(text) > 1500:
            (folder / f"{path.relative_to(library).as_posix().replace('/', '.')}.md").write_text(text)
    assert len(list(folder.iterdir())) > 150
    return folder


@pytest.fixture(scope="session")
def new_checkout(
    root: Path, corpus: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Checkout]:
    """Copies what git tracks or would track; nothing of this checkout's own runs comes along."""

    def copy(name: str) -> Checkout:
        folder = tmp_path_factory.mktemp(name)
        listing = ["git", "-C", str(root), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        for relative in subprocess.run(listing, check=True, capture_output=True, text=True).stdout.split("\0"):
            if relative and relative != "dvc.lock" and (root / relative).is_file():
                (folder / relative).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(root / relative, folder / relative)
        author = ["-c", "user.name=sluice", "-c", "user.email=sluice@example.org"]
        for arguments in (["init", "--quiet"], ["add", "--all"], [*author, "commit", "--quiet", "-m", "checkout"]):
            subprocess.run(["git", "-C", str(folder), *arguments], check=True)
        return Checkout(Workspace(folder), corpus, _free_port())

    return copy


def _documentation(path: Path, library: Path) -> str:
    tree = ast.parse(path.read_text(encoding="utf-8", errors="replace"))
    module = path.relative_to(library).with_suffix("").as_posix().replace("/", ".")
    parts = [f"# {module}", ast.get_docstring(tree) or ""]
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and (text := ast.get_docstring(node)):
            parts += [f"## {module} {node.name}", text]
    return "\n\n".join(part for part in parts if part) + "\n"


def _free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
