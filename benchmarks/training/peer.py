"""transformers' Trainer on the common model and tokens, as a program: a `Case`, first weights and rows come in, a
`Round` goes out. Of ours are the case's settings and the peak learning rate: the rest are the Trainer's defaults.
"""

import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from transformers import Trainer, TrainerCallback, TrainingArguments

from benchmarks.model import peer
from benchmarks.model.case import Case as ModelCase
from benchmarks.training.case import LEARNING_RATE, Case, Ticks, round_of
from benchmarks.training.watched import peak_bytes

WEIGHTS, ROWS = "weights.safetensors", "rows.npy"


class Clock(TrainerCallback):
    """Reads the clocks at the end of each step, and keeps the first step's loss."""

    def __init__(self) -> None:
        self.ticks, self.first_loss = Ticks(), float("nan")

    def on_step_end(self, *_: Any, **settings: Any) -> None:
        self.ticks.ends.append(time.perf_counter())
        self.ticks.cpu.append(time.process_time())

    def on_log(self, *stand: Any, logs: dict[str, Any] | None = None, **settings: Any) -> None:
        _, state, *_ = stand
        if state.global_step == 1 and logs and "loss" in logs:
            self.first_loss = float(logs["loss"])


def main(folder: Path, case: Case) -> None:
    torch.set_num_threads(case.threads)
    shape = ModelCase(work="train", library="transformers", shape=case.shape, sequence=case.sequence)
    model = peer.build(shape, load_file(folder / WEIGHTS))
    clock = Clock()
    # Its log lines would stand where the answer is looked for.
    said, sys.stdout = sys.stdout, sys.stderr
    with tempfile.TemporaryDirectory(prefix="sluice-trainer-") as out:
        arguments = TrainingArguments(
            output_dir=out,
            max_steps=case.steps,
            per_device_train_batch_size=case.rows,
            learning_rate=LEARNING_RATE,
            # The rows come in the order of the run that this one is held to.
            train_sampling_strategy="sequential",
            bf16=case.precision == "bf16",
            torch_compile=case.compiled,
            save_strategy="no",
            logging_first_step=True,
            report_to=[],
            disable_tqdm=True,
            use_cpu=not torch.cuda.is_available(),
        )
        # A list is a dataset: what is read here are the rows [sequence] in the order of our run.
        rows: Any = [{"input_ids": row, "labels": row} for row in torch.from_numpy(np.load(folder / ROWS))]
        done = Trainer(model=model, args=arguments, train_dataset=rows, callbacks=[clock]).train()
    sys.stdout = said
    clock.ticks.peak_bytes = peak_bytes()
    found = round_of(case, [clock.ticks], first_loss=clock.first_loss, mean_loss=float(done.training_loss))
    print(found.model_dump_json())


if __name__ == "__main__":
    main(Path(sys.argv[1]), Case.model_validate_json(sys.argv[2]))
