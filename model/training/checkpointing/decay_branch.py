"""Whether a run may begin from a checkpoint of another one, which its fingerprint does not vouch for."""

import torch

from sluice.model.architecture.config import TransformerConfig
from sluice.model.architecture.transformer import Transformer
from sluice.model.training.checkpointing.checkpoints import Checkpoint
from sluice.model.training.checkpointing.shards import PieceFiles

_SIGNS = {"momentum_buffer": "muon", "momentum": "lion"}
"""A moment that an optimizer alone has; one without either is AdamW."""


def check_same(checkpoint: Checkpoint, shape: TransformerConfig, optimizer: str) -> None:
    """ValueError where the checkpoint is of another model than `shape` or was trained by another optimizer."""
    with torch.device("meta"):
        wanted = {name: tuple(each.shape) for name, each in Transformer(shape).named_parameters()}
    held = checkpoint.pieces.shapes
    for name in sorted({*wanted, *held}):
        if wanted.get(name) != held.get(name):
            raise ValueError(
                f"{checkpoint.path} is of another model: {name} is {_said(held.get(name))} there and "
                f"{_said(wanted.get(name))} here; give this run the same model settings and tokenizer"
            )
    if (trained_by := _optimizer_of(checkpoint.pieces)) != optimizer:
        raise ValueError(
            f"{checkpoint.path} was trained by {trained_by}, and this run by {optimizer}: set pretrain.optimizer to "
            f"{trained_by}"
        )


def _optimizer_of(pieces: PieceFiles) -> str:
    keys = set().union(*(pieces.keys(name) for name in pieces.shapes))
    return next((optimizer for sign, optimizer in _SIGNS.items() if sign in keys), "adamw")


def _said(shape: tuple[int, ...] | None) -> str:
    return "not" if shape is None else str(list(shape))
