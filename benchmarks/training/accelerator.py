"""On a GPU: the fraction of its dense bf16 peak that whole steps of our training loop reach. Needs no Ray.

The run is `sluice train`'s own, one process with NCCL: bf16 weights with float32 masters (ZeRO 1), gradients clipped,
AdamW, eager and with compiled layers. What `make bench-model` measures there is forward and backward alone.
"""

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from benchmarks.model.accelerator import dense_bf16_peak
from benchmarks.model.shapes import ACCELERATOR_SHAPES, SHAPES
from benchmarks.training.case import Case, Measured, Round
from benchmarks.training.launcher import OutOfMemory
from benchmarks.training.results import TrainingOnGpu
from benchmarks.training.runs import run_once

if TYPE_CHECKING:
    from sluice.model.training.batches.text import Packed

Device = Literal["cpu", "cuda"]

ABSENT = "no GPU is available: torch.cuda.is_available() is false"


@dataclass(frozen=True)
class Plan:
    shapes: tuple[str, ...] = ACCELERATOR_SHAPES
    sequence: int = 2048
    steps: int = 40
    skipped: int = 10
    device: Device = "cuda"


SMOKE = Plan(("smoke",), 32, steps=4, skipped=1, device="cpu")
"""To see that all runs, on the processor."""


def at_hand() -> bool:
    import torch

    return torch.cuda.is_available()


def measure(plan: Plan, folder: Path, *, rounds: int, threads: int) -> TrainingOnGpu | None:
    """None where the plan is for a GPU and there is none. A candidate that cannot run is kept with its reason."""
    if plan.device == "cuda" and not at_hand():
        return None
    found = _describe(plan.device, rounds, threads)
    for shape in plan.shapes:
        packed = write_tokens(folder / shape, shape, plan)
        run = partial(run_once, packed=packed.tokens, tokenizer=packed.tokenizer)
        for case in cases(shape, plan, threads):
            name = f"{shape}, {case.name}"
            try:
                found.measured.append(fitted(case, rounds, run))
            except RuntimeError as error:
                print(f"  {error}", file=sys.stderr, flush=True)
                found.refused[name] = str(error)
    return found


def cases(shape: str, plan: Plan, threads: int) -> list[Case]:
    """Eager and compiled, a step's tokens as one micro-batch."""
    eager = Case(
        library="sluice",
        shape=shape,
        sequence=plan.sequence,
        rows=max(1, SHAPES[shape].step_tokens // plan.sequence),
        precision="bf16",
        threads=threads,
        steps=plan.steps,
        skipped=plan.skipped,
        device=plan.device,
    )
    return [eager, eager.model_copy(update={"compiled": True})]


def narrower(case: Case) -> Iterator[Case]:
    """The case in micro-batches of half as many sequences each time; then again, with activations computed anew."""
    for recomputed in (False, True):
        rows = case.rows
        while rows:
            yield case.model_copy(update={"micro_rows": rows, "recomputed": recomputed})
            rows = rows // 2 if rows % 2 == 0 else 0


def fitted(case: Case, rounds: int, run: Callable[[Case], Round]) -> Measured:
    """`rounds` runs of the first way to cut the case that fits in memory. RuntimeError where none does or it fails."""
    reason = ""
    for cut in narrower(case):
        try:
            return Measured(case=cut, rounds=[run(cut) for _ in range(rounds)])
        except OutOfMemory as error:
            print(f"  micro-batches of {cut.micro_rows} do not fit", file=sys.stderr, flush=True)
            reason = str(error)
    raise OutOfMemory(f"{reason} (micro-batches of one sequence, activations computed anew)")


def write_tokens(folder: Path, shape: str, plan: Plan) -> "Packed":
    """Random tokens of the model's whole vocabulary, as `sluice pack` writes them: a step's speed is not theirs."""
    from sluice.data.config import TokenizerConfig
    from sluice.data.packing import PackReport, SplitCounts
    from sluice.data.packing.shards import ShardWriter
    from sluice.data.split import Split
    from sluice.data.tokenization import END_OF_TEXT
    from sluice.data.tokenization.folder import save_tokenizer
    from sluice.model.training.batches.text import INDEX, Packed, octets

    packed = Packed(folder / "pack", folder / "tokenizer")
    for each in packed:
        each.mkdir(parents=True)
    save_tokenizer(octets("", "", TokenizerConfig.model_validate({})), (END_OF_TEXT,), packed.tokenizer)
    vocabulary, draws = SHAPES[shape].vocab_size, np.random.default_rng(0)
    step = max(SHAPES[shape].step_tokens, plan.sequence) + 1
    sizes: dict[Split, int] = {"train": plan.steps * step + plan.sequence, "valid": step, "test": 0}
    counts: dict[Split, SplitCounts] = {}
    for split, size in sizes.items():
        writer = ShardWriter(packed.tokens, split, np.dtype(np.uint16), size or 1)
        if size:
            writer.write(draws.integers(1, vocabulary, size).astype(np.uint16))
            writer.counts.documents, writer.counts.bytes = 1, size
        counts[split] = writer.close()
    index = PackReport(dtype="uint16", vocab_size=vocabulary, eos_id=0, splits=counts)
    (packed.tokens / INDEX).write_text(index.model_dump_json(exclude={"timings"}), encoding="utf-8")
    return packed


def _describe(device: Device, rounds: int, threads: int) -> TrainingOnGpu:
    """The device, and the FLOPs a second of its largest matrix product."""
    import torch

    from benchmarks.model.case import Case as ModelCase
    from benchmarks.model.turns import in_turns
    from benchmarks.report import libraries, machine

    name = torch.cuda.get_device_name() if device == "cuda" else machine()
    products = {"matmul": ModelCase(work="matmul", precision="bf16", device=device, threads=threads)}
    return TrainingOnGpu(
        device=name,
        libraries=libraries("torch", "deepspeed"),
        peak_flops=dense_bf16_peak(name) if device == "cuda" else None,
        matmul_flops=in_turns(products, rounds)["matmul"].best,
    )
