"""A workspace that has this checkout's settings and nothing else, a text to train on, and refusals of a command."""

from collections.abc import Callable
from pathlib import Path

import pytest
from train_fixtures import TEXT

from sluice.components.workspace import Workspace
from sluice.pipelines.cli import main


@pytest.fixture
def empty_workspace(tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """The one that commands find."""
    (tmp_path / "dvc.yaml").write_text((root / "dvc.yaml").read_text())
    # The settings name files of model/ too: evaluation sets.
    for folder in ("conf", "model"):
        (tmp_path / folder).symlink_to(root / folder)
    monkeypatch.setenv("SLUICE_WORKSPACE", str(tmp_path))
    return Workspace(tmp_path)


@pytest.fixture
def text(tmp_path: Path) -> Path:
    # A name that Hydra's grammar would take apart.
    path = tmp_path / "my text, [1]=a.txt"
    path.write_text(TEXT)
    return path


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Run a command that has to fail, and return its one line."""

    def run(*arguments: str) -> str:
        assert main(list(arguments)) == 1
        said = capsys.readouterr().err
        assert said.startswith(f"sluice {arguments[0]}: ") and said.count("\n") == 1
        return said

    return run
