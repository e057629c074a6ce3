"""The flash-attn kernel against the definition, with a stand-in that follows flash-attn's documentation."""

import sys
from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kernel_fixtures import Case, cases, error, truth
from torch import Tensor

from sluice.model.architecture.attention_mask import AttentionCall, AttentionMask, document_positions
from sluice.model.architecture.kernels import TOLERANCES, KernelRequest, flash, refusal


class StandIn:
    """`flash_attn_func` and `flash_attn_varlen_func`: queries at the end of the keys, inclusive windows."""

    def __init__(self) -> None:
        self.calls: list[dict[str, object]] = []

    def flash_attn_func(self, q: Tensor, k: Tensor, v: Tensor, **settings: object) -> Tensor:
        self.calls.append({"shapes": [tuple(x.shape) for x in (q, k, v)], **settings})
        return torch.stack([self._one(*row, **settings) for row in zip(q, k, v, strict=True)])

    def flash_attn_varlen_func(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        cu_seqlens_q: Tensor,
        cu_seqlens_k: Tensor,
        max_seqlen_q: int,
        max_seqlen_k: int,
        **settings: object,
    ) -> Tensor:
        self.calls.append({"shapes": [tuple(x.shape) for x in (q, k, v)], "starts": cu_seqlens_q.tolist(), **settings})
        assert cu_seqlens_q.dtype == cu_seqlens_k.dtype == torch.int32 and torch.equal(cu_seqlens_q, cu_seqlens_k)
        assert int(cu_seqlens_q[-1]) == q.shape[0] and max_seqlen_q == max_seqlen_k == int(cu_seqlens_q.diff().max())
        sizes = cu_seqlens_q.diff().tolist()
        pieces = zip(q.split(sizes), k.split(sizes), v.split(sizes), strict=True)
        return torch.cat([self._one(*piece, **settings) for piece in pieces])

    def _one(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        *,
        dropout_p: float,
        softmax_scale: float,
        causal: bool,
        window_size: tuple[int, int],
        softcap: float,
        alibi_slopes: Tensor | None,
    ) -> Tensor:
        """[queries, heads, size] over [keys, kv_heads, size]."""
        assert dropout_p == 0.0
        group = q.shape[1] // k.shape[1]
        k, v = k.repeat_interleave(group, 1), v.repeat_interleave(group, 1)
        scores = torch.einsum("qhd,khd->hqk", q, k) * softmax_scale
        if softcap > 0:
            scores = softcap * torch.tanh(scores / softcap)
        ahead = torch.arange(k.shape[0]) - (torch.arange(q.shape[0])[:, None] + k.shape[0] - q.shape[0])
        if alibi_slopes is not None:
            assert alibi_slopes.dtype == torch.float32
            scores = scores - alibi_slopes[:, None, None] * ahead.abs()
        left, right = window_size
        hidden = (ahead < -left if left >= 0 else ahead > len(k)) | (ahead > right if right >= 0 else ahead > len(k))
        hidden |= (ahead > 0) & causal
        return torch.einsum("hqk,khd->qhd", scores.masked_fill(hidden, -torch.inf).softmax(-1), v)


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    module = StandIn()
    functions = {name: getattr(module, name) for name in ("flash_attn_func", "flash_attn_varlen_func")}
    monkeypatch.setitem(sys.modules, "flash_attn", SimpleNamespace(**functions))
    yield module


