"""Attention computed query by query from its definition, and random calls for the kernels."""

from dataclasses import dataclass, replace

import torch
from hypothesis import strategies as st
from torch import Tensor

from sluice.model.architecture.attention_mask import AttentionCall, AttentionMask


@dataclass(frozen=True)
class Case:
    queries: Tensor
    keys: Tensor
    values: Tensor
    mask: AttentionMask
    scale: float
    soft_cap: float | None

    def of(self, dtype: torch.dtype) -> "Case":
        """The same question with inputs rounded to `dtype`, and leaves of a new graph."""
        queries, keys, values = (x.detach().to(dtype).requires_grad_() for x in (self.queries, self.keys, self.values))
        bias = self.mask.bias
        fresh = replace(
            self.mask, bias=None if bias is None else bias.detach().clone().requires_grad_(bias.requires_grad)
        )
        return replace(self, queries=queries, keys=keys, values=values, mask=fresh)

    @property
    def call(self) -> AttentionCall:
        return AttentionCall(self.queries, self.keys, self.values, self.mask, scale=self.scale, soft_cap=self.soft_cap)

    @property
    def leaves(self) -> list[Tensor]:
        bias = self.mask.bias
        return [self.queries, self.keys, self.values, *([bias] if bias is not None and bias.requires_grad else [])]


def truth(case: Case) -> Tensor:
    """[batch, queries, heads, size] float64, by a loop over queries that gathers the keys each may see."""
    view = case.mask
    queries, keys, values = case.queries.double(), case.keys.double(), case.values.double()
    batch, length, heads, _ = queries.shape
    group = heads // keys.shape[2]
    keys, values = keys.repeat_interleave(group, 2), values.repeat_interleave(group, 2)
    rows = []
    for row in range(batch):
        for query in range(length):
            seen = [key for key in range(keys.shape[1]) if sees(view, row, query, key)]
            if not seen:
                rows.append(queries[row, query] * 0.0)
                continue
            scores = (queries[row, query][None] * keys[row, seen]).sum(-1) * case.scale  # [seen, heads]
            if case.soft_cap is not None:
                scores = case.soft_cap * (scores / case.soft_cap).tanh()
            if view.bias is not None:
                scores = scores + of(view.bias, row)[:, query, seen].double().T
            if view.slopes is not None:
                distances = of(view.query_positions, row)[query] - of(view.key_positions, row)[seen]
                scores = scores - distances.abs()[:, None] * view.slopes.double()
            rows.append((scores.softmax(0)[..., None] * values[row, seen]).sum(0))
    return torch.stack(rows).view_as(queries)


def of(x: Tensor, row: int) -> Tensor:
    return x[row if x.shape[0] > 1 else 0]


def sees(view: AttentionMask, row: int, query: int, key: int) -> bool:
    place, other = int(of(view.query_positions, row)[query]), int(of(view.key_positions, row)[key])
    if other < 0 or (view.causal and other > place):
        return False
    everywhere = place < view.global_tokens or other < view.global_tokens
    if view.window is not None and abs(place - other) >= view.window and not everywhere:
        return False
    documents = view.query_documents, view.key_documents
    if documents[0] is not None and documents[1] is not None and documents[0][row, query] != documents[1][row, key]:
        return False
    return view.key_mask is None or bool(of(view.key_mask, row)[key])


@st.composite
def cases(draw: st.DrawFn, *, additive: bool = True, capped: bool = True) -> Case:
    """Self-attention, packed documents, a cache with places unfilled, or another sequence's keys, all in small."""
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    batch, kv_heads, group = draw(st.integers(1, 3)), draw(st.integers(1, 2)), draw(st.integers(1, 3))
    queries, size, heads = draw(st.integers(1, 9)), draw(st.sampled_from([4, 8])), kv_heads * group
    shape = draw(st.sampled_from(["plain", "self", "packed", "cached", "crossed"]))
    keys = queries + draw(st.integers(0, 6)) if shape in ("cached", "crossed") else queries

    def normal(*sizes: int) -> Tensor:
        return torch.randn(sizes, generator=generator, dtype=torch.float64)

    def whole(low: int, high: int, *sizes: int) -> Tensor:
        return torch.randint(low, high, sizes, generator=generator)

    causal = draw(st.booleans())
    if shape == "plain":
        positions = torch.arange(queries)[None]
        view = AttentionMask(positions, positions, causal, plain=True)
    else:
        view = _positioned(shape, whole, batch, queries, keys, causal)
        window = draw(st.none() | st.integers(1, 5))
        view = replace(view, window=window, global_tokens=draw(st.integers(0, 3)))
        if draw(st.booleans()):
            view = replace(view, key_mask=whole(0, 3, batch, keys) > 0)
        if additive and draw(st.booleans()):
            view = replace(view, bias=normal(draw(st.sampled_from([1, batch])), heads, queries, keys).float())
        if additive and draw(st.booleans()):
            view = replace(view, slopes=torch.rand(heads, generator=generator))
    return Case(
        normal(batch, queries, heads, size),
        normal(batch, keys, kv_heads, size),
        normal(batch, keys, kv_heads, size),
        view,
        scale=draw(st.sampled_from([size**-0.5, 1.0])),
        soft_cap=draw(st.none() | st.sampled_from([0.5, 3.0])) if capped else None,
    )


def _positioned(shape: str, whole, batch: int, queries: int, keys: int, causal: bool) -> AttentionMask:  # type: ignore[no-untyped-def]
    if shape == "self":
        positions = torch.arange(queries)[None]
        return AttentionMask(positions, positions, causal)
    if shape == "packed":
        return packed(whole(0, 3, batch, queries).sort(dim=1).values, causal)
    key_positions = torch.arange(keys).expand(batch, keys)
    if shape == "crossed":
        documents = whole(0, 2, batch, queries), whole(0, 2, batch, keys)
        return AttentionMask(torch.arange(queries)[None], key_positions, causal, None, 0, *documents)
    starts = whole(0, keys - queries + 1, batch, 1)  # tokens each slot held before
    positions = starts + torch.arange(queries)
    return AttentionMask(positions, key_positions.where(key_positions < starts + queries, -1), causal)


def packed(documents: Tensor, causal: bool) -> AttentionMask:
    """Documents [batch, seq], each in one piece, whose positions restart."""
    return AttentionMask.self_attention(documents.shape[1], causal=causal, documents=documents)


def error(found: Tensor, expected: Tensor) -> float:
    """Largest error over the largest entry, or over 1 where that is smaller; NaN where anything is."""
    if found.numel() == 0:
        return 0.0
    found, expected = found.detach().double(), expected.detach().double()
    return float((found - expected).abs().max() / expected.abs().max().clamp(min=1.0))
