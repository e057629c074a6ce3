"""The effect of each choice of the default run, in equal time, and when a run learns to copy.

One process a core and a thread each, so that no run waits for another; the times that decide the numbers of steps are
taken in turns before, on an otherwise idle pool.
"""

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from benchmarks.training.recipes import DEFAULT, Packing, Recipe, in_equal_time, shortened
from benchmarks.training.results import Ablation, CopyingRun, Outcome
from sluice.core.cpus import available_cores
from sluice.data.config import PackConfig
from sluice.data.packing import PackedTokens
from sluice.model.architecture.config import ModelConfig

if TYPE_CHECKING:
    from sluice.model.training.engines.local import LocalEngine

_WARM, _TIMED, _TURNS = 2, 6, 5
"""Steps before a recipe's clock runs, steps that it runs for, and times that all recipes take turns."""

_HELD_OUT_TOKENS = 65_536

_EVERY = 50
"""Steps between two looks at what a run copies."""
_WINDOWS, _ROWS = 128, 16
"""Held-out rows looked at, and those of a forward pass."""


class Lane(NamedTuple):
    """One run, as it travels to the process that makes it."""

    recipe: Recipe
    packed: Path
    steps: int
    seed: int


def ablate(artifacts: Path, found: Sequence[Recipe], folder: Path, *, steps: int, seeds: int) -> Ablation:
    """`seeds` runs of the default, the first of `found`, in `steps` steps and of the others in as much time.
    `artifacts` holds `pack`, `refine` and `tokenizer` as `sluice run` left them. ValueError where they are missing.
    """
    pretrain, model = found[0].pretrain, found[0].model
    tokens = packings(artifacts, model, folder)
    with _pool() as pool:
        seconds = _step_seconds(pool, found, tokens)
        wanted = in_equal_time(steps, seconds)
        lanes = [Lane(each, tokens[each.packing], wanted[each.name], seed) for seed in range(seeds) for each in found]
        bits: dict[str, list[float]] = {each.name: [] for each in found}
        for lane, result in zip(lanes, pool.map(held_out_bits, lanes), strict=True):
            bits[lane.recipe.name].append(result)
    default, *changed = [
        Outcome(name=name, steps=wanted[name], step_seconds=seconds[name], bits=each) for name, each in bits.items()
    ]
    assert default.name == DEFAULT, default.name
    return Ablation(
        model=f"{model.layers} layers of {model.hidden_size}",
        step_tokens=pretrain.batch_size * model.context,
        seeds=seeds,
        minutes=steps * seconds[DEFAULT] / 60,
        default=default,
        changed=changed,
    )


def _pool() -> ProcessPoolExecutor:
    return ProcessPoolExecutor(
        available_cores(), mp_context=get_context("spawn"), initializer=torch.set_num_threads, initargs=(1,)
    )


def packings(artifacts: Path, model: ModelConfig, folder: Path) -> dict[Packing, Path]:
    """Folders of tokens: as the run packed them, and as rows of best fit, which are made here."""
    from sluice.data.packing.pack import pack

    for name in ("pack/index.json", "refine", "tokenizer/tokenizer.json"):
        if not (artifacts / name).exists():
            raise ValueError(f"{artifacts / name} is missing: name the artifacts of a whole `sluice run`")
    best_fit = folder / "best-fit"
    best_fit.mkdir(parents=True)
    config = PackConfig.model_validate({"layout": "best_fit", "row_tokens": model.context + 1})
    pack(config, artifacts / "refine", artifacts / "tokenizer", best_fit)
    return {"as it is": artifacts / "pack", "best_fit": best_fit}


def _step_seconds(
    pool: ProcessPoolExecutor, found: Sequence[Recipe], tokens: Mapping[Packing, Path]
) -> dict[str, float]:
    """Seconds a step of every recipe in its fastest turn: disturbances only add time."""
    seconds = {each.name: math.inf for each in found}
    for _ in range(_TURNS):
        for each in found:
            # One at a time: two would share the caches.
            taken = pool.submit(_timed, Lane(each, tokens[each.packing], _WARM + _TIMED, 0)).result()
            seconds[each.name] = min(seconds[each.name], taken)
    return seconds


