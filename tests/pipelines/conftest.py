"""A workspace that has this checkout's settings and nothing else."""

from pathlib import Path

import pytest

from sluice.components.workspace import Workspace


@pytest.fixture
def empty_workspace(tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """The one that commands find."""
    (tmp_path / "dvc.yaml").write_text((root / "dvc.yaml").read_text())
    # The settings name files of model/ too: evaluation sets.
    for folder in ("conf", "model"):
        (tmp_path / folder).symlink_to(root / folder)
    monkeypatch.setenv("SLUICE_WORKSPACE", str(tmp_path))
    return Workspace(tmp_path)
