"""The arguments of one attention, as every kernel takes them, and the check of their shapes."""

from dataclasses import dataclass

import torch
from torch import Tensor

from sluice.model.architecture.attention_mask import AttentionMask
from sluice.model.architecture.kernels import mask_tensors


@dataclass(frozen=True)
class AttentionCall:
    """softmax(capped(queries keys^T x scale) + mask) values; a query without any key to attend to gives zeros."""

    queries: Tensor
    """[batch, queries, heads, head_size]; so is a kernel's result."""
    keys: Tensor
    """[batch, keys, kv_heads, head_size]: heads / kv_heads neighbouring query heads share a key-value head."""
    values: Tensor
    """[batch, keys, kv_heads, head_size]."""
    mask: AttentionMask
    scale: float
    soft_cap: float | None = None
    """Scaled scores s become cap * tanh(s / cap), before the mask adds to them."""
    dropout: float = 0.0
    """Dropout of the probabilities."""


def check_shapes(call: AttentionCall) -> None:
    """Raise ValueError naming the shapes of queries, keys, values and mask that do not fit together."""
    queries, keys, values, mask = call.queries, call.keys, call.values, call.mask
    if queries.ndim != 4 or keys.ndim != 4 or keys.shape != values.shape:
        raise ValueError(
            f"queries {_shape(queries)} must be [batch, queries, heads, size], keys {_shape(keys)} and values "
            f"{_shape(values)} alike [batch, keys, kv_heads, size]"
        )
    batch, length, heads, size = queries.shape
    if keys.shape[0] != batch or keys.shape[3] != size or heads % keys.shape[2]:
        raise ValueError(
            f"keys {_shape(keys)} must have the batch and head size of queries {_shape(queries)}, and a number of "
            "heads that divides theirs"
        )
    sizes = batch, length, keys.shape[1], heads
    if mask.plain:
        restrictions = mask.window, mask.query_documents, mask.key_mask, mask.bias, mask.slopes
        assert all(part is None for part in restrictions), "not plain"
        if mask.causal and length != keys.shape[1]:
            raise ValueError(f"plain causal attention needs as many queries as keys, not {length} and {keys.shape[1]}")
        return
    mask_tensors.cached(mask, f"checked {sizes}", lambda: _check_mask(mask, *sizes))


def _check_mask(mask: AttentionMask, batch: int, queries: int, keys: int, heads: int) -> None:
    if (mask.query_documents is None) != (mask.key_documents is None):
        raise ValueError("documents must be given for queries and keys alike, or for neither")
    rows = sorted({1, batch})
    expected: dict[str, tuple[Tensor | None, list[tuple[int, ...]]]] = {
        "query_positions": (mask.query_positions, [(row, queries) for row in rows]),
        "key_positions": (mask.key_positions, [(row, keys) for row in rows]),
        "query_documents": (mask.query_documents, [(row, queries) for row in rows]),
        "key_documents": (mask.key_documents, [(row, keys) for row in rows]),
        "key_mask": (mask.key_mask, [(row, keys) for row in rows]),
        "bias": (mask.bias, [(row, heads, queries, keys) for row in rows]),
        "slopes": (mask.slopes, [(heads,)]),
    }
    for name, (tensor, shapes) in expected.items():
        if tensor is not None and tuple(tensor.shape) not in shapes:
            allowed = " or ".join(map(str, map(list, reversed(shapes))))
            raise ValueError(f"{name} has shape {_shape(tensor)}, and must have {allowed}")
    if mask.key_mask is not None and mask.key_mask.dtype != torch.bool:
        raise ValueError(f"key_mask must be bool (True: a real key), not {mask.key_mask.dtype}")


def _shape(x: Tensor) -> list[int]:
    return list(x.shape)
