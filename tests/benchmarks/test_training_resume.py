"""A resumed run is compared step by step, to the last bit, with the steps that the undisturbed one did at that time."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from benchmarks.training.resume import COMPARED, STEPS, Left, compare


def left(folder: Path, *, begun: int = 0, changed: float = 0.0) -> Left:
    """A run that went on from step `begun`; from there on its losses and weights are `changed`."""
    folder.mkdir()
    save_file({"a": torch.ones(3), "b": torch.arange(4.0) + changed}, folder / "model.safetensors")
    losses = {step: 3.0 / step + (changed if step > begun else 0.0) for step in range(1, STEPS + 1)}
    return Left(losses, {"timings": {"resumed_step": float(begun)}}, folder / "model.safetensors")


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
