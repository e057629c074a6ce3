"""flash-attn, if installed (arXiv 2307.08691): windows, ALiBi, soft cap and documents on a GPU.

Its kernels take no positions: they number the tokens of a sequence themselves, aligning the last query with the last
key. This is correct for queries that are the last of consecutive keys, and for contiguous packed documents.
"""

import importlib.util
from functools import cache
from typing import Any

import torch
from torch import Tensor

from sluice.model.architecture.attention_mask import AttentionCall, AttentionMask


@cache
def installed() -> bool:
    return importlib.util.find_spec("flash_attn") is not None


def attend(call: AttentionCall) -> Tensor:
    """Documents are passed as one sequence of tokens with the bounds of each document."""
    import flash_attn

    mask, before, after = call.mask, -1, -1
    if mask.window is not None:
        # flash-attn counts the keys besides the query's own, which the window includes.
        before = mask.window - 1
        after = 0 if mask.causal else before
    settings: dict[str, Any] = {
        "dropout_p": call.dropout,
        "softmax_scale": call.scale,
        "causal": mask.causal,
        "window_size": (before, after),
        "softcap": call.soft_cap or 0.0,
        "alibi_slopes": None if mask.slopes is None else mask.slopes.float(),
    }
    documents = mask.query_documents
    if documents is None:
        return flash_attn.flash_attn_func(call.queries, call.keys, call.values, **settings)
    batch = call.queries.shape[0]

    def document_bounds() -> tuple[Tensor, int]:
        """Starts of the documents in the flattened batch and the last's end, [documents + 1] int32; longest length."""
        rows = documents.expand(batch, -1)
        new = torch.ones_like(rows, dtype=torch.bool)
        new[:, 1:] = rows.diff(dim=1) != 0
        starts = new.flatten().nonzero()[:, 0]
        starts = torch.cat((starts, starts.new_tensor([rows.numel()]))).to(torch.int32)
        return starts, int(starts.diff().max())

    starts, longest = mask.cached("documents", document_bounds)
    mixed = flash_attn.flash_attn_varlen_func(
        call.queries.flatten(0, 1),
        call.keys.flatten(0, 1),
        call.values.flatten(0, 1),
        cu_seqlens_q=starts,
        cu_seqlens_k=starts,
        max_seqlen_q=longest,
        max_seqlen_k=longest,
        **settings,
    )
    return mixed.unflatten(0, call.queries.shape[:2])


def orderly(mask: AttentionMask) -> bool:
    """Return whether the kernels' own numbering of tokens gives the mask's distances; reads the device once a mask."""

    def compare() -> bool:
        keys, queries = mask.key_positions, mask.query_positions
        length = queries.shape[1]
        if keys.shape[1] < length or int(keys.min()) < 0 or not bool((keys[:, -length:] == queries).all()):
            return False
        steps = keys.diff(dim=1) == 1
        documents = mask.key_documents
        if documents is None or mask.query_documents is None:
            return bool(steps.all())
        if documents.shape != mask.query_documents.shape or not torch.equal(documents, mask.query_documents):
            return False
        new = documents.diff(dim=1) != 0
        runs = new.sum(dim=1) + 1
        kinds = documents.sort(dim=1).values.diff(dim=1).ne(0).sum(dim=1) + 1
        return bool((steps | new).all()) and torch.equal(runs, kinds)

    return mask.plain or mask.cached("orderly", compare)
