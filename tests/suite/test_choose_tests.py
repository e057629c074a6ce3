"""CI runs the matrix when a change could affect it, and when it cannot know."""

import os
import shutil
import subprocess
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(".ci/choose_tests.py")


@pytest.fixture(scope="module")
def choose_tests(root: Path) -> ModuleType:
    spec = spec_from_file_location("choose_tests", root / SCRIPT)
    assert spec is not None and spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("changed", "target"),
    [
        (["model/training/loop.py"], "test-all"),
        (["docs/model.md", "requirements.lock"], "test-all"),
        (["conf/model/llama-7b.yaml"], "test-all"),
        (["benchmarks/model.py"], "test-all"),
        (["tests/model/test_cache.py"], "test-all"),
        (["monitoring/slo.py", "README.md", "sluice/model"], "test"),
        (["data/refining/refine.py"], "test-all"),
        (["serving/model_conf.py", "tests/serving/test_app.py"], "test"),
        ([], "test"),
        (None, "test-all"),
    ],
)
def test_target(choose_tests: ModuleType, changed: list[str] | None, target: str) -> None:
    assert choose_tests.target(changed) == target


def test_every_path_of_the_matrix_exists(choose_tests: ModuleType, root: Path) -> None:
    assert all((root / path).exists() for path in choose_tests.MATRIX)


@pytest.mark.process
def test_base_commit(root: Path, tmp_path: Path) -> None:
    """A clone: two commits on main, the second in serving/; a branch from it that changes model/, then serving/."""
    origin, clone = tmp_path / "origin", tmp_path / "clone"
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("GIT_", "SLUICE_CI"))}

    def git(folder: Path, *arguments: str) -> str:
        author = ("-c", "user.name=a", "-c", "user.email=a@example.org")
        command = ["git", "-C", str(folder), *author, *arguments]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.strip()

    def commit(folder: Path, *paths: str) -> None:
        for path in paths:
            (folder / path).parent.mkdir(exist_ok=True)
            (folder / path).write_text(git(folder, "rev-list", "--all", "--count"))
        git(folder, "add", "--all")
        git(folder, "commit", "--quiet", "-m", "a change")

    def chosen(**given: str) -> str:
        command = [sys.executable, str(root / SCRIPT)]
        done = subprocess.run(command, cwd=clone, env=environment | given, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    origin.mkdir()
    git(origin, "init", "--quiet", "-b", "main")
    commit(origin, "model/a.py", "serving/a.py")
    git(tmp_path, "clone", "--quiet", str(origin), str(clone))
    assert chosen() == "test-all"  # on main, how many commits are new is unknown
    commit(origin, "serving/a.py")
    git(clone, "pull", "--quiet")
    assert chosen() == "test-all"
    assert chosen(SLUICE_CI_BASE="HEAD~1") == "test"
    assert chosen(SLUICE_CI_BASE="no such commit") == "test-all"
    git(clone, "checkout", "--quiet", "-b", "branch")
    commit(clone, "model/a.py")
    commit(clone, "serving/a.py")
    assert chosen() == "test-all"
    assert chosen(SLUICE_CI_BASE="HEAD~1") == "test"
    shutil.rmtree(clone)
    git(tmp_path, "clone", "--quiet", "--depth", "1", origin.as_uri(), str(clone))
    assert chosen() == "test-all"  # its parent is not there
