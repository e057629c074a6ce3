"""Activation checkpointing and compilation of layers, applied to a model from outside."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint, create_selective_checkpoint_contexts

from sluice.model.architecture.transformer import Transformer
from sluice.model.config import PretrainConfig

_KEPT = [
    torch.ops.aten.mm.default,
    torch.ops.aten.addmm.default,
    torch.ops.aten.bmm.default,
    torch.ops.aten._scaled_dot_product_flash_attention.default,
    torch.ops.aten._scaled_dot_product_efficient_attention.default,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default,
]
"""Products: expensive to recompute, while most of the memory is between them (norms, activations, rotations)."""


def prepare_layers(model: Transformer, config: PretrainConfig) -> None:
    """Apply `activation_checkpointing` and `compile` to every layer, in place; no name of a parameter changes."""
    for layer in each_layer(model):
        if config.activation_checkpointing != "none":
            # The method is replaced on the one object: a module around it would rename its parameters.
            layer.forward = _checkpointed(layer.forward, config.activation_checkpointing)
        if config.compile:
            layer.compile()


def each_layer(model: Transformer) -> Iterator[nn.Module]:
    """Layers of the encoder, where there is one, then of the decoder or only stack."""
    if model.encoder is not None:
        yield from model.encoder.layers
    yield from model.layers


def _checkpointed(forward: Callable[..., Any], how: str) -> Callable[..., Any]:
    """`forward` that computes its activations again in the backward pass: all (arXiv 1604.06174), or all but products
    (arXiv 2205.05198).
    """
    # Not reentrant: reentrant checkpointing requires inputs with gradients, which ids do not have.
    settings: dict[str, Any] = {"use_reentrant": False}
    if how == "selective":
        settings["context_fn"] = partial(create_selective_checkpoint_contexts, _KEPT)

    def run(*inputs: Any) -> Any:
        return checkpoint(forward, *inputs, **settings) if torch.is_grad_enabled() else forward(*inputs)

    return run
