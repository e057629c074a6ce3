"""Tensors that kernels derive from an AttentionMask, computed once for all layers that share it."""

from collections.abc import Callable, Hashable
from typing import Any, TypeVar

import torch
from torch import Tensor

from sluice.model.architecture.attention_mask import AttentionMask

T = TypeVar("T")


def cached(mask: AttentionMask, key: Hashable, compute: Callable[[], T]) -> T:
    """Return `compute()`, stored with the mask under `key`. A compiler merges equal computations by itself."""
    if torch.compiler.is_compiling():
        return compute()
    stored: dict[Hashable, Any] = mask.__dict__.setdefault("_kernels", {})
    if key not in stored:
        stored[key] = compute()
    return stored[key]


def fully_masked(mask: AttentionMask) -> Tensor | None:
    """[batch or 1, queries] bool, True for queries without any key; None where there is known to be none."""

    def compute() -> Tensor | None:
        has_key = mask.allowed[:, 0].any(dim=-1)
        # On other devices reading the value would stall the queue, and in a compiled graph break it.
        if has_key.device.type == "cpu" and not torch.compiler.is_compiling() and bool(has_key.all()):
            return None
        return ~has_key

    return None if mask.plain else cached(mask, "fully masked", compute)


def allowed(mask: AttentionMask) -> Tensor:
    """[batch or 1, 1, queries, keys] bool. Fully masked queries are given the first key, so that no softmax runs over
    nothing; `zero_fully_masked` must clear their results.
    """

    def compute() -> Tensor:
        without = fully_masked(mask)
        if without is None:
            return mask.allowed
        first = torch.arange(mask.allowed.shape[-1], device=without.device) == 0
        return mask.allowed | (without[:, None, :, None] & first)

    return cached(mask, "allowed", compute)


def additive(mask: AttentionMask, dtype: torch.dtype) -> Tensor | None:
    """[batch or 1, heads, queries, keys]: added to the scores, -inf where masked; None where a bool mask suffices."""
    bias = mask.additive
    if bias is None:
        return None

    def compute() -> Tensor:
        return bias.to(dtype).masked_fill(~allowed(mask), -torch.inf)

    # Part of the autograd graph, so not shared: checkpointing runs a layer again and must repeat the same operations.
    return compute() if bias.requires_grad else cached(mask, f"additive {dtype}", compute)


def zero_fully_masked(mixed: Tensor, mask: AttentionMask) -> Tensor:
    """[batch, queries, heads, size] with zeros for fully masked queries."""
    without = fully_masked(mask)
    return mixed if without is None else mixed.masked_fill(without[:, :, None, None], 0.0)
