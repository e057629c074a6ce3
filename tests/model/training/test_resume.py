"""Two processes that were ended go on and end with the bits of a run that was not."""

import json
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from training_fixtures import (
    ROOT,
    environment,
    run,
    torchrun,
    training_rows,
    write_request,
)

from model.training.saving.checkpoints import checkpoint_path, complete_steps

CONFIG: dict[str, Any] = {
    "workers": 2,
    "optimizer": "muon",
    "steps": 60,
    "batch_size": 8,
    "micro_batch_size": 2,
    "warmup_steps": 2,
    "checkpoint_every": 10,
    "validate_every": 25,
    "validation_batches": 1,
}


def command(request: Path) -> list[str]:
    return torchrun(CONFIG["workers"], "-m", "model.training.pretrain", str(request))


def ask_to_end(request: Path, checkpoint: str) -> tuple[str, Path]:
    """Start the run and end it as soon as `checkpoint` is there. Returns what it said and its state folder."""
    process = subprocess.Popen(command(request), cwd=ROOT, env=environment(), stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 900
    while not (found := list(request.parent.glob(f"checkpoints/*/{checkpoint}"))):
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()[1][-4000:]
        time.sleep(0.002)
    process.terminate()
    return process.communicate(timeout=600)[1], found[0].parent


@pytest.fixture(scope="module")
def undisturbed(packed_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed")
    run(command(write_request(folder, packed_corpus, CONFIG)))
    return folder


def test_asked_to_end_and_its_last_checkpoint_torn_it_ends_with_the_bits_of_a_run_that_was_not(
    undisturbed: Path, packed_corpus: Path, tmp_path: Path
) -> None:
    """What kill -9 does is shown by whole runs, and by one process at chosen moments in test_continuation.py."""
    request = write_request(tmp_path, packed_corpus, CONFIG)
    said, state = ask_to_end(request, "step-00000010")
    saved = max(complete_steps(state))
    assert f"asked to end after step {saved} of 60" in said, said[-4000:]
    assert 10 < saved < 60
    assert not (tmp_path / "out" / "model.safetensors").exists()
    (checkpoint_path(state, saved) / "rank-00001.safetensors").write_bytes(b"torn")

    report = json.loads(run(command(request)).stdout.splitlines()[-1])
    assert 10 <= report["timings"]["resumed_step"] < saved, "it goes on from the checkpoint before"
    for name in ("training.jsonl", "model.safetensors", "config.json", "lineage.json"):
        assert (tmp_path / "out" / name).read_bytes() == (undisturbed / "out" / name).read_bytes(), name


def test_the_log_holds_every_step_and_the_loss_falls(undisturbed: Path) -> None:
    rows = training_rows(undisturbed)
    losses = {row["step"]: row["loss"] for row in rows if "loss" in row}
    assert sorted(losses) == list(range(1, 61))
    assert losses[60] < losses[1] - 1
    assert [row["step"] for row in rows if "validation_loss" in row] == [25, 50, 60]
