"""Which kernel is chosen and why; overrides; refusals and their messages."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sluice.model.architecture import kernels
from sluice.model.architecture.attention_mask import AttentionCall, AttentionMask
from sluice.model.architecture.kernels import KERNELS, KernelName, KernelRequest, attend, choose, refusal, sdpa

TRAINING = KernelRequest("cpu", torch.float32, gradient=True, queries=256, keys=256, head_size=32, plain=True)
ON_GPU = KernelRequest(
    "cuda", torch.bfloat16, gradient=True, queries=4096, keys=4096, head_size=64, plain=True, orderly=True
)
MASKED = replace(ON_GPU, plain=False, orderly=False)


@pytest.mark.parametrize(
    ("request_", "kernel"),
    [
        (TRAINING, "blocked"),
        (replace(TRAINING, plain=False, slopes=True), "blocked"),
        (replace(TRAINING, gradient=False), "sdpa"),
        (replace(TRAINING, dtype=torch.bfloat16), "blocked"),
        (replace(TRAINING, dtype=torch.float64), "sdpa"),
        (replace(TRAINING, causal=False), "sdpa"),
        (replace(TRAINING, causal=False, plain=False, key_mask=True), "sdpa"),
        (replace(TRAINING, causal=False, plain=False, documents=True), "blocked"),
        (replace(TRAINING, causal=False, dtype=torch.bfloat16), "blocked"),
        (replace(TRAINING, plain=False, queries=8192, keys=8192, window=128), "blocked"),
        (replace(TRAINING, plain=False, queries=8192, keys=8192, window=128, global_tokens=True), "sdpa"),
        (replace(TRAINING, queries=1025, keys=1025), "sdpa"),
        (replace(TRAINING, bias=True, bias_gradient=True, plain=False), "sdpa"),
        (replace(TRAINING, dropout=True), "sdpa"),
        (replace(TRAINING, compiled=True), "blocked"),
        (replace(TRAINING, compiled=True, plain=False), "sdpa"),
        (replace(TRAINING, soft_cap=True), "reference"),
        (ON_GPU, "sdpa"),
        (replace(ON_GPU, flash_installed=True), "sdpa"),
        (replace(ON_GPU, soft_cap=True), "flex"),
        (replace(ON_GPU, soft_cap=True, flash_installed=True), "flash"),
        (MASKED, "flex"),
        (replace(MASKED, flash_installed=True), "flex"),
        (replace(MASKED, flash_installed=True, orderly=True), "flash"),
        (replace(MASKED, flash_installed=True, orderly=True, bias=True), "flex"),
        (replace(MASKED, queries=1), "sdpa"),
        (replace(MASKED, queries=512, keys=512), "sdpa"),
        (replace(MASKED, dropout=True), "sdpa"),
        (replace(MASKED, dropout=True, soft_cap=True), "reference"),
        (replace(ON_GPU, dropout=True, soft_cap=True, flash_installed=True), "reference"),
        (replace(MASKED, device="mps"), "sdpa"),
    ],
)
def test_the_default(request_: KernelRequest, kernel: KernelName) -> None:
    chosen, reason = choose(request_)
    assert chosen == kernel and reason


requests = st.builds(
    KernelRequest,
    device=st.sampled_from(["cpu", "cuda", "mps"]),
    dtype=st.sampled_from([torch.float64, torch.float32, torch.bfloat16]),
    queries=st.sampled_from([1, 256, 4096]),
    keys=st.sampled_from([256, 4096]),
    head_size=st.sampled_from([8, 64, 512]),
    window=st.none() | st.sampled_from([1, 128]),
    **{
        name: st.booleans()
        for name in KernelRequest.__slots__
        if name not in ("device", "dtype", "queries", "keys", "head_size", "window")
    },
)


@settings(max_examples=300, deadline=None)
@given(request=requests, wanted=st.none() | st.sampled_from(KERNELS))
def test_the_chosen_kernel_can_do_what_is_asked(request: KernelRequest, wanted: KernelName | None) -> None:
    chosen, _ = choose(request)
    assert refusal(chosen, request) is None
    if wanted is None or (why := refusal(wanted, request)) is None:
        assert wanted is None or choose(request, wanted) == (wanted, "requested")
        return
    with pytest.raises(ValueError, match=f"^kernel {wanted} ") as caught:
        choose(request, wanted)
    assert why in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("wanted", "request_", "said"),
    [
        (
            "flash",
            TRAINING,
            r"kernel flash is not installed \(package flash-attn\): choose one of reference, sdpa, blocked",
        ),
        (
            "flash",
            replace(ON_GPU, flash_installed=True, dtype=torch.float32),
            "takes float16 and bfloat16, not float32",
        ),
        ("flash", replace(ON_GPU, flash_installed=True, bias=True), "adds no bias"),
        ("flash", replace(MASKED, flash_installed=True), "numbers tokens by their order"),
        ("flash", replace(ON_GPU, flash_installed=True, dropout=True, soft_cap=True), "no dropout under a soft cap"),
        ("flex", TRAINING, "kernel flex has no backward pass on a CPU"),
        ("flex", replace(ON_GPU, dropout=True), "kernel flex has no dropout"),
        ("flex", replace(ON_GPU, head_size=8), "at least 16 entries on a GPU, not 8"),
        ("sdpa", replace(ON_GPU, soft_cap=True), "kernel sdpa has no soft cap"),
        ("blocked", ON_GPU, "kernel blocked runs on cpu, not on cuda"),
        ("fast", TRAINING, "kernel 'fast' is not one of reference, sdpa, flex, flash, blocked"),
    ],
)
def test_an_override_that_cannot_be_is_refused(wanted: Any, request_: KernelRequest, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        choose(request_, wanted)


def test_an_override_holds_for_its_block_and_the_call_comes_first() -> None:
    x, view = torch.randn(1, 5, 2, 8), AttentionMask.self_attention(5, causal=True)
    with kernels.using("reference"):
        attend(AttentionCall(x, x, x, view, scale=1.0))
        assert kernels.last_choice() == ("reference", "requested")
        attend(AttentionCall(x, x, x, view, scale=1.0), kernel="blocked")
        assert kernels.last_choice() == ("blocked", "requested")
        with pytest.raises(ValueError, match="has no dropout"), kernels.using("blocked"):
            attend(AttentionCall(x, x, x, view, scale=1.0, dropout=0.1))
        attend(AttentionCall(x, x, x, view, scale=1.0))
        assert kernels.last_choice() == ("reference", "requested")
    attend(AttentionCall(x, x, x, view, scale=1.0))
    last = kernels.last_choice()
    assert last is not None and last[0] == "sdpa"
    with pytest.raises(ValueError, match="'quick' is not one of"):
        kernels.use("quick")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("device", "dtype", "masked", "shares"),
    [
        ("cpu", torch.float32, True, True),
        ("cuda", torch.bfloat16, False, True),
        ("cuda", torch.float16, False, True),
        ("cuda", torch.bfloat16, True, False),
        ("cuda", torch.float32, False, False),
    ],
)
def test_sdpa_shares_heads_where_a_kernel_does(device: str, dtype: torch.dtype, masked: bool, shares: bool) -> None:
    assert sdpa.shares_heads(device, dtype, masked=masked) == shares


def test_choices_are_counted() -> None:
    kernels.choices().clear()
    x = torch.randn(1, 5, 2, 8)
    for inputs in (x, x, x.clone().requires_grad_()):
        attend(AttentionCall(inputs, x, x, AttentionMask.self_attention(5, causal=True), scale=1.0))
    with torch.no_grad():
        attend(AttentionCall(x.clone().requires_grad_(), x, x, AttentionMask.self_attention(5, causal=True), scale=1.0))
    assert {kernel: count for (kernel, _), count in kernels.choices().items()} == {"sdpa": 3, "blocked": 1}


ROW = torch.arange(5)[None]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"query_positions": ROW[:, :4]}, r"query_positions has shape \[1, 4\], and must have \[3, 5\] or \[1, 5\]"),
        ({"key_positions": ROW.expand(2, 5)}, r"key_positions has shape \[2, 5\], and must have \[3, 5\] or \[1, 5\]"),
        ({"key_mask": torch.ones(3, 4, dtype=torch.bool)}, r"key_mask has shape \[3, 4\]"),
        ({"key_mask": torch.ones(3, 5)}, r"key_mask must be bool \(True: a real key\), not torch.float32"),
        ({"key_documents": ROW}, "documents must be given for queries and keys alike"),
        ({"key_documents": ROW, "query_documents": ROW[:, 1:]}, r"query_documents has shape \[1, 4\]"),
        ({"bias": torch.ones(1, 2, 5, 5)}, r"bias has shape \[1, 2, 5, 5\], and must have \[3, 4, 5, 5\]"),
        ({"slopes": torch.ones(2)}, r"slopes has shape \[2\], and must have \[4\]"),
    ],
)
def test_a_mask_of_the_wrong_shape_is_named(wrong: dict[str, Any], said: str) -> None:
    x = torch.randn(3, 5, 4, 8)
    with pytest.raises(ValueError, match=said):
        attend(AttentionCall(x, x, x, replace(AttentionMask(ROW, ROW, causal=True), **wrong), scale=1.0))


@pytest.mark.parametrize(
    ("keys", "values", "said"),
    [
        ((3, 5, 4, 8), (3, 6, 4, 8), r"keys \[3, 5, 4, 8\] and values \[3, 6, 4, 8\] alike"),
        ((3, 5, 8), (3, 5, 8), r"queries \[3, 5, 4, 8\] must be .* keys \[3, 5, 8\]"),
        ((2, 5, 4, 8), (2, 5, 4, 8), r"keys \[2, 5, 4, 8\] must have the batch and head size of queries"),
        ((3, 5, 4, 6), (3, 5, 4, 6), "must have the batch and head size"),
        ((3, 5, 3, 8), (3, 5, 3, 8), "a number of heads that divides theirs"),
        ((3, 6, 4, 8), (3, 6, 4, 8), "as many queries as keys, not 5 and 6"),
    ],
)
def test_inputs_that_do_not_fit_are_named(keys: tuple[int, ...], values: tuple[int, ...], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        mask = AttentionMask.self_attention(5, causal=True)
        attend(AttentionCall(torch.randn(3, 5, 4, 8), torch.randn(keys), torch.randn(values), mask, scale=1.0))
