"""What one worker of a pretraining run does, from nothing to its share of the result. Ray Train, torchrun and a plain
call all come here.
"""

import json
import os
import tempfile
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from pydantic import BaseModel

from data.packing import PackedTokens
from data.progress import Progress, no_progress
from model.architecture.config import ModelConfig, TransformerConfig
from model.architecture.initialization import initialize
from model.architecture.transformer import Transformer
from model.checkpoint import save_model
from model.config import PretrainConfig
from model.training import checkpoints
from model.training.dataset import TrainingBatches
from model.training.engine import ZeroEngine
from model.training.loop import Batch, Clock, Loop, train, validation_loss
from model.training.schedule import learning_rate_scale

_GROUP_TIMEOUT = timedelta(minutes=10)
_CHECKPOINTS_KEPT = 2


class Job(BaseModel):
    """A pretraining run, as it travels to its workers."""

    config: PretrainConfig
    model: ModelConfig
    packed: Path
    tokenizer: Path
    out: Path
    state: Path
    """Folder of this run's checkpoints: no other run may go on from them."""
    lineage: dict[str, Any]
    started: float
    """When the run was asked for, in seconds since the epoch."""

    @property
    def result(self) -> Path:
        return self.state / "result.json"


def run_worker(job: Job, progress: Progress = no_progress) -> None:
    """Train as one of the processes of the current group; rank 0 writes the model, training.jsonl and `job.result`."""
    rank, world, device = dist.get_rank(), dist.get_world_size(), _device()
    assert world == job.config.workers, f"{world} processes for pretrain.workers {job.config.workers}"
    # One worker's threads are part of its arithmetic: set, so that they do not follow from who started it.
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // world))
    progress = progress if rank == 0 else no_progress
    progress(0, job.config.steps, "starting workers")
    train_tokens, valid_tokens = PackedTokens(job.packed, "train"), PackedTokens(job.packed, "valid")
    model = Transformer(TransformerConfig.from_settings(job.model, train_tokens.vocab_size))
    initialize(model, job.config.seed)
    model.to(device, torch.bfloat16 if job.config.dtype == "bf16" else torch.float32)
    with tempfile.TemporaryDirectory(prefix="sluice-extensions-") as extensions:
        engine = ZeroEngine(model, job.config, world, Path(extensions))
    done, log = _resume(job, engine, rank, device)
    clock = Clock()
    ready = time.time()
    log = train(
        engine,
        _loop(job, engine, train_tokens, valid_tokens, rank),
        done=done,
        log=log,
        progress=progress,
        clock=clock,
    )
    if rank == 0:
        timings = {
            "launch_seconds": ready - job.started,
            "train_seconds": clock.train,
            "validate_seconds": clock.validate,
            "checkpoint_seconds": clock.save,
            "tokens_per_second": clock.tokens / clock.train if clock.train else 0.0,
            "resumed_step": float(done),
        }
        _finish(job, model, log, timings)
    dist.barrier()


def _loop(job: Job, engine: ZeroEngine, train_tokens: PackedTokens, valid_tokens: PackedTokens, rank: int) -> Loop:
    config, model, world = job.config, engine.model, engine.world
    assert isinstance(model, Transformer)
    batches = TrainingBatches(
        train_tokens.tokens, job.model.context, config.seed, batch_size=config.batch_size, rank=rank, world=world
    )

    def save(step: int, log: list[dict[str, Any]]) -> None:
        checkpoints.write_rank(job.state, step, rank, engine.state())
        dist.barrier()
        if rank == 0:
            weights = {name: parameter.detach() for name, parameter in model.named_parameters()}
            checkpoints.seal(job.state, step, weights, log, keep=_CHECKPOINTS_KEPT)
        dist.barrier()

    return Loop(
        steps=config.steps,
        micro_batch_size=config.micro_batch_size,
        learning_rate_scale=lambda step: learning_rate_scale(
            step,
            config.steps,
            warmup_steps=config.warmup_steps,
            decay_fraction=config.decay_fraction,
            last=config.min_learning_rate_ratio,
        ),
        batch=lambda step: Batch(*batches.read(step)),
        validate=lambda: validation_loss(
            model,
            valid_tokens.tokens,
            windows=config.validation_batches * config.batch_size,
            micro_batch_size=config.micro_batch_size,
            rank=rank,
            world=world,
        ),
        validate_every=config.validate_every,
        save=save,
        save_every=config.checkpoint_every,
    )


def _resume(job: Job, engine: ZeroEngine, rank: int, device: torch.device) -> tuple[int, list[dict[str, Any]]]:
    """Load the newest intact checkpoint. Returns the steps done and their log."""
    found = torch.full((), -1, dtype=torch.int64, device=device)
    if rank == 0:
        job.state.mkdir(parents=True, exist_ok=True)
        step = checkpoints.newest_intact(job.state)
        found.fill_(-1 if step is None else step)
    # One answer for all: two ranks that read the folder at different times must not disagree.
    dist.broadcast(found, src=0)
    if found < 0:
        return 0, []
    checkpoint = checkpoints.read(job.state, int(found), rank)
    engine.load(checkpoint.weights, checkpoint.optimizer)
    return checkpoint.step, checkpoint.log


def _finish(job: Job, model: Transformer, log: list[dict[str, Any]], timings: dict[str, float]) -> None:
    # bf16 training keeps its rounded weights: they are what was validated.
    save_model(job.out, model.float(), job.tokenizer, job.lineage)
    (job.out / "training.jsonl").write_text("".join(json.dumps(row) + "\n" for row in log), encoding="utf-8")
    parameters = sum(each.numel() for each in model.parameters())
    result = {
        "parameters": parameters,
        "parameters_without_embedding": parameters - model.embedding.weight.numel(),
        "final_loss": [row["loss"] for row in log if "loss" in row][-1],
        "validation_loss": [row["validation_loss"] for row in log if "validation_loss" in row][-1],
        "timings": timings,
    }
    job.result.write_text(json.dumps(result), encoding="utf-8")


def _device() -> torch.device:
    if not torch.cuda.is_available():
        return torch.device("cpu")
    device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
    torch.cuda.set_device(device)
    return device


def join_group() -> None:
    """Join the process group that torchrun's environment describes, or else one of this process alone.

    It stays for the life of the process: DeepSpeed remembers the first group it met.
    """
    if dist.is_initialized():
        return
    backend = "nccl" if torch.cuda.is_available() else "gloo"
    if dist.is_torchelastic_launched():
        dist.init_process_group(backend, timeout=_GROUP_TIMEOUT)
        return
    os.environ["LOCAL_RANK"] = "0"  # DeepSpeed refuses to start without it
    dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1, timeout=_GROUP_TIMEOUT)
