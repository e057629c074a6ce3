"""flash-attn, where it is installed (arXiv 2307.08691): windows, ALiBi, soft cap and documents on a GPU.

Its kernels know no positions: they number the tokens of a sequence themselves, the last query beside the last key. So
they do for queries that are the last of consecutive keys, and for packed documents that each lie in one piece.
"""

import importlib.util
from functools import cache
from typing import Any

import torch
from torch import Tensor

from sluice.model.architecture.attention_mask import Visibility
from sluice.model.architecture.kernels import masks


@cache
def installed() -> bool:
    return importlib.util.find_spec("flash_attn") is not None


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
    import flash_attn

    before, after = -1, -1
    if visibility.window is not None:
        # Keys besides the query's own, where the window counts it in.
        before = visibility.window - 1
        after = 0 if visibility.causal else before
    settings: dict[str, Any] = {
        "dropout_p": dropout,
        "softmax_scale": scale,
        "causal": visibility.causal,
        "window_size": (before, after),
        "softcap": soft_cap or 0.0,
        "alibi_slopes": None if visibility.slopes is None else visibility.slopes.float(),
    }
    if visibility.query_documents is None:
        return flash_attn.flash_attn_func(queries, keys, values, **settings)
    starts, longest = masks.remembered(visibility, "documents", lambda: _documents(visibility, queries.shape[0]))
    mixed = flash_attn.flash_attn_varlen_func(
        queries.flatten(0, 1),
        keys.flatten(0, 1),
        values.flatten(0, 1),
        cu_seqlens_q=starts,
        cu_seqlens_k=starts,
        max_seqlen_q=longest,
        max_seqlen_k=longest,
        **settings,
    )
    return mixed.unflatten(0, queries.shape[:2])


def orderly(visibility: Visibility) -> bool:
    """Whether the kernels' own numbering of tokens gives the visibility's distances. Asks the device, once."""
    return visibility.plain or masks.remembered(visibility, "orderly", lambda: _orderly(visibility))


def _orderly(visibility: Visibility) -> bool:
    keys, queries = visibility.key_positions, visibility.query_positions
    length = queries.shape[1]
    if keys.shape[1] < length or int(keys.min()) < 0 or not bool((keys[:, -length:] == queries).all()):
        return False
    steps = keys.diff(dim=1) == 1
    documents = visibility.key_documents
    if documents is None or visibility.query_documents is None:
        return bool(steps.all())
    if documents.shape != visibility.query_documents.shape or not torch.equal(documents, visibility.query_documents):
        return False
    new = documents.diff(dim=1) != 0
    runs = new.sum(dim=1) + 1
    kinds = documents.sort(dim=1).values.diff(dim=1).ne(0).sum(dim=1) + 1
    return bool((steps | new).all()) and torch.equal(runs, kinds)


def _documents(visibility: Visibility, batch: int) -> tuple[Tensor, int]:
    """Where documents of the flattened batch begin and the last ends, [documents + 1] int32; the longest's length."""
    documents = visibility.query_documents
    assert documents is not None
    documents = documents.expand(batch, -1)
    new = torch.ones_like(documents, dtype=torch.bool)
    new[:, 1:] = documents.diff(dim=1) != 0
    starts = new.flatten().nonzero()[:, 0]
    starts = torch.cat((starts, starts.new_tensor([documents.numel()]))).to(torch.int32)
    return starts, int(starts.diff().max())
