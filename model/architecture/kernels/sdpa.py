"""torch's scaled_dot_product_attention: FlashAttention and its like where the device has them (arXiv 2205.14135)."""

import torch
from torch import Tensor
from torch.nn import functional

from sluice.model.architecture.attention_mask import Visibility
from sluice.model.architecture.kernels import masks


def attend(
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    visibility: Visibility,
    *,
    scale: float,
    soft_cap: float | None = None,
    dropout: float = 0.0,
) -> Tensor:
    """[batch, queries, heads, size] over [batch, keys, kv_heads, size] -> as the queries."""
    assert soft_cap is None
    length, heads, kv_heads = queries.shape[1], queries.shape[2], keys.shape[2]
    causal = visibility.plain and visibility.causal
    mask = None if visibility.plain else _mask(visibility, queries)
    queries, keys, values = queries.transpose(1, 2), keys.transpose(1, 2), values.transpose(1, 2)
    stacked = heads != kv_heads and not causal and length < keys.shape[2]
    if stacked:
        # Decoding: heads that share keys and values become rows of one query, so nothing of a cache is repeated.
        group = heads // kv_heads
        queries = queries.reshape(queries.shape[0], kv_heads, group * length, queries.shape[3])
        mask = None if mask is None else _stack(mask, kv_heads, group)
    shared = heads != kv_heads and not stacked
    if shared and not shares_heads(queries.device.type, queries.dtype, masked=mask is not None):
        keys, values = (x.repeat_interleave(heads // kv_heads, dim=1) for x in (keys, values))
        shared = False
    mixed = functional.scaled_dot_product_attention(
        queries,
        keys,
        values,
        attn_mask=mask,
        dropout_p=dropout,
        is_causal=causal,
        scale=scale,
        enable_gqa=shared,
    )
    if stacked:
        mixed = mixed.reshape(mixed.shape[0], heads, length, mixed.shape[3])
    return masks.wiped(mixed.transpose(1, 2), visibility)


def shares_heads(device: str, dtype: torch.dtype, *, masked: bool) -> bool:
    """Whether heads may share keys and values without falling to torch's math path, which keeps every score: on a GPU
    only its FlashAttention does, which has neither masks nor float32.
    """
    return device == "cpu" or (not masked and dtype in (torch.float16, torch.bfloat16))


def _mask(visibility: Visibility, queries: Tensor) -> Tensor:
    # A GPU's kernels take a mask of the queries' type only.
    wide = torch.promote_types(queries.dtype, torch.float32)
    mask = masks.added(visibility, wide if queries.device.type == "cpu" else queries.dtype)
    return masks.allowed(visibility) if mask is None else mask


def _stack(mask: Tensor, kv_heads: int, group: int) -> Tensor:
    """[batch, 1 or heads, queries, keys] -> [batch, 1 or kv_heads, group * queries (or 1 for all), keys]."""
    if mask.shape[1] > 1:
        return mask.reshape(mask.shape[0], kv_heads, group * mask.shape[2], mask.shape[3])
    return mask if mask.shape[2] == 1 else mask.repeat(1, 1, group, 1)
