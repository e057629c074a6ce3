"""Run by torchrun, from test_engine_truth.py: trains every variant on the same batches and saves what came out."""

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from safetensors.torch import save_file

from data.progress import no_progress
from model.architecture.config import TransformerConfig
from model.architecture.initialization import initialize
from model.architecture.transformer import Transformer
from model.config import PretrainConfig
from model.training.engine import ZeroEngine
from model.training.loop import Batch, Clock, Loop, train
from model.training.worker import join_group

CONFIG = TransformerConfig(
    vocab_size=61, hidden_size=16, layers=2, heads=2, kv_heads=1, intermediate_size=24, context=12
)
STEPS, BATCH = 6, 8
VARIANTS: dict[str, dict[str, Any]] = {
    f"{optimizer}-zero{stage}-accumulate{accumulate}": {
        "optimizer": optimizer,
        "zero_stage": stage,
        "micro_batch_size": BATCH // 2 // accumulate,
        "gradient_clip": None if optimizer == "muon" else 0.5,
        "weight_decay": 0.1,
    }
    for optimizer in ("adamw", "muon")
    for stage in (0, 1)
    for accumulate in (1, 2)
}


def global_batch(step: int) -> Batch:
    """[8, 12]; some targets do not count, and unequally many a row, so a mean of means would be wrong."""
    generator = torch.Generator().manual_seed(step)
    ids = torch.randint(CONFIG.vocab_size, (BATCH, CONFIG.context + 1), generator=generator)
    mask = torch.rand(BATCH, CONFIG.context, generator=generator) < torch.linspace(0.1, 0.9, BATCH)[:, None]
    mask[:, 0] = True
    return Batch(ids[:, :-1], ids[:, 1:], mask)


def scale(step: int) -> float:
    return (step + 1) / 3 if step < 3 else 1.0


def fresh_model() -> Transformer:
    model = Transformer(CONFIG)
    initialize(model, 3)
    return model


def main(out: Path) -> None:
    join_group()
    rank, world = dist.get_rank(), dist.get_world_size()
    losses = {}
    for name, settings in VARIANTS.items():
        config = PretrainConfig(workers=world, batch_size=BATCH, steps=STEPS, **settings)
        with tempfile.TemporaryDirectory() as extensions:
            engine = ZeroEngine(fresh_model(), config, world, Path(extensions))
        rows = BATCH // world
        loop = Loop(
            steps=STEPS,
            micro_batch_size=config.micro_batch_size,
            learning_rate_scale=scale,
            batch=lambda step: Batch(*(part[rank * rows :][:rows] for part in vars(global_batch(step)).values())),  # noqa: B023
        )
        log = train(engine, loop, done=0, log=[], progress=no_progress, clock=Clock())
        losses[name] = [row["loss"] for row in log]
        if rank == 0:
            weights = {key: value.detach().clone() for key, value in engine.model.named_parameters()}
            save_file(weights, out / f"{name}.safetensors")
    if rank == 0:
        (out / "losses.json").write_text(json.dumps(losses))
    dist.barrier()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
