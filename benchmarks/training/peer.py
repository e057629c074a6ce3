"""transformers' Trainer on the common model and tokens, as a program: a folder of shards and a `Case` come in, a
`Round` goes out. No setting of ours but those of the case: the Trainer's optimizer, loader and logging are its own.
"""

import os
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Dataset
from transformers import Trainer, TrainerCallback, TrainingArguments

from benchmarks.model import peer
from benchmarks.model.case import Case as ModelCase
from benchmarks.training.case import Case, Round
from data.packing import PackedTokens


class Rows(Dataset[dict[str, Any]]):
    """Rows of a step, as input ids and labels."""

    def __init__(self, packed: Path, sequence: int) -> None:
        self.tokens, self.sequence = PackedTokens(packed, "train").tokens, sequence

    def __len__(self) -> int:
        return (len(self.tokens) - 1) // self.sequence

    def __getitem__(self, index: int) -> dict[str, Any]:
        row = torch.from_numpy(self.tokens.read(index * self.sequence, self.sequence).astype("int64"))
        return {"input_ids": row, "labels": row}


class Clock(TrainerCallback):
    """When each step ended."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.ends.append(time.perf_counter())


def main() -> None:
    packed, case = Path(sys.argv[1]), Case.model_validate_json(sys.argv[2])
    torch.set_num_threads(case.threads)
    shape = ModelCase(work="train", library="transformers", shape=case.shape, sequence=case.sequence)
    model = peer.build(shape, None)
    clock = Clock()
    with tempfile.TemporaryDirectory(prefix="sluice-trainer-") as folder:
        arguments = TrainingArguments(
            output_dir=folder,
            max_steps=case.steps,
            per_device_train_batch_size=case.rows,
            learning_rate=1e-3,
            bf16=case.precision == "bf16",
            torch_compile=case.compiled,
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
            use_cpu=not torch.cuda.is_available(),
            seed=0,
        )
        trainer = Trainer(model=model, args=arguments, train_dataset=Rows(packed, case.sequence), callbacks=[clock])
        # Its log lines would stand where the answer is looked for.
        said, sys.stdout = sys.stdout, sys.stderr
        done = trainer.train()
        sys.stdout = said
    counted = len(clock.ends) - case.skipped
    assert counted > 0, f"{len(clock.ends)} steps"
    seconds = clock.ends[-1] - clock.ends[case.skipped - 1]
    answer = Round(
        tokens_per_second=counted * case.rows * case.sequence / seconds,
        peak_bytes=_peak_bytes(),
        loss=float(done.training_loss),
    )
    print(answer.model_dump_json())


def _peak_bytes() -> int:
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    os.environ["HF_HUB_OFFLINE"] = "1"
    main()
