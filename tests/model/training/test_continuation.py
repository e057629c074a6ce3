"""A run that went on equals one that was never disturbed: every loss, every skip, every bit of the average."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from interrupted_run import STEPS, batch, go, new_engine
from training_fixtures import HANG_S, ROOT, environment

from sluice.model.training.checkpointing import checkpoints
from sluice.model.training.checkpointing.resharding import AVERAGE, MASTER
from sluice.model.training.checkpointing.resume import CheckpointManager
from sluice.model.training.errors import TrainingInterrupted
from sluice.model.training.faults.preemption import Preemption

Run = tuple[list[dict[str, Any]], dict[str, torch.Tensor], list[str]]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return go(tmp_path_factory.mktemp("undisturbed"))


def go_until(folder: Path, step: int) -> None:
    """A run that is asked to stop while it is at `step`, counted from 0."""

    def terminate(at: int) -> None:
        if at == step:
            os.kill(os.getpid(), signal.SIGTERM)

    with Preemption() as preemption, pytest.raises(TrainingInterrupted, match=f"after step {step + 1} of {STEPS}"):
        go(folder, before=terminate, preempted=preemption.requested)


def assert_same(run: Run, other: Run) -> None:
    assert run[0] == other[0]
    assert run[1].keys() == other[1].keys()
    for name, value in run[1].items():
        assert torch.equal(value, other[1][name]), name


def test_the_run_has_all_that_a_checkpoint_must_hold(undisturbed: Run) -> None:
    log, average, notes = undisturbed
    skipped = [row["step"] for row in log if "skipped" in row]
    assert skipped
    assert int(average["updates"]) == STEPS - len(skipped)
    assert notes == []
    # Dropout: the same batch under the same weights, twice.
    engine = new_engine(1)
    first, second = (float(engine.forward_backward([batch(1)], 32)) for _ in range(2))
    assert first != second


@pytest.mark.process
def test_killed_at_a_step_and_gone_on_is_bit_identical(undisturbed: Run, tmp_path: Path) -> None:
    """At step 20 the checkpoint of that step is just being written."""
    folders = {step: tmp_path / f"{step}" for step in (13, 20)}
    command = [sys.executable, str(Path(__file__).with_name("interrupted_run.py"))]
    for step, folder in folders.items():
        folder.mkdir()
        command += [str(folder), str(step)]
    done = subprocess.run(
        command, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=HANG_S, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    for step, folder in folders.items():
        written = checkpoints.complete_steps(folder)
        assert written and max(written) <= step <= STEPS - 50
        assert_same(go(folder, seed=2), undisturbed)


def test_asked_to_end_it_saves_the_step_it_is_at(undisturbed: Run, tmp_path: Path) -> None:
    go_until(tmp_path, 12)
    assert checkpoints.find_newest(tmp_path) == checkpoints.FoundCheckpoint(13, ())
    assert_same(go(tmp_path, seed=2), undisturbed)


def test_a_damaged_checkpoint_costs_some_steps_and_is_told_of(undisturbed: Run, tmp_path: Path) -> None:
    go_until(tmp_path, 17)
    torn = tmp_path / "step-00000018" / "rank-00000.safetensors"
    torn.write_bytes(torn.read_bytes()[:-1])
    run = go(tmp_path, seed=2)
    assert_same(run, undisturbed)
    assert [note.split(" and ")[0] for note in run[2]] == [
        "checkpoint of step 18 is damaged (rank-00000.safetensors has changed since it was written)",
        "resumes from step 15",
    ]


LAYOUTS = [("b", ["a", "c"], 9, False), ("a", ["b"], 9, True), ("c", ["a"], 4, True)]


@pytest.mark.parametrize(("own", "others", "step", "told"), LAYOUTS)
def test_the_furthest_of_a_runs_layouts_is_gone_on_from(
    tmp_path: Path, own: str, others: list[str], step: int, told: bool
) -> None:
    for name, saved in (("a", 4), ("b", 9)):
        with CheckpointManager(tmp_path / name, new_engine(1)) as continuation:
            continuation.save(saved, [{"step": saved}])
    (tmp_path / "c").mkdir()
    with CheckpointManager(tmp_path / own, new_engine(2)) as continuation:
        assert continuation.resume([tmp_path / each for each in others]) == (step, [{"step": step}])
        how = ", saved in another layout: equal but for rounding" if told else ""
        assert continuation.take_notes() == [f"resumes from step {step}{how}"]


def test_another_run_goes_on_from_a_checkpoint_by_its_path(tmp_path: Path) -> None:
    go(tmp_path / "plateau")
    found = checkpoints.open_checkpoint(tmp_path / "plateau" / "step-00000065")
    shutil.rmtree(tmp_path / "plateau" / "step-00000070")
    engine = new_engine(2)
    with CheckpointManager(tmp_path / "branch", engine) as branch:
        done, log = branch.load(found)
    assert (done, log[-1]["step"]) == (65, 65)
    saved = found.shards.weights("master")
    for name, parameter in engine.model.named_parameters():
        assert torch.equal(parameter.detach(), saved[name]), name


@pytest.mark.parametrize("forgotten", ["moments", "random.cpu", "guard", "average_updates"])
def test_each_part_of_it_matters(
    undisturbed: Run, tmp_path: Path, forgotten: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that the tests above could fail."""
    go_until(tmp_path, 12)
    read = checkpoints.read

    def forgetful(path: Path) -> checkpoints.TrainingCheckpoint:
        found = read(path)
        if forgotten in found.extra:
            found.extra[forgotten] = None
        for keys in found.shards._shards.values() if forgotten == "moments" else ():
            for key in keys.keys() - {MASTER, AVERAGE}:
                del keys[key]
        return found

    monkeypatch.setattr(checkpoints, "read", forgetful)
    if forgotten == "random.cpu":
        monkeypatch.setattr(checkpoints.TrainingCheckpoint, "own", lambda *_: {})
    run = go(tmp_path, seed=2)
    with pytest.raises(AssertionError):
        assert_same(run, undisturbed)
