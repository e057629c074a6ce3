"""The quality signals that a rollout takes from the workspace: kept answers, known items, judge, likelihoods."""

# ruff: noqa: F811  (pytest finds the imported fixtures by name)

import json
import shutil
from pathlib import Path

import pytest
from release_fixtures import empty_database  # noqa: F401
from test_gate_refusals import World, finish, template, world  # noqa: F401

from sluice.components.rollout import rollout_quality
from sluice.model.evaluation.parity import PARITY_FILE, KeptAnswer, write_parity
from sluice.serving.client import Client
from sluice.serving.config import QualityConfig
from sluice.serving.registry import PARITY_FOLDER, Evidence

CONFIG = QualityConfig.model_validate({})
CLIENT = Client("http://127.0.0.1:9", "key")


@pytest.fixture
def challenger(world: World, root: Path) -> str:
    """A version with two kept answers, beside champion 1."""
    shutil.copyfile(root / "conf" / "golden.yaml", world.workspace.conf / "golden.yaml")
    write_parity([KeptAnswer(name, 1, ("a",), (1.0,)) for name in "pq"], world.evaluation / PARITY_FILE)
    finish(world.workspace)
    assert world.judge().startswith("promote: ")
    evidence = Evidence(files={PARITY_FOLDER: [world.evaluation / PARITY_FILE]})
    return world.release.registry.register(world.workspace.artifact("tune"), world.workspace.verdict, evidence)


def test_kept_answers_and_golden_prompts_are_probes(world: World, challenger: str) -> None:
    found = rollout_quality(world.workspace, challenger, "1", CLIENT, CONFIG)
    assert found is not None
    totals = found.totals
    assert (totals.parity_kept, totals.parity_compared, totals.known_items, totals.notes) == (2, 0, 12, ())
    fewer = rollout_quality(world.workspace, challenger, "1", CLIENT, CONFIG.model_copy(update={"known_items": 5}))
    assert fewer is not None and fewer.totals.known_items == 5


def test_a_version_without_kept_answers_says_so(world: World, challenger: str) -> None:
    found = rollout_quality(world.workspace, "1", challenger, CLIENT, CONFIG)
    assert found is not None
    assert found.totals.notes == ("parity not available: the gate kept no answers of v1",)


def test_a_first_version_has_nothing_to_be_compared_with(world: World) -> None:
    assert rollout_quality(world.workspace, "1", None, CLIENT, CONFIG) is None


def test_a_judge_needs_its_labels_and_its_address(
    world: World, challenger: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    named = CONFIG.model_copy(update={"judge_labels": "conf/pairs.jsonl"})
    monkeypatch.delenv("SLUICE_JUDGE_URL", raising=False)
    with pytest.raises(ValueError, match=r"conf/pairs.jsonl cannot be read"):
        rollout_quality(world.workspace, challenger, "1", CLIENT, named)
    line = {"prompt": "p", "first": "a", "second": "b", "better": "first"}
    (world.workspace.conf / "pairs.jsonl").write_text(json.dumps(line) + "\n")
    with pytest.raises(ValueError, match="set SLUICE_JUDGE_URL"):
        rollout_quality(world.workspace, challenger, "1", CLIENT, named)
    monkeypatch.setenv("SLUICE_JUDGE_URL", "http://127.0.0.1:9/v1")
    monkeypatch.setenv("SLUICE_JUDGE_MODEL", "judge")
    found = rollout_quality(world.workspace, challenger, "1", CLIENT, named)
    assert found is not None and found.totals.notes == (), "it is asked once there is a pair to judge"
