"""The folder of a run of `sluice train`: whose it is, and how a run in it is resumed and extended."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from train_fixtures import TEXT, TINY, run_json

from sluice.model.training.checkpointing import lock
from sluice.pipelines.cli import main
from sluice.pipelines.train_run import how_to_go_on

pytestmark = pytest.mark.usefixtures("empty_workspace")


def test_a_folder_of_another_run_is_not_overwritten(refused: Callable[..., str], text: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    again = ("train", *TINY, f"data.path={text}", "--out", str(out))
    assert main(list(again)) == 0
    model = (out / "model" / "model.safetensors").read_bytes()
    text.write_text(TEXT.replace("be", "Be"))
    assert "holds a run on another text" in refused(*again)
    text.write_text(TEXT)
    [state] = out.glob("checkpoints/*")
    # As another version of the program names it.
    state.rename(state.with_name(f"{'0' * 16}-{'0' * 8}"))
    (out / "report.json").unlink()
    assert f"--out {out}: its checkpoints were made by another version" in refused(*again)
    assert f"--resume {out}: its checkpoints were made by another version" in refused("train", "--resume", str(out))
    assert (out / "model" / "model.safetensors").read_bytes() == model


def test_a_finished_run_is_extended_where_its_schedule_allows_it(
    capsys: pytest.CaptureFixture[str], refused: Callable[..., str], text: Path, tmp_path: Path
) -> None:
    # 6 steps of a constant rate, then 3 more: what 9 at once would have been.
    constant = (*TINY, "pretrain.min_learning_rate_ratio=1", f"data.path={text}")
    out, whole = tmp_path / "out", tmp_path / "whole"
    run_json(capsys, "train", *constant, "--out", str(out))
    first = _losses(out)
    found = run_json(capsys, "train", "--resume", str(out), "pretrain.steps=9")
    assert (found["steps"], found["timings"]["resumed_step"]) == (9, 6)
    nine = [each for each in constant if each != "pretrain.steps=6"]
    run_json(capsys, "train", *nine, "pretrain.steps=9", "--out", str(whole))
    assert _losses(out) == _losses(whole)
    assert _losses(out)[:6] == first
    weights = [(folder / "model" / "model.safetensors").read_bytes() for folder in (out, whole)]
    assert weights[0] == weights[1]
    assert json.loads((out / "train.json").read_text())["pretrain"]["steps"] == 9
    # Once extended it is a run of 9 steps.
    assert run_json(capsys, "train", "--resume", str(out)) == found
    said = refused("train", "--resume", str(out), "pretrain.steps=7")
    assert "pretrain.steps=7 does not extend the run, which has 9 steps" in said


def test_a_run_that_fell_is_extended_from_its_plateau_alone(
    capsys: pytest.CaptureFixture[str], refused: Callable[..., str], text: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    run_json(capsys, "train", *TINY, "pretrain.schedule=cosine", f"data.path={text}", "--out", str(out))
    model = (out / "model" / "model.safetensors").read_bytes()
    said = refused("train", "--resume", str(out), "pretrain.steps=9")
    assert "pretrain.steps=9 cannot extend this run: with schedule cosine its steps from 3 on depend on their" in said
    assert (out / "model" / "model.safetensors").read_bytes() == model
    assert json.loads((out / "train.json").read_text())["pretrain"]["steps"] == 6
    plateau = tmp_path / "plateau"
    run_json(capsys, "train", *TINY, "pretrain.decay_fraction=0.34", f"data.path={text}", "--out", str(plateau))
    found = run_json(capsys, "train", "--resume", str(plateau), "pretrain.steps=9")
    assert found["timings"]["resumed_step"] == 3


def test_a_run_gets_a_folder_of_its_own(refused: Callable[..., str], text: Path, tmp_path: Path) -> None:
    others = tmp_path / "others"
    others.mkdir()
    (others / "thesis.tex").write_text("years of work")
    train = ("train", *TINY, f"data.path={text}", "--out")
    assert "holds other files, such as thesis.tex: name a new or an empty folder" in refused(*train, str(others))
    assert [path.name for path in others.iterdir()] == ["thesis.tex"]
    out = tmp_path / "out"
    # Of a train that failed before it wrote anything nothing is left, and an empty folder or a lone lock is free.
    (tmp_path / "latin").write_bytes(b"\xe4" * 900)
    for place in (out, others.parent / "new"):
        assert "no UTF-8" in refused("train", *TINY, f"data.path={tmp_path / 'latin'}", "--out", str(place))
        assert not place.exists()
    out.mkdir()
    (out / "lock").touch()
    assert "no UTF-8" in refused("train", *TINY, f"data.path={tmp_path / 'latin'}", "--out", str(out))
    assert out.is_dir()
    assert main([*train, str(out)]) == 0
    for inside in ("model", "deeper/still"):
        assert f"lies in the run {out}" in refused(*train, str(out / inside))
    assert not (out / "deeper").exists()


def test_a_finished_model_without_checkpoints_is_not_replaced(
    capsys: pytest.CaptureFixture[str], refused: Callable[..., str], text: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    found = run_json(capsys, "train", *TINY, f"data.path={text}", "--out", str(out))
    shutil.rmtree(out / "checkpoints")
    again = ("train", *TINY, f"data.path={text}", "--out", str(out))
    assert run_json(capsys, *again) == found
    report = json.loads((out / "report.json").read_text())
    # As another version of the program names the run.
    (out / "report.json").write_text(json.dumps({**report, "fingerprint": f"{'0' * 16}-{'0' * 8}"}))
    for arguments in (again, ("train", "--resume", str(out))):
        assert "holds a finished model without checkpoints" in refused(*arguments)


def test_how_to_go_on_counts_this_runs_whole_checkpoints_alone(tmp_path: Path) -> None:
    for folder in (
        "aaaa-1/step-00000003",
        "aaaa-2/step-00000006",
        "aaaa-2/step-00000009.partial",
        "bbbb-1/step-00000900",
    ):
        (tmp_path / "checkpoints" / folder).mkdir(parents=True)
    assert how_to_go_on(tmp_path, "aaaa").endswith("goes on from the checkpoint of step 6")
    assert "no checkpoint was written yet" in how_to_go_on(tmp_path, "cccc")


def test_one_run_at_a_time_in_a_folder(
    refused: Callable[..., str], text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "_PATIENCE_S", 0.0)
    out = tmp_path / "out"
    with lock.locked(out):
        said = refused("train", *TINY, f"data.path={text}", "--out", str(out))
    assert (
        said == f"sluice train: another process trains in {out}: end it, or wait until it has ended, and start again\n"
    )
    assert "cannot be written to" in refused("train", *TINY, f"data.path={text}", "--out", str(text / "below"))


def test_a_checkpoint_set_aside_is_told_of_and_so_is_where_it_goes_on(
    capsys: pytest.CaptureFixture[str], text: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    run_json(capsys, "train", *TINY, f"data.path={text}", "--out", str(out))
    (out / "report.json").unlink()
    for step, last in ((6, "resumes from step 3"), (3, "no intact checkpoint is left: the run starts over")):
        for newest in out.glob(f"checkpoints/*/step-{step:08d}"):
            (newest / "log.jsonl").write_text("")
        if step == 3:
            shutil.rmtree(next(out.glob("checkpoints/*/step-00000006")))
            (out / "report.json").unlink()
        assert main(["train", "--resume", str(out)]) == 0
        notes = [line for line in capsys.readouterr().out.splitlines() if "checkpoint" in line or "resumes" in line]
        assert f"checkpoint of step {step} is damaged (log.jsonl has changed since it was written)" in notes[0]
        assert notes[1] == f"train      {last}"


def _losses(out: Path) -> list[float]:
    rows = [json.loads(line) for line in (out / "model" / "training.jsonl").read_text().splitlines()]
    found = [row["loss"] for row in rows if "loss" in row]
    assert len(found) in {6, 9}
    return found
