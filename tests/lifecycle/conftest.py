"""A checkout of its own for each undisturbed or disturbed run, and a small real corpus for all of them."""

import ast
import os
import shutil
import signal
import subprocess
import sysconfig
from collections.abc import Callable
from pathlib import Path

import pytest
from lifecycle_checkout import Checkout
from ports import free_port

from sluice.components.workspace import CONTENT_STEPS, Workspace


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
def new_checkout(root: Path, corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Checkout]:
    """Copies what git tracks or would track; nothing of this checkout's own runs comes along."""

    def copy(name: str) -> Checkout:
        folder = tmp_path_factory.mktemp(name)
        listing = ["git", "-C", str(root), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        for relative in subprocess.run(listing, check=True, capture_output=True, text=True).stdout.split("\0"):
            path = root / relative
            if relative and relative != "dvc.lock" and (path.is_symlink() or path.is_file()):
                (folder / relative).parent.mkdir(parents=True, exist_ok=True)
                # sluice/ holds links to the packages: a copy without them would run this checkout's code.
                shutil.copy2(path, folder / relative, follow_symlinks=False)
        author = ["-c", "user.name=sluice", "-c", "user.email=sluice@example.org"]
        for arguments in (["init", "--quiet"], ["add", "--all"], [*author, "commit", "--quiet", "-m", "checkout"]):
            subprocess.run(["git", "-C", str(folder), *arguments], check=True)
        return Checkout(Workspace(folder), corpus, free_port())

    return copy


def _documentation(path: Path, library: Path) -> str:
    tree = ast.parse(path.read_text(encoding="utf-8", errors="replace"))
    module = path.relative_to(library).with_suffix("").as_posix().replace("/", ".")
    parts = [f"# {module}", ast.get_docstring(tree) or ""]
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and (text := ast.get_docstring(node)):
            parts += [f"## {module} {node.name}", text]
    return "\n\n".join(part for part in parts if part) + "\n"


@pytest.fixture(scope="session")
def resumed(new_checkout: Callable[[str], Checkout]) -> Checkout:
    """A run killed in training and again in the rollout, which then came to its end."""
    checkout = new_checkout("resumed")
    for step, kind, done in (("pretrain", "progress", 50), ("rollout", "note", 0)):
        process = checkout.start("run", *checkout.settings)
        checkout.wait_for(process, step, kind, done)
        os.kill(process.pid, signal.SIGKILL)
        process.wait(30)
    assert checkout.status()["champion"] is None
    checkout.run()
    return checkout


@pytest.fixture(scope="session")
def undisturbed(resumed: Checkout, new_checkout: Callable[[str], Checkout]) -> Checkout:
    """The stages from pretrain on, run undisturbed by their own modules on the data and settings of `resumed`."""
    checkout = new_checkout("undisturbed")
    trained = CONTENT_STEPS.index("pretrain")
    resumed.copy_artifacts(CONTENT_STEPS[:trained], checkout)
    for step in CONTENT_STEPS[trained:]:
        checkout.run_stage(step)
    return checkout
