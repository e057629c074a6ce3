"""When a run learns to copy: its held-out loss apart for what an induction head can find and for all else.

Such a head looks for an earlier copy of the token at hand and expects what followed it (Olsson et al., arXiv
2209.11895). So a target is a copy where the same pair, the token before it and it, stood earlier in its row.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from benchmarks.training.ablation import Lane, trained
from benchmarks.training.recipes import Recipe
from benchmarks.training.results import CopyingRun
from sluice.core.cpus import available_cores
from sluice.data.packing import PackedTokens

if TYPE_CHECKING:
    from sluice.model.training.batches.batch import Batch
    from sluice.model.training.engines.local import LocalEngine

_EVERY = 50
"""Steps between two looks."""
_WINDOWS, _ROWS = 128, 16
"""Held-out rows looked at, and those of a forward pass."""


def measure_copying(artifacts: Path, found: Sequence[Recipe], *, steps: int) -> list[CopyingRun]:
    """One run of each recipe, seed 0, a thread each, on the tokens of `artifacts`, which `sluice run` left."""
    lanes = [Lane(each, artifacts / "pack", steps, 0) for each in found]
    with ProcessPoolExecutor(
        available_cores(), mp_context=get_context("spawn"), initializer=torch.set_num_threads, initargs=(1,)
    ) as pool:
        return list(pool.map(copying_run, lanes))


def copying_run(lane: Lane) -> CopyingRun:
    """Train, and look at the held-out side every so many steps."""
    from sluice.model.training.loop import validate

    held = PackedTokens(lane.packed, "valid")
    run = CopyingRun(name=lane.recipe.name)

    def look(step: int, engine: "LocalEngine") -> None:
        if step % _EVERY:
            return
        told = validate(engine, _batches(held, lane), sources=2)
        others, copies = (told.source_nats / told.source_targets).tolist()
        run.steps.append(step)
        run.copies.append(copies)
        run.others.append(others)

    trained(lane, look)
    return run


def _batches(held: PackedTokens, lane: Lane) -> Iterator["Batch"]:
    from sluice.model.training.batches.dataset import validation_batches
    from sluice.model.training.batches.objectives import Objective

    objective = Objective.of(lane.recipe.pretrain, held.vocab_size, held.eos_id, ())
    for batch in validation_batches(held, objective, lane.recipe.model.context, windows=_WINDOWS, rows=_ROWS):
        # Validation tells the loss by origin: here the origin is whether a target is a copy.
        yield replace(batch, origins=are_copies(batch.ids, batch.targets).long())


def are_copies(ids: Tensor, targets: Tensor) -> Tensor:
    """Whether the pair of a token and its target occurred earlier in its row; both and the result are [rows, seq]."""
    # Two pairs are equal where both halves are; only earlier places count.
    same = (ids[:, :, None] == ids[:, None, :]) & (targets[:, :, None] == targets[:, None, :])
    return same.tril(-1).any(-1)
