"""Greedy answers kept with a registered version."""

# ruff: noqa: F811  (pytest finds the imported fixtures by name)

from pathlib import Path

import pytest
from release_fixtures import Workspace, empty_database, workspace, write_model  # noqa: F401

from sluice.core.manifest import file_hash
from sluice.model.evaluation.parity import PARITY_FILE, KeptAnswer, write_parity
from sluice.model.evaluation.verdict import read_verdict, write_verdict
from sluice.serving.quality.kept import kept_answers
from sluice.serving.registry import PARITY_FOLDER, Evidence

ANSWERS = [KeptAnswer("How to install", 2, ("use", " pip"), (1.0, 2.0))]


@pytest.fixture
def version(workspace: Workspace, tmp_path: Path) -> str:
    """A version whose verdict names the kept answers."""
    first = workspace.register("one")
    path = tmp_path / PARITY_FILE
    write_parity(ANSWERS, path)
    verdict = read_verdict(workspace.verdicts[first], workspace.keys)
    named = verdict.model_copy(update={"hashes": verdict.hashes | {"parity": file_hash(path)}})
    write_verdict(named, tmp_path / "verdict.json", workspace.keys)
    evidence = Evidence(files={PARITY_FOLDER: [path]})
    return workspace.registry.register(workspace.root / "models" / "one", tmp_path / "verdict.json", evidence)


def test_they_are_read_as_the_verdict_names_them(workspace: Workspace, version: str) -> None:
    assert kept_answers(workspace.registry, version, workspace.keys) == (ANSWERS, "")


def test_a_changed_file_is_refused_and_a_missing_one_is_noted(workspace: Workspace, version: str) -> None:
    path = workspace.registry.parity_path(version)
    assert path is not None
    path.write_bytes(path.read_bytes().replace(b"pip", b"tar"))
    with pytest.raises(ValueError, match=r"the verdict of v2 names .* it was changed"):
        kept_answers(workspace.registry, version, workspace.keys)
    path.unlink()
    gone = kept_answers(workspace.registry, version, workspace.keys)
    assert gone == ([], "parity not available: the answers that the gate kept of v2 are gone")


def test_a_version_of_before_has_none_and_says_so(workspace: Workspace) -> None:
    found = kept_answers(workspace.registry, workspace.register("one"), workspace.keys)
    assert found == ([], "parity not available: the gate kept no answers of v1")
