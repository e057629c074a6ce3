"""A resumed run is compared step by step, to the last bit, with the steps that the undisturbed one did at that time."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from benchmarks.training import resume
from benchmarks.training.accelerator import SMOKE, write_tokens
from benchmarks.training.launcher import Ended
from benchmarks.training.resume import (
    _FIRST_KILL,
    _LAST_KILL,
    COMPARED,
    SAVE_EVERY,
    STEPS,
    FinishedRun,
    _kill,
    _request,
    compare,
)
from benchmarks.training.watched import mark_of
from sluice.model.training.checkpointing.checkpoints import checkpoint_path, find_newest, read


def left(folder: Path, *, begun: int = 0, changed: float = 0.0) -> FinishedRun:
    """A run that went on from step `begun`; from there on its losses and weights are `changed`."""
    folder.mkdir()
    save_file({"a": torch.ones(3), "b": torch.arange(4.0) + changed}, folder / "model.safetensors")
    losses = {step: 3.0 / step + (changed if step > begun else 0.0) for step in range(1, STEPS + 1)}
    return FinishedRun(losses, {"timings": {"resumed_step": float(begun)}}, folder / "model.safetensors")


def test_equal_runs_are_the_same_to_the_last_bit(tmp_path: Path) -> None:
    found = compare("x", "x", 33, left(tmp_path / "one"), left(tmp_path / "two", begun=30))
    assert (found.resumed_from, found.identical, found.loss_apart) == (30, COMPARED, 0.0)
    assert (found.weights_identical, found.weights_apart) == (True, 0.0)
    assert found.resumed == [3.0 / step for step in range(31, 31 + COMPARED)]


def test_the_smallest_difference_shows(tmp_path: Path) -> None:
    found = compare("x", "y", 33, left(tmp_path / "one"), left(tmp_path / "two", begun=30, changed=1e-6))
    assert found.identical == 0 and not found.weights_identical
    assert found.loss_apart == pytest.approx(1e-6, rel=1e-3) and found.weights_apart == pytest.approx(1e-6, rel=0.2)


def test_a_run_that_began_anew_is_no_proof(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="began anew"):
        compare("x", "x", 33, left(tmp_path / "one"), left(tmp_path / "two", begun=0))


def test_a_run_dies_at_the_drawn_step_behind_a_whole_checkpoint(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(resume, "_MODEL", resume._MODEL | {"hidden_size": 32, "layers": 1, "context": 32})
    monkeypatch.setattr(resume, "_PRETRAIN", resume._PRETRAIN | {"steps": 12, "warmup_steps": 1, "checkpoint_every": 2})
    packed = write_tokens(tmp_path / "tokens", "smoke", SMOKE)
    request = _request(tmp_path, "one process, plain PyTorch", packed.tokens, packed.tokenizer)
    _kill(request, 5)
    assert mark_of(request, 0).is_file() and not (tmp_path / "out").exists()
    (state,) = (tmp_path / "checkpoints").iterdir()
    found = find_newest(state)
    assert found.step in {2, 4} and not found.notes
    assert [row["step"] for row in read(checkpoint_path(state, found.step)).log] == [*range(1, found.step + 1)]


def test_a_run_that_ends_otherwise_is_no_proof(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(resume, "run_to_any_end", lambda *_: Ended(1, "", "ValueError: no tokens"))
    request = _request(tmp_path, "2 workers, ZeRO 1", tmp_path, tmp_path)
    mark_of(request, 0).touch()
    with pytest.raises(RuntimeError, match=r"ranks \[1\] were to be killed at step 21: .*ValueError: no tokens"):
        _kill(request, 21)


def test_a_kill_is_drawn_behind_a_whole_checkpoint_and_before_the_steps_compared() -> None:
    assert 2 * SAVE_EVERY < _FIRST_KILL < _LAST_KILL <= STEPS - COMPARED
