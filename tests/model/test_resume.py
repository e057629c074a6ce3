"""A run killed at any moment goes on and ends with the bits of one that was not."""

import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
from training_fixtures import (  # noqa: F401
    ROOT,
    environment,
    packed_corpus,
    run,
    torchrun,
    training_rows,
    write_request,
)

CONFIG: dict[str, Any] = {
    "workers": 2,
    "optimizer": "muon",
    "steps": 16,
    "batch_size": 8,
    "micro_batch_size": 2,
    "warmup_steps": 2,
    "checkpoint_every": 4,
    "validate_every": 6,
    "validation_batches": 1,
}
KILL_AFTER = "10/16"


def command(request: Path) -> list[str]:
    return torchrun(CONFIG["workers"], "-m", "model.training.pretrain", str(request))


def kill_when_seen(request: Path, mark: str) -> None:
    """Start the run, and kill -9 its whole process group as soon as rank 0 has said `mark`."""
    process = subprocess.Popen(
        command(request), cwd=ROOT, env=environment(), stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stderr is not None
    said = []
    for line in process.stderr:
        said.append(line)
        if line.startswith(mark):
            break
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate(timeout=60)
    assert said and said[-1].startswith(mark), "".join(said)[-4000:]


@pytest.fixture(scope="module")
def undisturbed(packed_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:  # noqa: F811
    folder = tmp_path_factory.mktemp("undisturbed")
    run(command(write_request(folder, packed_corpus, CONFIG)))
    return folder


def test_killed_and_resumed_is_bit_identical(undisturbed: Path, packed_corpus: Path, tmp_path: Path) -> None:  # noqa: F811
    request = write_request(tmp_path, packed_corpus, CONFIG)
    kill_when_seen(request, KILL_AFTER)
    assert not (tmp_path / "out" / "model.safetensors").exists()
    state = next((tmp_path / "checkpoints").iterdir())
    newest = max(state.glob("step-????????"))
    # The newest one is torn as well: the run must go on from the one before.
    (newest / "weights.safetensors").write_bytes(b"torn")

    said = run(command(request)).stderr
    assert "1/16 " not in said.splitlines(), "the run began again from nothing"
    assert (tmp_path / "out" / "training.jsonl").read_bytes() == (undisturbed / "out" / "training.jsonl").read_bytes()
    for name in ("model.safetensors", "config.json", "lineage.json"):
        assert (tmp_path / "out" / name).read_bytes() == (undisturbed / "out" / name).read_bytes(), name


def test_the_log_holds_every_step_and_the_loss_falls(undisturbed: Path) -> None:
    rows = training_rows(undisturbed)
    losses = {row["step"]: row["loss"] for row in rows if "loss" in row}
    assert sorted(losses) == list(range(1, 17))
    assert losses[16] < losses[1] - 0.5
    assert [row["step"] for row in rows if "validation_loss" in row] == [6, 12, 16]
