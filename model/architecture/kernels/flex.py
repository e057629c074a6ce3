"""torch's FlexAttention (arXiv 2412.05496): blocks that nobody sees are skipped, and scores change inside the kernel.

On a GPU it is compiled; on a CPU it runs uncompiled and forward only, for a look at the same masks.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import flex_attention as flex

from sluice.model.architecture.attention_mask import Visibility
from sluice.model.architecture.kernels import masks

ScoreMod = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]
MaskMod = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


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
    assert dropout == 0.0
    lengths, device = (queries.shape[1], keys.shape[1]), queries.device
    mask = masks.remembered(visibility, f"block mask {lengths}", lambda: _block_mask(visibility, *lengths, device))
    mixed = _for(device, flex.flex_attention)(
        queries.transpose(1, 2),
        keys.transpose(1, 2),
        values.transpose(1, 2),
        score_mod=_score_mod(visibility, soft_cap),
        block_mask=mask,
        scale=scale,
        enable_gqa=queries.shape[2] != keys.shape[2],
    )
    return mixed.transpose(1, 2)


@cache
def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    return torch.compile(function)


def _for(device: torch.device, function: Callable[..., Any]) -> Callable[..., Any]:
    return function if device.type == "cpu" or torch.compiler.is_compiling() else _compiled(function)


def _block_mask(visibility: Visibility, queries: int, keys: int, device: torch.device) -> flex.BlockMask | None:
    if visibility.plain and not visibility.causal:
        return None
    given = (
        visibility.query_positions,
        visibility.key_positions,
        visibility.query_documents,
        visibility.key_documents,
        visibility.key_mask,
    )
    rows = 1 if visibility.plain else max(x.shape[0] for x in given if x is not None)
    return _for(device, flex.create_block_mask)(_mask_mod(visibility), rows, None, queries, keys, device=device)


def _mask_mod(visibility: Visibility) -> MaskMod:
    """`visibility.allowed`, for one query and one key."""
    if visibility.plain:
        return lambda row, head, query, key: query >= key
    query_at, key_at = _row_of(visibility.query_positions), _row_of(visibility.key_positions)
    causal, window, global_tokens = visibility.causal, visibility.window, visibility.global_tokens
    query_document = _row_of(visibility.query_documents)
    key_document, key_mask = _row_of(visibility.key_documents), _row_of(visibility.key_mask)

    def seen(row: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        place, other = query_at(row, query), key_at(row, key)
        allowed = other >= 0
        if causal:
            allowed = allowed & (place >= other)
        if window is not None:
            allowed = allowed & (((place - other).abs() < window) | (other < global_tokens) | (place < global_tokens))
        if query_document is not None:
            allowed = allowed & (query_document(row, query) == key_document(row, key))
        if key_mask is not None:
            allowed = allowed & key_mask(row, key)
        return allowed

    return seen


def _score_mod(visibility: Visibility, soft_cap: float | None) -> ScoreMod | None:
    """What `visibility.additive` and the cap do to one score; None where nothing is done."""
    bias, slopes = _row_of(visibility.bias), visibility.slopes
    if bias is None and slopes is None and soft_cap is None:
        return None
    query_at, key_at = _row_of(visibility.query_positions), _row_of(visibility.key_positions)

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
    """A function (row, places..) -> entry of [batch or 1, ..]; None for None."""
    if x is None:
        return None
    if x.shape[0] > 1:
        return lambda row, *places: x[(row, *places)]
    shared = x[0]
    return lambda row, *places: shared[places]
