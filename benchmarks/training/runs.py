"""Runs of cases, each round in processes of its own."""

import json
import sys
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.model.shapes import SHAPES
from benchmarks.report import run_in_turns
from benchmarks.training import launcher
from benchmarks.training.case import BETAS, CLIP, DECAY, LEARNING_RATE, Case, Measured, Round, Ticks, round_of

ROUND_S = 1200.0
"""Bound of waiting for one run, compilation included."""
SEED = 1234


def in_turns(cases: Sequence[Case], packed: Path, tokenizer: Path, rounds: int) -> list[Measured]:
    """`rounds` runs of every case. RuntimeError, naming the case, where one fails or does not end."""
    found = run_in_turns({case: partial(run_once, case, packed, tokenizer) for case in cases}, rounds)
    return [Measured(case=case, rounds=each) for case, each in found.items()]


def run_once(case: Case, packed: Path, tokenizer: Path) -> Round:
    """RuntimeError, naming the case, where it fails or does not end; OutOfMemory where that is why."""
    print(f"  {case.name} ..", file=sys.stderr, flush=True)
    with tempfile.TemporaryDirectory(prefix="sluice-bench-") as folder:
        measure = _theirs if case.library == "transformers" else _ours
        return measure(case, packed, tokenizer, Path(folder))


def _ours(case: Case, packed: Path, tokenizer: Path, folder: Path) -> Round:
    request = folder / "request.json"
    request.write_text(json.dumps(request_of(case, packed, tokenizer, folder)), encoding="utf-8")
    said = _run(case, launcher.program(case.ranks, "benchmarks.training.watched", "clock", str(request), str(folder)))
    report, by_step = launcher.results_of(said, folder)
    losses = list(by_step.values())
    ranks = [
        Ticks.model_validate_json((folder / f"ticks-{rank}.json").read_text(encoding="utf-8"))
        for rank in range(case.ranks)
    ]
    return round_of(
        case,
        ranks,
        first_loss=losses[0],
        mean_loss=sum(losses) / len(losses),
        # As many in all as there are multiples, and the last step's.
        snapshot_seconds=report["timings"]["checkpoint_seconds"] / -(-case.steps // (case.save_every or case.steps)),
    )


def _theirs(case: Case, packed: Path, tokenizer: Path, folder: Path) -> Round:
    write_common(case, packed, tokenizer, folder)
    said = _run(case, launcher.program(1, "benchmarks.training.peer", str(folder), case.model_dump_json()))
    return Round.model_validate_json(said.splitlines()[-1])


def write_common(case: Case, packed: Path, tokenizer: Path, folder: Path) -> None:
    """Write the first weights of our run of the case, in transformers' names, and the rows that it reads."""
    from safetensors.torch import save_file

    from benchmarks.training.peer import ROWS, WEIGHTS
    from sluice.data.packing import PackedTokens
    from sluice.model.architecture.initialization import initialize
    from sluice.model.architecture.transformer import Transformer
    from sluice.model.config import PretrainConfig
    from sluice.model.huggingface.state import to_huggingface
    from sluice.model.training.batches.dataset import TrainingBatches

    ours = Transformer(SHAPES[case.shape].config(case.sequence))
    initialize(ours, SEED)
    save_file(to_huggingface(ours.state_dict(), ours.config), folder / WEIGHTS)
    config = PretrainConfig.model_validate(request_of(case, packed, tokenizer, folder)["config"])
    batches = TrainingBatches(PackedTokens(packed, "train"), config, case.sequence)
    np.save(folder / ROWS, np.concatenate([batches.read(step).ids.numpy() for step in range(case.steps)]))


def request_of(case: Case, packed: Path, tokenizer: Path, folder: Path) -> dict[str, Any]:
    """The case for `python -m sluice.model.training.pretrain`: our loop, engine, checkpoints and validation."""
    config = SHAPES[case.shape].config(case.sequence)
    settings = config.model_dump(mode="json", exclude={"vocab_size"})
    pretrain = {
        "workers": case.ranks,
        "zero_stage": 1 if case.ranks > 1 or case.precision == "bf16" else 0,
        "dtype": case.precision,
        "compile": case.compiled,
        "optimizer": "adamw",
        "learning_rate": LEARNING_RATE,
        "beta1": BETAS[0],
        "beta2": BETAS[1],
        "weight_decay": DECAY,
        "gradient_clip": CLIP,
        # As the Trainer's: the n-th of N steps has (N - n + 1) / N of the peak.
        "schedule": "linear",
        "warmup_steps": 0,
        "min_learning_rate_ratio": 1 / case.steps,
        "steps": case.steps,
        "batch_size": case.rows,
        "micro_batch_size": case.micro_rows or case.rows // case.ranks,
        "activation_checkpointing": "full" if case.recomputed else "none",
        "checkpoint_every": case.save_every or case.steps,
        "validate_every": case.steps,
        "validation_batches": 1,
        "seed": SEED,
    }
    return launcher.request(folder, (packed, tokenizer), pretrain, settings)


def _run(case: Case, command: Sequence[str]) -> str:
    environment = {"OMP_NUM_THREADS": str(case.threads), "TORCHINDUCTOR_COMPILE_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    if case.device == "cpu":
        environment["CUDA_VISIBLE_DEVICES"] = ""
    return launcher.run(case.name, command, ROUND_S, environment)