def takes(case: Case) -> bool:
    view = case.mask
    request = KernelRequest(
        device="cuda",
        dtype=torch.bfloat16,
        gradient=True,
        queries=case.queries.shape[1],
        keys=case.keys.shape[1],
        head_size=case.queries.shape[3],
        plain=view.plain,
        global_tokens=view.window is not None and view.global_tokens > 0,
        key_mask=view.key_mask is not None,
        flash_installed=True,
        orderly=flash.orderly(view),
    )
    return refusal("flash", request) is None


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_whatever_flash_takes_is_the_definition(stand_in: StandIn, data: st.DataObject) -> None:
    case = data.draw(cases(additive=False).filter(takes)).of(torch.float32)
    if data.draw(st.booleans()):
        slopes = torch.rand(case.queries.shape[2], generator=torch.Generator().manual_seed(0))
        case = replace(case, mask=replace(case.mask, slopes=slopes, plain=False))
    before = len(stand_in.calls)
    found = flash.attend(case.call)
    assert len(stand_in.calls) == before + 1
    assert error(found, truth(case)) <= TOLERANCES[torch.float32][0]


def test_a_window_counts_the_query_itself_and_flash_does_not(stand_in: StandIn) -> None:
    x, shared = torch.randn(2, 9, 4, 8), torch.randn(2, 9, 2, 8)
    masks = [AttentionMask.self_attention(9, causal=causal, window=3) for causal in (True, False)]
    flash.attend(AttentionCall(x, shared, shared, masks[0], scale=0.5, soft_cap=20.0, dropout=0.0))
    flash.attend(AttentionCall(x, shared, shared, masks[1], scale=0.5))
    flash.attend(AttentionCall(x, shared, shared, AttentionMask.self_attention(9, causal=True), scale=0.5))
    windows = [(call["causal"], call["window_size"], call["softcap"]) for call in stand_in.calls]
    assert windows == [(True, (2, 0), 20.0), (False, (2, 2), 0.0), (True, (-1, -1), 0.0)]
    assert all(call["shapes"] == [(2, 9, 4, 8), (2, 9, 2, 8), (2, 9, 2, 8)] for call in stand_in.calls)
    assert all(call["softmax_scale"] == 0.5 for call in stand_in.calls)


def test_documents_are_handed_over_as_sequences_of_their_own_lengths(stand_in: StandIn) -> None:
    x = torch.randn(2, 6, 2, 8)
    documents = torch.tensor([[0, 0, 0, 1, 1, 2], [2, 2, 2, 2, 3, 3]])
    mask = AttentionMask.self_attention(6, causal=True, documents=documents)
    flash.attend(AttentionCall(x, x, x, mask, scale=0.5))
    assert stand_in.calls[0]["starts"] == [0, 3, 5, 6, 10, 12]
    assert stand_in.calls[0]["shapes"] == [(12, 2, 8)] * 3


def test_what_the_order_of_tokens_does_not_tell_is_not_taken() -> None:
    row = torch.arange(6)[None]
    torn = torch.tensor([[0, 0, 1, 1, 0, 0]])
    assert flash.orderly(AttentionMask(row, row, causal=True))
    assert flash.orderly(AttentionMask(row[:, 4:], row, causal=True))
    assert flash.orderly(AttentionMask(row + 3, row + 3, causal=True))
    assert not flash.orderly(AttentionMask(row * 2, row * 2, causal=True))
    assert not flash.orderly(AttentionMask(row[:, :4], row, causal=True))
    assert not flash.orderly(AttentionMask(row, row[:, :4], causal=True))
    assert not flash.orderly(AttentionMask(row, row.where(row > 0, -1), causal=True))
    places = document_positions(torn)
    assert not flash.orderly(AttentionMask(places, places, causal=True, query_documents=torn, key_documents=torn))
    assert flash.orderly(
        AttentionMask.self_attention(6, causal=True, documents=torn)
    )  # which are three documents to it
    assert flash.orderly(AttentionMask.self_attention(6, causal=True, documents=torn.sort().values))
    gaps = replace(
        AttentionMask.self_attention(6, causal=True, documents=row * 0), query_positions=row * 2, key_positions=row * 2
    )
    assert not flash.orderly(gaps)
    unlike = replace(AttentionMask.self_attention(6, causal=True, documents=torn.sort().values), key_documents=torn)
    assert not flash.orderly(unlike)
    assert places.tolist() == [[0, 1, 0, 1, 0, 1]]