def _timed(lane: Lane) -> float:
    """Seconds a step after the first ones."""
    ends: list[float] = []
    trained(lane, lambda step, engine: ends.append(time.perf_counter()))
    return (ends[-1] - ends[_WARM - 1]) / (len(ends) - _WARM)


def held_out_bits(lane: Lane) -> float:
    """Train, and the bits per byte of the held-out side."""
    from sluice.model.training.telemetry.sources import bits_per_byte

    side = json.loads((lane.packed / "index.json").read_text(encoding="utf-8"))["splits"]["valid"]
    nats = trained(lane, lambda step, engine: None, held_out=PackedTokens(lane.packed, "valid"))
    return bits_per_byte(nats, side["tokens"], side["bytes"])


def trained(
    lane: Lane, stepped: Callable[[int, "LocalEngine"], None], *, held_out: PackedTokens | None = None
) -> float:
    """Nats a token of `held_out` after the last step; 0 without. `stepped` hears of each step, counted from 1."""
    from sluice.model.training.batches.dataset import TrainingBatches
    from sluice.model.training.loop import LoopHooks, optimizer_step, set_learning_rate
    from sluice.model.training.optimization.averaging import WeightAverage
    from sluice.model.training.optimization.schedule import rate
    from sluice.model.training.trial import held_out_loss, local_engine

    config = shortened(lane.recipe.pretrain, lane.steps, lane.seed)
    batches = TrainingBatches(PackedTokens(lane.packed, "train"), config, lane.recipe.model.context)
    engine = local_engine(config, lane.recipe.model, batches.objective)
    average = None
    if config.average_decay is not None:
        average = WeightAverage(dict(engine.model.named_parameters()), config.average_decay)
    hooks = LoopHooks(
        config.steps, config.micro_batch_size, lambda step: rate(config, step), batches.read, average=average
    )
    engine.model.train()
    for step in range(config.steps):
        set_learning_rate(engine.optimizer, hooks.learning_rate_scale(step))
        optimizer_step(engine, hooks, step)
        stepped(step + 1, engine)
    if held_out is None:
        return 0.0
    with nullcontext() if average is None else average.swapped():
        rows = _HELD_OUT_TOKENS // lane.recipe.model.context
        asked = config.model_copy(update={"validation_batches": max(1, rows // config.batch_size)})
        return held_out_loss(engine, held_out, batches, asked)


def measure_copying(artifacts: Path, found: Sequence[Recipe], *, steps: int) -> list[CopyingRun]:
    """One run of each recipe, seed 0, a thread each, on the tokens of `artifacts`, which `sluice run` left."""
    with _pool() as pool:
        return list(pool.map(copying_run, [Lane(each, artifacts / "pack", steps, 0) for each in found]))


def copying_run(lane: Lane) -> CopyingRun:
    """Train, and look every so many steps at the held-out loss apart for copies and for all else.

    A copy is what an induction head can find: it looks for an earlier copy of the token at hand and expects what
    followed it (Olsson et al., arXiv 2209.11895).
    """
    from sluice.model.training.batches.dataset import validation_batches
    from sluice.model.training.batches.objectives import Objective
    from sluice.model.training.loop import validate

    held, context = PackedTokens(lane.packed, "valid"), lane.recipe.model.context
    run = CopyingRun(name=lane.recipe.name)
    objective = Objective.of(lane.recipe.pretrain, held.vocab_size, held.eos_id, ())

    def look(step: int, engine: "LocalEngine") -> None:
        if step % _EVERY:
            return
        batches = validation_batches(held, objective, context, windows=_WINDOWS, rows=_ROWS)
        # Validation tells the loss by origin: here the origin is whether a target is a copy.
        marked = (replace(batch, origins=are_copies(batch.ids, batch.targets).long()) for batch in batches)
        told = validate(engine, marked, sources=2)
        others, copies = (told.source_nats / told.source_targets).tolist()
        run.steps.append(step)
        run.copies.append(copies)
        run.others.append(others)

    trained(lane, look)
    return run


def are_copies(ids: Tensor, targets: Tensor) -> Tensor:
    """Return where the pair of token and target occurred earlier in its row; arguments and result are [rows, seq]."""
    # Two pairs are equal where both halves are; only earlier places count.
    same = (ids[:, :, None] == ids[:, None, :]) & (targets[:, :, None] == targets[:, None, :])
    return same.tril(-1).any(-1)
