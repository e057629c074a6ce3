"""A worker under Ray Train that is killed: the run goes on from its last checkpoint and ends with the same bits."""

import os
import signal
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from rank_pool import RankPool
from training_fixtures import MODEL, pretrain_in_a_rank, training_rows, write_request

from sluice.model.architecture.config import ModelConfig
from sluice.model.config import PretrainConfig
from sluice.model.training.pretrain import pretrain

SETTINGS: dict[str, Any] = {
    "workers": 2,
    "zero_stage": 1,
    "steps": 100,
    "batch_size": 8,
    "micro_batch_size": 4,
    "warmup_steps": 2,
    "checkpoint_every": 20,
    "validate_every": 100,
    "validation_batches": 1,
    "restarts": 1,
}


@dataclass(frozen=True)
class Assassin:
    """Hears within the first worker how far it is, and kills it once it has a checkpoint; the one after it lives."""

    folder: Path

    def __call__(self, done: int, total: int, note: str) -> None:
        with (self.folder / "heard.txt").open("a") as heard:
            heard.write(f"{done} {note}\n")
        if note == "starting workers" and not (self.folder / "killed").exists():
            threading.Thread(target=self._kill, daemon=True).start()

    def _kill(self) -> None:
        while not list(self.folder.glob(f"ray/checkpoints/*/step-{SETTINGS['checkpoint_every']:08d}")):
            time.sleep(0.01)
        (self.folder / "killed").write_text(str(os.getpid()))
        os.kill(os.getpid(), signal.SIGKILL)


def first_step(heard: list[str]) -> int:
    """The first step that is told of; later ones are told now and then."""
    return next(int(line.partition(" ")[0]) for line in heard if " loss " in line)


def losses(folder: Path) -> list[float]:
    rows = [row for row in training_rows(folder) if "loss" in row]
    assert [row["step"] for row in rows] == list(range(1, SETTINGS["steps"] + 1))
    return [row["loss"] for row in rows]


def test_a_killed_worker_is_replaced_and_the_run_ends_with_the_bits_of_one_that_was_not(
    ray_head: str, rank_pool: RankPool, packed_corpus: Path, tmp_path: Path
) -> None:
    (tmp_path / "ray" / "out").mkdir(parents=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_ADDRESS", ray_head)
        report = pretrain(
            PretrainConfig(**SETTINGS),
            ModelConfig(**MODEL),
            packed_corpus / "pack",
            packed_corpus / "tokenizer",
            tmp_path / "ray" / "out",
            tmp_path / "ray" / "checkpoints",
            progress=Assassin(tmp_path),
        )
    killed = int((tmp_path / "killed").read_text())
    assert killed != os.getpid()
    heard = (tmp_path / "heard.txt").read_text().splitlines()
    again = next(number for number, line in enumerate(heard) if "a worker died: start 2 of at most 2" in line)
    assert first_step(heard[:again]) == 1
    # Not from the start: a checkpoint was there.
    assert SETTINGS["checkpoint_every"] < first_step(heard[again:]) < SETTINGS["steps"]

    request = write_request(tmp_path / "alone", packed_corpus, SETTINGS)
    rank_pool.run(2, pretrain_in_a_rank, request)
    assert losses(tmp_path / "ray") == losses(tmp_path / "alone")
    assert report.steps == SETTINGS["steps"]
