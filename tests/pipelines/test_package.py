"""The installed package: one top-level name, settings of its own, and no claim on the folder a user works in."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from sluice.components.workspace import Workspace

pytestmark = pytest.mark.process


@pytest.fixture(scope="module")
def wheel(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel as `pip wheel . --no-deps` builds it, without a download of the build back end."""
    folder, tree = tmp_path_factory.mktemp("wheel"), tmp_path_factory.mktemp("tree") / "sluice"
    # A copy, because setuptools leaves build/ behind, whose stale files would get into the next wheel.
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=root, capture_output=True, text=True, check=True).stdout
    for name in filter(None, tracked.split("\0")):
        if not name.startswith(("tests/", "docs/", "benchmarks/")) and (root / name).exists():
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(root / name, tree / name, follow_symlinks=False)
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        ".",
        "--no-deps",
        "--no-build-isolation",
        "--quiet",
        "-w",
        str(folder),
    ]
    done = subprocess.run(command, cwd=tree, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return next(folder.glob("sluice-*.whl"))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel's files in a folder of their own, as an installation has them."""
    folder = tmp_path_factory.mktemp("installed")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


@pytest.fixture
def user_folder(tmp_path: Path, root: Path) -> Path:
    """A user's own files, named as our folders are, and no workspace above them."""
    for name in ("data", "serving"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise ImportError('the user\\'s own module')\n")
    (tmp_path / "model.py").write_text("raise ImportError('the user\\'s own module')\n")
    (tmp_path / "notes").mkdir()
    for name in ("architecture.md", "training.md", "model.md"):
        shutil.copy(root / "docs" / name, tmp_path / "notes" / name)
    (tmp_path / "notes.txt").write_text("".join(path.read_text() for path in (tmp_path / "notes").iterdir()))
    return tmp_path


def sluice(installed: Path, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {"PYTHONPATH": str(installed), "PATH": "/usr/bin:/bin", "HOME": str(folder / "home")}
    command = [sys.executable, "-m", "sluice.pipelines.cli", *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)


def test_wheel_holds_one_top_level_package_with_its_settings_and_pages(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    assert {name.partition("/")[0] for name in names if ".dist-info/" not in name} == {"sluice"}
    assert {
        "sluice/conf/config.yaml",
        "sluice/conf/model/llama-7b.yaml",
        "sluice/dvc.yaml",
        "sluice/requirements.lock",
        "sluice/conf/golden.yaml",
        "sluice/conf/suites/arithmetic.yaml",
        "sluice/conf/suites/arithmetic.jsonl",
        "sluice/model/evaluation/evaluation.html.j2",
        "sluice/serving/page/templates/page.html.j2",
        "sluice/serving/page/static/page.js",
        "sluice/data/card/card.html.j2",
    } <= names


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        (["--help"], "usage: sluice"),
        (["plan", "model=llama-7b", "--no-measure"], "vocabulary 32,000"),
        (["data", "build", "--source", "notes/", "--out", "corpus", "refine.workers=1"], "kept"),
        (["train", "data.path=notes.txt", "--out", "run", "profile=tiny", "pretrain.steps=3"], "model in run/model"),
        (["doctor"], "python"),
    ],
    ids=["help", "plan", "data build", "train", "doctor"],
)
def test_commands_work_beside_a_users_own_files(
    installed: Path, user_folder: Path, arguments: list[str], shown: str
) -> None:
    done = sluice(installed, user_folder, *arguments)
    assert done.returncode == 0, done.stderr
    assert shown in done.stdout


def test_commands_of_a_workspace_say_that_there_is_none(installed: Path, user_folder: Path) -> None:
    done = sluice(installed, user_folder, "status")
    assert done.returncode == 1
    assert "no sluice workspace" in done.stderr and "Traceback" not in done.stderr


def test_a_workspace_is_found_upwards_and_nowhere_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SLUICE_WORKSPACE", raising=False)
    below = tmp_path / "a" / "b"
    below.mkdir(parents=True)
    monkeypatch.chdir(below)
    with pytest.raises(ValueError, match="no sluice workspace at"):
        Workspace.find()
    default = Workspace.find_or_default()
    assert default.is_default and default.conf.is_dir()
    (tmp_path / "conf").mkdir()
    (tmp_path / "dvc.yaml").write_text("stages: {}\n")
    assert Workspace.find() == Workspace.find_or_default() == Workspace(tmp_path)
    package = default.root.resolve()
    assert Workspace.find_or_default(package).root.resolve() != package or Workspace.find_or_default(package).is_default
