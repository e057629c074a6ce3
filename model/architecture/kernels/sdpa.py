"""torch's scaled_dot_product_attention: FlashAttention (arXiv 2205.14135) and similar where the device has them."""

import torch
from torch import Tensor
from torch.nn import functional

from sluice.model.architecture.attention_mask import AttentionCall


def attend(call: AttentionCall) -> Tensor:
    """Heads come before tokens here: [batch, heads, seq, head_size]."""
    assert call.soft_cap is None
    length, heads, kv_heads = call.queries.shape[1], call.queries.shape[2], call.keys.shape[2]
    causal = call.mask.plain and call.mask.causal
    mask = None
    if not call.mask.plain:
        # A GPU's kernels take a mask of the queries' dtype only.
        dtype, on_cpu = call.queries.dtype, call.queries.device.type == "cpu"
        additive = call.mask.additive_as(torch.promote_types(dtype, torch.float32) if on_cpu else dtype)
        mask = call.mask.allowed_or_first() if additive is None else additive
    queries, keys, values = (x.transpose(1, 2) for x in (call.queries, call.keys, call.values))
    stacked = heads != kv_heads and not causal and length < keys.shape[2]
    if stacked:
        # Decoding: heads that share keys and values become rows of one query, so that no part of a cache is repeated.
        group = heads // kv_heads
        queries = queries.reshape(queries.shape[0], kv_heads, group * length, queries.shape[3])
        # [batch, 1 or heads, queries, keys] -> [batch, 1 or kv_heads, group * queries (or 1 for all), keys].
        if mask is not None and mask.shape[1] > 1:
            mask = mask.reshape(mask.shape[0], kv_heads, group * mask.shape[2], mask.shape[3])
        elif mask is not None and mask.shape[2] > 1:
            mask = mask.repeat(1, 1, group, 1)
    shared = heads != kv_heads and not stacked
    if shared and not shares_heads(queries.device.type, queries.dtype, masked=mask is not None):
        keys, values = (x.repeat_interleave(heads // kv_heads, dim=1) for x in (keys, values))
        shared = False
    mixed = functional.scaled_dot_product_attention(
        queries,
        keys,
        values,
        attn_mask=mask,
        dropout_p=call.dropout,
        is_causal=causal,
        scale=call.scale,
        enable_gqa=shared,
    )
    if stacked:
        mixed = mixed.reshape(mixed.shape[0], heads, length, mixed.shape[3])
    return call.mask.zero_fully_masked(mixed.transpose(1, 2))


def shares_heads(device: str, dtype: torch.dtype, *, masked: bool) -> bool:
    """Return whether heads may share keys and values without falling back to torch's math path, which keeps every
    score: on a GPU only its FlashAttention does, which supports neither masks nor float32.
    """
    return device == "cpu" or (not masked and dtype in (torch.float16, torch.bfloat16))
