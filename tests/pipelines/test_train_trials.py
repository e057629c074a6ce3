"""`sluice profile`, `scaling` and `sweep`: short runs in one process on a plain text, and what they refuse."""

from collections.abc import Callable
from pathlib import Path

import pytest
from train_fixtures import TINY, run_json

from sluice.components.workspace import Workspace
from sluice.pipelines.train_request import read_request, read_trial

pytestmark = pytest.mark.usefixtures("empty_workspace")


def test_a_profile_and_a_law_of_a_text(capsys: pytest.CaptureFixture[str], text: Path, tmp_path: Path) -> None:
    found = run_json(capsys, "profile", *TINY, f"data.path={text}", "--steps", "1", "--out", str(tmp_path / "profile"))
    assert Path(found["trace"]).is_file() and found["operators"]
    wider = [each for each in TINY if "hidden_size" not in each and "heads" not in each]
    sizes = ("model.hidden_size=32", "model.heads=8", "model.kv_heads=8")
    found = run_json(
        capsys,
        *("scaling", *wider, *sizes, f"data.path={text}", "--rungs", "3", "--lengths", "2"),
        *("--budget", "1e9", "--out", str(tmp_path / "scaling")),
    )
    assert len(found["runs"]) == 6
    assert found["next"]["flops"] == 1e9
    assert found["next"]["parameters"]["low"] <= found["next"]["parameters"]["high"]
    assert (tmp_path / "scaling" / "scaling.svg").is_file()


def test_a_trial_cuts_its_batches_for_one_process(empty_workspace: Workspace, text: Path) -> None:
    batch = ("pretrain.batch_size=2", "pretrain.micro_batch_size=2")
    two = ("profile=tiny", "pretrain.workers=2", *batch)
    with pytest.raises(ValueError, match="batch_size 2 must be a multiple"):
        read_request(empty_workspace, [*two, f"data.path={text}"])
    request = read_trial(empty_workspace, ["profile=tiny", *batch, f"data.path={text}"])
    assert (request.pretrain.workers, request.pretrain.micro_batch_size) == (1, 2)


def test_numbers_out_of_range_are_refused(refused: Callable[..., str], text: Path, tmp_path: Path) -> None:
    place = (f"data.path={text}", "--out", str(tmp_path / "out"))
    assert "--steps 0" in refused("profile", *TINY, *place, "--steps", "0")
    assert "1 trials compare nothing" in refused("sweep", *TINY, *place, "--trials", "1")
    assert "--at-once 0" in refused("sweep", *TINY, *place, "--at-once", "0")
    assert "trials are plain fp32 runs" in refused("sweep", *TINY, *place, "pretrain.dtype=bf16")
    assert "objective masked is not supported with model.kind decoder" in refused(
        "sweep", *TINY, *place, "pretrain.objective=masked"
    )
    assert "is no file" in refused("sweep", *TINY, "data.path=nowhere.txt", "--out", str(tmp_path / "out"))
    assert "fewer than the 6 runs" in refused("scaling", *TINY, *place, "--rungs", "2", "--lengths", "1")
    assert "above 0 FLOPs" in refused("scaling", *TINY, *place, "--budget", "-1")
