"""conf/ and key=value: what is composed, and what is refused before anything runs."""

import shutil
from pathlib import Path

import pytest
import yaml

from components.params import BLOCKS, load_block
from components.workspace import Workspace
from pipelines.parameters import compose, render_params, write_params


@pytest.fixture(scope="module")
def workspace(root: Path) -> Workspace:
    return Workspace(root)


def test_every_profile_composes_to_valid_blocks(workspace: Workspace) -> None:
    profiles = sorted(path.stem for path in (workspace.conf / "profile").glob("*.yaml"))
    assert {"laptop", "tiny"} <= set(profiles)
    for profile in profiles:
        assert set(compose(workspace, [f"profile={profile}"])) == set(BLOCKS)


def test_committed_params_are_the_laptop_profile(workspace: Workspace) -> None:
    assert workspace.params.read_text() == render_params(compose(workspace, []))


def test_command_line_wins_over_the_profile(workspace: Workspace) -> None:
    tiny = compose(workspace, ["profile=tiny"])
    changed = compose(workspace, ["profile=tiny", "pretrain.steps=7", "data.sources=/texts"])
    assert changed["pretrain"]["steps"] == 7 != tiny["pretrain"]["steps"]
    assert changed["data"]["sources"] == "/texts"
    assert changed["model"] == tiny["model"]


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("pretrain.stepz=3", ["pretrain.stepz", "did you mean 'steps'", "learning_rate"]),
        ("trainer.steps=3", ["trainer.steps", "pretrain", "profile"]),
        ("pretrain.steps=many", ["pretrain.steps", "many", "integer"]),
        ("pretrain.steps=0", ["pretrain.steps", "0", "greater than or equal to 1"]),
        ("pretrain.zero_stage=7", ["pretrain.zero_stage", "7", "0 or 1"]),
        ("model.heads=7", ["model", "heads 7"]),
        ("profile=huge", ["profile=huge", "laptop", "tiny"]),
        ("pretrain=3", ["pretrain", "pretrain.steps"]),
        ("+pretrain.new=3", ["+pretrain.new=3", "key=value"]),
        ("~pretrain", ["~pretrain", "key=value"]),
        ("nonsense", ["nonsense", "key=value"]),
    ],
)
def test_a_wrong_setting_is_refused_in_one_line(workspace: Workspace, override: str, named: list[str]) -> None:
    with pytest.raises(ValueError) as refusal:
        compose(workspace, [override])
    message = str(refusal.value)
    assert "\n" not in message
    for part in named:
        assert part in message


def test_params_are_rewritten_only_when_they_change(root: Path, tmp_path: Path) -> None:
    shutil.copytree(root / "conf", tmp_path / "conf")
    workspace = Workspace(tmp_path)
    values = compose(workspace, ["profile=tiny"])
    assert write_params(workspace, values)
    assert not write_params(workspace, values)
    assert yaml.safe_load(workspace.params.read_text()) == values
    assert load_block(workspace, "pretrain").model_dump(mode="json") == values["pretrain"]
