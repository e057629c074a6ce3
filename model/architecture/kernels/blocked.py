"""Attention for training on a CPU, in blocks of queries that skip the keys out of their sight.

torch's CPU kernel works in tiles too small for its matrix library when heads are small. Here the query heads that share
a key-value head are rows of one product, and probabilities are kept for the backward pass rather than computed again.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from sluice.model.architecture.attention_mask import Visibility
from sluice.model.architecture.kernels import masks

BLOCK = 32
"""Tokens a block of queries in float32; twice as many in 16 bits, where products are so fast that starting them
weighs more.
"""


@dataclass(frozen=True)
class _Block:
    """Queries start..end look at keys low..high."""

    start: int
    end: int
    low: int
    high: int
    added: Tensor | None
    """[batch or 1, 1 or heads, queries, the last of the keys]: added to their scores; None where nothing is."""


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
    assert soft_cap is None and dropout == 0.0
    lengths = queries.shape[1], keys.shape[1]
    name = f"blocks {lengths} {queries.dtype}"
    blocks = masks.remembered(visibility, name, lambda: _blocks(visibility, *lengths, queries.dtype))
    return masks.wiped(_BlockedAttention.apply(queries * scale, keys, values, blocks), visibility)


def _blocks(visibility: Visibility, queries: int, keys: int, dtype: torch.dtype) -> list[_Block]:
    size = BLOCK if dtype.itemsize > 2 else 2 * BLOCK
    bounds = [(start, min(start + size, queries)) for start in range(0, queries, size)]
    if visibility.plain and not visibility.causal:
        return [_Block(start, end, 0, keys, None) for start, end in bounds]
    if visibility.plain:
        future = torch.full((1, 1, size, size), -torch.inf, dtype=dtype).triu(1)
        return [_Block(start, end, 0, end, future[..., : end - start, : end - start]) for start, end in bounds]
    allowed, added = masks.allowed(visibility), masks.added(visibility, dtype)
    blocks = []
    for start, end in bounds:
        columns = allowed[:, :, start:end].any(dim=2).any(dim=0)[0].nonzero()
        low, high = int(columns[0]), int(columns[-1]) + 1
        seen = allowed[:, :, start:end, low:high]
        part: Tensor | None
        if added is not None:
            part = added[:, :, start:end, low:high]
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
                _add(scores, block.added, kv_heads, group)
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
        # Sums over the blocks, so never of a narrow type.
        wide = torch.promote_types(keys.dtype, torch.float32)
        key_gradient, value_gradient = torch.zeros_like(keys, dtype=wide), torch.zeros_like(values, dtype=wide)
        for block, probability in zip(ctx.blocks, probabilities, strict=True):
            rows, seen = slice(block.start * group, block.end * group), slice(block.low, block.high)
            value_gradient[:, seen] += probability.mT @ upstream[:, rows]
            pull = upstream[:, rows] @ values[:, seen].mT
            # Through the softmax: dS = P * (dP - sum(P * dP)).
            scores_gradient = torch._softmax_backward_data(pull, probability, -1, pull.dtype)
            query_gradient[:, rows] = scores_gradient @ keys[:, seen]
            key_gradient[:, seen] += scores_gradient.mT @ queries[:, rows]
        return (
            _unstack(query_gradient, heads, kv_heads),
            _unstack(key_gradient.to(keys.dtype), kv_heads, kv_heads),
            _unstack(value_gradient.to(values.dtype), kv_heads, kv_heads),
            None,
        )


def _add(scores: Tensor, added: Tensor, kv_heads: int, group: int) -> None:
    """Adds [batch or 1, 1 or heads, queries, last keys] to scores [batch * kv_heads, queries * group, keys]."""
    by_token = scores.view(-1, kv_heads, scores.shape[1] // group, group, scores.shape[2])
    heads = (1, 1) if added.shape[1] == 1 else (kv_heads, group)
    by_token[..., -added.shape[3] :] += added.unflatten(1, heads).transpose(2, 3)


def _stack(x: Tensor, kv_heads: int) -> Tensor:
    """[batch, seq, heads, size] -> [batch * kv_heads, seq * heads/kv_heads, size]."""
    batch, seq, heads, size = x.shape
    rows = x.reshape(batch, seq, kv_heads, heads // kv_heads, size).transpose(1, 2)
    return rows.reshape(batch * kv_heads, seq * heads // kv_heads, size)


def _unstack(x: Tensor, heads: int, kv_heads: int) -> Tensor:
    """The inverse of `_stack`, as a view."""
    group, size = heads // kv_heads, x.shape[-1]
    rows = x.view(-1, kv_heads, x.shape[1] // group, group, size).transpose(1, 2)
    return rows.reshape(rows.shape[0], rows.shape[1], heads, size)
