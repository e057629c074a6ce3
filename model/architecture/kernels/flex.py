"""torch's FlexAttention (arXiv 2412.05496): skips fully masked blocks and modifies scores inside the kernel.

Compiled on a GPU. On a CPU it runs uncompiled and forward only, so that tests there exercise the same masks.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import flex_attention as flex

from sluice.model.architecture.attention_mask import AttentionCall, AttentionMask

ScoreMod = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]
MaskMod = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


def attend(call: AttentionCall) -> Tensor:
    """Heads come before tokens here: [batch, heads, seq, head_size]."""
    assert call.dropout == 0.0
    mask, lengths, device = call.mask, (call.queries.shape[1], call.keys.shape[1]), call.queries.device

    def block_mask() -> flex.BlockMask | None:
        if mask.plain and not mask.causal:
            return None
        positions, documents = (mask.query_positions, mask.key_positions), (mask.query_documents, mask.key_documents)
        tensors = (*positions, *documents, mask.key_mask)
        rows = 1 if mask.plain else max(x.shape[0] for x in tensors if x is not None)
        return _for(device, flex.create_block_mask)(_mask_mod(mask), rows, None, *lengths, device=device)

    mixed = _for(device, flex.flex_attention)(
        call.queries.transpose(1, 2),
        call.keys.transpose(1, 2),
        call.values.transpose(1, 2),
        score_mod=_score_mod(mask, call.soft_cap),
        block_mask=mask.cached(f"block mask {lengths}", block_mask),
        scale=call.scale,
        enable_gqa=call.queries.shape[2] != call.keys.shape[2],
    )
    return mixed.transpose(1, 2)


_compile: Callable[[Callable[..., Any]], Callable[..., Any]] = cache(torch.compile)


def _for(device: torch.device, function: Callable[..., Any]) -> Callable[..., Any]:
    return function if device.type == "cpu" or torch.compiler.is_compiling() else _compile(function)


def _mask_mod(mask: AttentionMask) -> MaskMod:
    """`mask.allowed` for one query and one key."""
    if mask.plain:
        return lambda row, head, query, key: query >= key
    query_at, key_at = _row_of(mask.query_positions), _row_of(mask.key_positions)
    causal, window, global_tokens = mask.causal, mask.window, mask.global_tokens
    query_document = _row_of(mask.query_documents)
    key_document, key_mask = _row_of(mask.key_documents), _row_of(mask.key_mask)

    def seen(row: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        query_place, key_place = query_at(row, query), key_at(row, key)
        allowed = key_place >= 0
        if causal:
            allowed = allowed & (query_place >= key_place)
        if window is not None:
            is_global = (key_place < global_tokens) | (query_place < global_tokens)
            allowed = allowed & (((query_place - key_place).abs() < window) | is_global)
        if query_document is not None:
            allowed = allowed & (query_document(row, query) == key_document(row, key))
        if key_mask is not None:
            allowed = allowed & key_mask(row, key)
        return allowed

    return seen


def _score_mod(mask: AttentionMask, soft_cap: float | None) -> ScoreMod | None:
    """`mask.additive` and the soft cap for one score; None where neither applies."""
    bias, slopes = _row_of(mask.bias), mask.slopes
    if bias is None and slopes is None and soft_cap is None:
        return None
    query_at, key_at = _row_of(mask.query_positions), _row_of(mask.key_positions)

    def changed(score: Tensor, row: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        if soft_cap is not None:
            score = soft_cap * torch.tanh(score / soft_cap)
        if bias is not None:
            score = score + bias(row, head, query, key)
        if slopes is not None:
            score = score - slopes[head] * (query_at(row, query) - key_at(row, key)).abs()
        return score

    return changed


def _row_of(x: Tensor | None) -> Any:
    """Return a function (row, indices..) -> entry of x [batch or 1, ..]; None for None."""
    if x is None:
        return None
    if x.shape[0] > 1:
        return lambda row, *indices: x[(row, *indices)]
    shared = x[0]
    return lambda row, *indices: shared[indices]
