"""Check that a run may start from a checkpoint of another run, which no fingerprint ties to it."""

import torch

from sluice.model.architecture.config import TransformerConfig
from sluice.model.architecture.transformer import Transformer
from sluice.model.parallelism.optimizers import OPTIMIZERS
from sluice.model.training.checkpointing.checkpoints import TrainingCheckpoint


def check_same(checkpoint: TrainingCheckpoint, shape: TransformerConfig, optimizer: str) -> None:
    """Raise ValueError where the checkpoint is of another model than `shape`, or of another optimizer."""
    with torch.device("meta"):
        wanted = {name: tuple(each.shape) for name, each in Transformer(shape).named_parameters()}
    held = checkpoint.shards.shapes
    for name in sorted({*wanted, *held}):
        if wanted.get(name) != held.get(name):
            raise ValueError(
                f"{checkpoint.path} is of another model: {name} is {_said(held.get(name))} there and "
                f"{_said(wanted.get(name))} here; give this run the same model settings and tokenizer"
            )
    keys = set().union(*(checkpoint.shards.keys(name) for name in held))
    moments = keys & frozenset().union(*(traits.moments for traits in OPTIMIZERS.values()))
    trained_by = [name for name, traits in OPTIMIZERS.items() if traits.moments == moments]
    if optimizer not in trained_by:
        found = trained_by[0] if trained_by else "another optimizer"
        raise ValueError(
            f"{checkpoint.path} was trained by {found}, and this run by {optimizer}: set pretrain.optimizer to {found}"
        )


def _said(shape: tuple[int, ...] | None) -> str:
    return "not" if shape is None else str(list(shape))
