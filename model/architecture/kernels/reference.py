"""Attention as defined by the paper (Vaswani et al., arXiv 1706.03762): every kernel is compared with this one."""

import torch
from torch import Tensor
from torch.nn import functional

from sluice.model.architecture.attention_mask import AttentionCall


def attend(call: AttentionCall) -> Tensor:
    """Softmax in float32 (float64 for float64); products in the dtype of the inputs."""
    batch, length, heads, size = call.queries.shape
    kv_heads = call.keys.shape[2]
    queries = call.queries.reshape(batch, length, kv_heads, heads // kv_heads, size)
    scores = torch.einsum("bqhgd,bkhd->bhgqk", queries, call.keys).flatten(1, 2)  # [batch, heads, queries, keys]
    scores = scores.to(torch.promote_types(scores.dtype, torch.float32)) * call.scale
    if call.soft_cap is not None:
        scores = call.soft_cap * torch.tanh(scores / call.soft_cap)
    if call.mask.additive is not None:
        scores = scores + call.mask.additive
    hidden = ~call.mask.allowed
    # Not -inf: a fully masked query must not produce NaN; its equal shares are zeroed below like all masked ones.
    scores = scores.masked_fill(hidden, torch.finfo(scores.dtype).min)
    probabilities = functional.dropout(scores.softmax(dim=-1).masked_fill(hidden, 0.0), call.dropout)
    probabilities = probabilities.to(call.values.dtype).unflatten(1, (kv_heads, -1))
    return torch.einsum("bhgqk,bkhd->bqhgd", probabilities, call.values).reshape(batch, length, heads, size)
