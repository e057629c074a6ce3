"""A training run in this process, for its losses only: no workers, no checkpoints, no model directory."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from typing import Any

import torch

from sluice.core.progress import Progress, no_progress
from sluice.data.packing import PackedTokens
from sluice.model.architecture.config import ModelConfig, TransformerConfig
from sluice.model.architecture.initialization import initialize
from sluice.model.architecture.transformer import Transformer
from sluice.model.config import PretrainConfig
from sluice.model.training.batches.dataset import TrainingBatches, special_tokens, validation_batches
from sluice.model.training.batches.objectives import Objective
from sluice.model.training.batches.text import Packed
from sluice.model.training.checkpointing.randomness import seed_random
from sluice.model.training.engines.layers import prepare_layers
from sluice.model.training.engines.local import LocalEngine
from sluice.model.training.loop import LoopClock, LoopHooks, train, validate
from sluice.model.training.optimization.optimizer import build_optimizer
from sluice.model.training.optimization.schedule import rate

SINGLE_PROCESS = {
    "workers": 1,
    "zero_stage": 0,
    "offload": "none",
    "pipeline_stages": 1,
    "tensor_parallel": 1,
    "dtype": "fp32",
}
"""Settings of a run in one process of plain PyTorch."""


@dataclass(frozen=True)
class Trial:
    """Result of a run."""

    validation_loss: float
    """Nats a token after the last step."""
    parameters: int
    """Without the embedding."""
    tokens: int
    seconds: float
    """Seconds of its steps."""
    log: list[dict[str, Any]]


def single_process(config: PretrainConfig) -> PretrainConfig:
    """The same run for one process. Raises ValueError for settings that plain PyTorch does not support here."""
    if config.dtype != "fp32" or config.average_decay is not None or config.skip_sigma is not None:
        raise ValueError(
            "trials are plain fp32 runs: leave pretrain.dtype at fp32, and average_decay and skip_sigma unset"
        )
    if config.decay_from is not None:
        raise ValueError(f"trials start from scratch: leave pretrain.decay_from unset, not {config.decay_from}")
    return PretrainConfig.model_validate(config.model_dump() | SINGLE_PROCESS)


def trial_batches(config: PretrainConfig, model: ModelConfig, packed: Packed) -> TrainingBatches:
    """Training batches of one process."""
    special = special_tokens(packed.tokenizer)
    return TrainingBatches(PackedTokens(packed.tokens, "train"), config, model.context, special=special)


def local_engine(config: PretrainConfig, model: ModelConfig, objective: Objective) -> LocalEngine:
    """A fresh model for the vocabulary of `objective`, and its optimizer, on this process's device."""
    made = Transformer(TransformerConfig.from_settings(model, objective.model_vocabulary))
    initialize(made, config.seed)
    made.to("cuda" if torch.cuda.is_available() else "cpu")
    prepare_layers(made, config)
    return LocalEngine(made, build_optimizer(made, config), config.gradient_clip, config.z_loss)


def run_trial(
    config: PretrainConfig,
    model: ModelConfig,
    packed: Packed,
    *,
    progress: Progress = no_progress,
    report: Callable[[int, float], None] = lambda step, loss: None,
) -> Trial:
    """Train from the seed to the last step; `report` is called at each validation with (step, nats a token)."""
    config = single_process(config)
    batches, held = trial_batches(config, model, packed), PackedTokens(packed.tokens, "valid")
    engine = local_engine(config, model, batches.objective)
    seed_random(config.seed, 0)
    validations = count(1)

    def validated() -> dict[str, float]:
        loss = held_out_loss(engine, held, batches, config)
        # The loop validates at every multiple, and at the end.
        report(min(config.steps, next(validations) * config.validate_every), loss)
        return {"validation_loss": loss}

    hooks = LoopHooks(
        steps=config.steps,
        micro_batch_size=config.micro_batch_size,
        learning_rate_scale=lambda step: rate(config, step),
        batch=batches.read,
        validate=validated,
        validate_every=config.validate_every,
    )
    clock = LoopClock()
    log = train(engine, hooks, done=0, log=[], progress=progress, clock=clock)
    model_made = engine.model
    assert isinstance(model_made, Transformer)
    weights = sum(each.numel() for each in model_made.parameters()) - model_made.embedding.weight.numel()
    losses = [row["validation_loss"] for row in log if "validation_loss" in row]
    return Trial(losses[-1], weights, clock.tokens, clock.train, log)


def held_out_loss(engine: LocalEngine, held: PackedTokens, batches: TrainingBatches, config: PretrainConfig) -> float:
    """Nats a token on the validation side, at most `validation_batches` batches of it. TrainingFailed if not finite."""
    windows = config.validation_batches * config.batch_size
    rows = config.micro_batch_size
    return validate(
        engine, validation_batches(held, batches.objective, batches.context, windows=windows, rows=rows)
    ).loss
