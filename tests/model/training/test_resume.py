"""Two processes that were ended go on and end with the bits of a run that was not."""

import json
from pathlib import Path
from typing import Any

import pytest
from rank_pool import RankPool
from training_fixtures import pretrain_in_a_rank, run_to_any_end, torchrun, training_rows, write_request

from sluice.model.training.checkpointing.checkpoints import checkpoint_path, complete_steps

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


@pytest.fixture(scope="module")
def undisturbed(rank_pool: RankPool, packed_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed")
    rank_pool.run(2, pretrain_in_a_rank, write_request(folder, packed_corpus, CONFIG))
    return folder


def test_asked_to_end_and_its_last_checkpoint_torn_it_ends_with_the_bits_of_a_run_that_was_not(
    rank_pool: RankPool, undisturbed: Path, packed_corpus: Path, tmp_path: Path
) -> None:
    """The effect of kill -9 is shown by whole runs, and by one process at chosen moments in test_continuation.py."""
    request = write_request(tmp_path, packed_corpus, CONFIG)
    program = str(Path(__file__).with_name("preempted_run.py"))
    asked = run_to_any_end(torchrun(CONFIG["workers"], program, str(request), "25"))
    assert asked.returncode and "stopped on request after step 25 of 60" in asked.stderr, asked.stderr[-4000:]
    [state] = (tmp_path / "checkpoints").iterdir()
    # Two are kept: the one that was due, and the one of the step in hand.
    assert sorted(complete_steps(state)) == [20, 25]
    assert not (tmp_path / "out" / "model.safetensors").exists()
    (checkpoint_path(state, 25) / "rank-00001.safetensors").write_bytes(b"torn")

    report = json.loads(rank_pool.run(2, pretrain_in_a_rank, request).splitlines()[-1])
    assert report["timings"]["resumed_step"] == 20, "it goes on from the checkpoint before"
    for name in ("training.jsonl", "model.safetensors", "config.json", "lineage.json"):
        assert (tmp_path / "out" / name).read_bytes() == (undisturbed / "out" / name).read_bytes(), name


def test_the_log_holds_every_step_and_the_loss_falls(undisturbed: Path) -> None:
    rows = training_rows(undisturbed)
    losses = {row["step"]: row["loss"] for row in rows if "loss" in row}
    assert sorted(losses) == list(range(1, 61))
    assert losses[60] < losses[1] - 1
    assert [row["step"] for row in rows if "validation_loss" in row] == [25, 50, 60]
