"""Attention as the paper has it (Vaswani et al., arXiv 1706.03762): every kernel is held to this one."""

import torch
from torch import Tensor
from torch.nn import functional

from sluice.model.architecture.attention_mask import Visibility


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
    """[batch, queries, heads, size] over [batch, keys, kv_heads, size] -> as the queries.

    The softmax is float32 (float64 for float64); the products are of the inputs' type.
    """
    batch, length, heads, size = queries.shape
    kv_heads = keys.shape[2]
    queries = queries.reshape(batch, length, kv_heads, heads // kv_heads, size)
    scores = torch.einsum("bqhgd,bkhd->bhgqk", queries, keys).flatten(1, 2)  # [batch, heads, queries, keys]
    scores = scores.to(torch.promote_types(scores.dtype, torch.float32)) * scale
    if soft_cap is not None:
        scores = soft_cap * torch.tanh(scores / soft_cap)
    if visibility.additive is not None:
        scores = scores + visibility.additive
    hidden = ~visibility.allowed
    # Not -inf: a query that sees nothing has no NaN to pass on, and its equal shares are wiped like all unseen ones.
    scores = scores.masked_fill(hidden, torch.finfo(scores.dtype).min)
    probabilities = functional.dropout(scores.softmax(dim=-1).masked_fill(hidden, 0.0), dropout)
    probabilities = probabilities.to(values.dtype).unflatten(1, (kv_heads, -1))
    return torch.einsum("bhgqk,bkhd->bqhgd", probabilities, values).reshape(batch, length, heads, size)
