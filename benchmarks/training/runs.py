"""Runs of cases, each round in processes of its own and the cases in turn, so that a busy minute hits all alike."""

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.model.shapes import SHAPES
from benchmarks.training.case import Case, Measured, Round

ROUND_S = 1200.0
"""Bound of waiting for one run, compilation included."""


def in_turns(cases: Sequence[Case], packed: Path, tokenizer: Path, rounds: int) -> list[Measured]:
    """`rounds` runs of every case. RuntimeError, naming the case, where one fails or does not end."""
    found: dict[Case, list[Round]] = {case: [] for case in cases}
    for _ in range(rounds):
        for case in cases:
            print(f"  {case.name} ..", file=sys.stderr, flush=True)
            with tempfile.TemporaryDirectory(prefix="sluice-bench-") as folder:
                found[case].append(_round(case, packed, tokenizer, Path(folder)))
    return [Measured(case=case, rounds=each) for case, each in found.items()]


def _round(case: Case, packed: Path, tokenizer: Path, folder: Path) -> Round:
    if case.library == "transformers":
        said = _run(case, [sys.executable, "-m", "benchmarks.training.peer", str(packed), case.model_dump_json()])
        return Round.model_validate_json(said.splitlines()[-1])
    request = folder / "request.json"
    request.write_text(json.dumps(request_of(case, packed, tokenizer, folder)), encoding="utf-8")
    program = ["-m", "model.training.pretrain", str(request)]
    start = [sys.executable, *program]
    if case.ranks > 1:
        torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(case.ranks)]
        start = [sys.executable, *torchrun, *program]
    said = _run(case, start)
    report = json.loads([line for line in said.splitlines() if line.startswith("{")][-1])
    return round_of(case, report)


def request_of(case: Case, packed: Path, tokenizer: Path, folder: Path) -> dict[str, object]:
    """The case for `python -m model.training.pretrain`: the product's own loop, engine, checkpoints and validation."""
    config = SHAPES[case.shape].config(case.sequence)
    settings = config.model_dump(mode="json", exclude={"vocab_size"})
    pretrain = {
        "workers": case.ranks,
        "zero_stage": 1 if case.ranks > 1 or case.precision == "bf16" else 0,
        "dtype": case.precision,
        "compile": case.compiled,
        "optimizer": "adamw",
        "learning_rate": 1e-3,
        "steps": case.steps,
        "batch_size": case.rows,
        "micro_batch_size": case.rows // case.ranks,
        "warmup_steps": 5,
        "checkpoint_every": case.steps,
        "validate_every": case.steps,
        "validation_batches": 1,
        "metrics_every": case.skipped,
    }
    return {
        "config": pretrain,
        "model": settings,
        "packed": str(packed),
        "tokenizer": str(tokenizer),
        "out": str(folder / "out"),
        "checkpoints": str(folder / "checkpoints"),
    }


def round_of(case: Case, report: dict[str, Any]) -> Round:
    """From the run's report, without its first steps."""
    timings = report["timings"]
    rows = timings.get("speed", [])
    counted = [row for row in rows if row["step"] > case.skipped]
    if not counted:
        raise RuntimeError(f"{case.name}: the report's speed has no row after step {case.skipped}")
    spent = timings["train_seconds"] + timings["checkpoint_seconds"]
    return Round(
        tokens_per_second=statistics.median(row["tokens_per_second"] for row in counted),
        peak_bytes=int(max(row["memory_bytes"] for row in rows)),
        loss=report["final_loss"],
        checkpoint_share=timings["checkpoint_seconds"] / spent,
    )


def _run(case: Case, command: Sequence[str]) -> str:
    threads = str(case.threads)
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    environment |= {"OMP_NUM_THREADS": threads, "TORCHINDUCTOR_COMPILE_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=ROUND_S, check=False)
    except subprocess.TimeoutExpired:
        raise RuntimeError(f"{case.name} did not end within {ROUND_S:g} s") from None
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["nothing said"])[-1]
        raise RuntimeError(f"{case.name} ended with status {done.returncode}: {last}")
    return done.stdout
