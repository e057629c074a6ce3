"""Attention for training on a CPU, in blocks of queries that skip masked keys.

With small heads, torch's CPU kernel works in tiles too small for its matrix library. Here the query heads that share a
key-value head are rows of one product, and the backward pass reuses the probabilities instead of recomputing them.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from sluice.model.architecture.attention_mask import AttentionCall, AttentionMask

BLOCK = 32
"""Queries per block in float32; twice as many in 16 bits, where products are so fast that launching them dominates."""


@dataclass(frozen=True)
class _Block:
    """Queries start..end attend to keys low..high."""

    start: int
    end: int
    low: int
    high: int
    added: Tensor | None
    """[batch or 1, 1 or heads, queries, last keys]: added to the scores of the last keys; None: nothing is added."""


def attend(call: AttentionCall) -> Tensor:
    """Scores, softmax and values of one block of queries after another."""
    assert call.soft_cap is None and call.dropout == 0.0
    lengths, dtype = (call.queries.shape[1], call.keys.shape[1]), call.queries.dtype
    blocks = call.mask.cached(f"blocks {lengths} {dtype}", lambda: _blocks(call.mask, *lengths, dtype))
    mixed = _BlockedAttention.apply(call.queries * call.scale, call.keys, call.values, blocks)
    return call.mask.zero_fully_masked(mixed)


def _blocks(mask: AttentionMask, queries: int, keys: int, dtype: torch.dtype) -> list[_Block]:
    size = BLOCK if dtype.itemsize > 2 else 2 * BLOCK
    bounds = [(start, min(start + size, queries)) for start in range(0, queries, size)]
    if mask.plain and not mask.causal:
        return [_Block(start, end, 0, keys, None) for start, end in bounds]
    if mask.plain:
        future = torch.full((1, 1, size, size), -torch.inf, dtype=dtype).triu(1)
        return [_Block(start, end, 0, end, future[..., : end - start, : end - start]) for start, end in bounds]
    allowed, additive = mask.allowed_or_first(), mask.additive_as(dtype)
    blocks = []
    for start, end in bounds:
        columns = allowed[:, :, start:end].any(dim=2).any(dim=0)[0].nonzero()
        low, high = int(columns[0]), int(columns[-1]) + 1
        seen = allowed[:, :, start:end, low:high]
        part: Tensor | None
        if additive is not None:
            part = additive[:, :, start:end, low:high]
        elif bool(seen.all()):
            part = None
        else:
            part = torch.zeros(seen.shape, dtype=dtype).masked_fill(~seen, -torch.inf)
        blocks.append(_Block(start, end, low, high, part))
    return blocks


class _BlockedAttention(torch.autograd.Function):
    """With g = heads / kv_heads, row t*g + j of a key-value head is its j-th query head at token t."""

    @staticmethod
    def forward(ctx: Any, queries: Tensor, keys: Tensor, values: Tensor, blocks: list[_Block]) -> Tensor:
        heads, kv_heads = queries.shape[2], keys.shape[2]
        group = heads // kv_heads
        queries, keys, values = (_stack(x, kv_heads) for x in (queries, keys, values))
        mixed, probabilities = torch.empty_like(queries), []
        for block in blocks:
            rows, seen = slice(block.start * group, block.end * group), slice(block.low, block.high)
            scores = queries[:, rows] @ keys[:, seen].mT
            if block.added is not None:
                # The scores are [batch * kv_heads, queries * group, keys].
                by_token = scores.view(-1, kv_heads, block.end - block.start, group, scores.shape[2])
                shared = (1, 1) if block.added.shape[1] == 1 else (kv_heads, group)
                by_token[..., -block.added.shape[3] :] += block.added.unflatten(1, shared).transpose(2, 3)
            probabilities.append(scores.softmax(dim=-1))
            mixed[:, rows] = probabilities[-1] @ values[:, seen]
        ctx.save_for_backward(queries, keys, values, *probabilities)
        ctx.heads, ctx.kv_heads, ctx.blocks = heads, kv_heads, blocks
        return _unstack(mixed, heads, kv_heads)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        queries, keys, values, *probabilities = ctx.saved_tensors
        heads, kv_heads = ctx.heads, ctx.kv_heads
        group = heads // kv_heads
        upstream = _stack(upstream, kv_heads)
        query_gradient = torch.empty_like(queries)
        # Summed over blocks, so never in a narrow dtype.
        wide = torch.promote_types(keys.dtype, torch.float32)
        key_gradient, value_gradient = torch.zeros_like(keys, dtype=wide), torch.zeros_like(values, dtype=wide)
        for block, probability in zip(ctx.blocks, probabilities, strict=True):
            rows, seen = slice(block.start * group, block.end * group), slice(block.low, block.high)
            value_gradient[:, seen] += probability.mT @ upstream[:, rows]
            pull = upstream[:, rows] @ values[:, seen].mT
            # Gradient of the softmax: dS = P * (dP - sum(P * dP)).
            scores_gradient = torch._softmax_backward_data(pull, probability, -1, pull.dtype)
            query_gradient[:, rows] = scores_gradient @ keys[:, seen]
            key_gradient[:, seen] += scores_gradient.mT @ queries[:, rows]
        return (
            _unstack(query_gradient, heads, kv_heads),
            _unstack(key_gradient.to(keys.dtype), kv_heads, kv_heads),
            _unstack(value_gradient.to(values.dtype), kv_heads, kv_heads),
            None,
        )


def _stack(x: Tensor, kv_heads: int) -> Tensor:
    """[batch, seq, heads, size] -> [batch * kv_heads, seq * heads/kv_heads, size]."""
    batch, seq, heads, size = x.shape
    rows = x.reshape(batch, seq, kv_heads, heads // kv_heads, size).transpose(1, 2)
    return rows.reshape(batch * kv_heads, seq * heads // kv_heads, size)


def _unstack(x: Tensor, heads: int, kv_heads: int) -> Tensor:
    """Inverse of `_stack`, as a view."""
    group, size = heads // kv_heads, x.shape[-1]
    rows = x.view(-1, kv_heads, x.shape[1] // group, group, size).transpose(1, 2)
    return rows.reshape(rows.shape[0], rows.shape[1], heads, size)
