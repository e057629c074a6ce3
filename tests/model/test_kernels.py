"""Every kernel agrees with the definition, in outputs and gradients, for every mask."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from kernel_fixtures import Case, cases, error, packed, truth
from torch import Tensor
from torch.nn import functional
from torch.nn.attention import flex_attention

from sluice.model.architecture.attention_mask import AttentionCall, AttentionMask
from sluice.model.architecture.kernels import (
    TOLERANCES,
    KernelName,
    attend,
    blocked,
    flex,
    sdpa,
)

LAW = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
DTYPES = pytest.mark.parametrize("dtype", list(TOLERANCES))


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Several blocks in a few tokens; FlexAttention as plain operations, which on a CPU have a gradient after all."""
    monkeypatch.setattr(blocked, "BLOCK", 4)
    monkeypatch.setattr(flex_attention, "_FLEX_ATTENTION_DISABLE_COMPILE_DEBUG", True)
    monkeypatch.setattr(flex_attention, "_validate_device", lambda *_: None)
    yield


def assert_as_defined(case: Case, kernel: KernelName, dtype: torch.dtype, *, gradients: bool = True) -> None:
    asked, exact = case.of(dtype), case.of(dtype)
    if not gradients:
        asked = Case(*(x.detach() for x in asked.leaves[:3]), asked.mask, asked.scale, asked.soft_cap)
    found = attend(asked.call, kernel=kernel)
    expected = truth(exact)
    assert found.dtype == dtype and found.shape == expected.shape
    # The tolerances are stated for scores scaled as usual; the error of a larger score is larger with it.
    larger = max(1.0, asked.scale * asked.queries.shape[-1] ** 0.5)
    output, gradient = (larger * tolerance for tolerance in TOLERANCES[dtype])
    assert error(found, expected) <= output
    if not gradients:
        return
    upstream = torch.randn(expected.shape, generator=torch.Generator().manual_seed(0))
    (found * upstream.to(dtype)).sum().backward()
    (expected * upstream.to(dtype)).sum().backward()
    assert_same_gradients(asked, exact, gradient)


def assert_same_gradients(asked: Case, exact: Case, tolerance: float) -> None:
    for mine, theirs in zip(asked.leaves, exact.leaves, strict=True):
        assert mine.grad is not None
        # None: of keys that nobody sees.
        assert error(mine.grad, torch.zeros_like(theirs) if theirs.grad is None else theirs.grad) <= tolerance


@DTYPES
@LAW
@given(case=cases())
def test_the_reference_is_the_definition(dtype: torch.dtype, case: Case) -> None:
    if case.mask.bias is not None:
        case.mask.bias.requires_grad_()
    assert_as_defined(case, "reference", dtype)


@DTYPES
@LAW
@given(case=cases(capped=False))
def test_sdpa_is_the_definition(dtype: torch.dtype, case: Case) -> None:
    if case.mask.bias is not None:
        case.mask.bias.requires_grad_()
    assert_as_defined(case, "sdpa", dtype)


@LAW
@given(case=cases(capped=False))
def test_sdpa_on_repeated_keys_and_values_is_the_definition(case: Case) -> None:
    """As on a GPU where no kernel but the math path shares heads."""
    asked: list[bool] = []
    attention = functional.scaled_dot_product_attention

    def noted(*args: Tensor, enable_gqa: bool, **options: Any) -> Tensor:
        asked.append(enable_gqa)
        return attention(*args, enable_gqa=enable_gqa, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sdpa, "shares_heads", lambda *_, masked: False)
        patch.setattr(functional, "scaled_dot_product_attention", noted)
        assert_as_defined(case, "sdpa", torch.float32)
    assert asked == [False]


@pytest.mark.parametrize("kernel", ["sdpa", "blocked", "flex"])
def test_shared_heads_of_several_tokens_each_see_their_own_token_s_keys(kernel: KernelName) -> None:
    """The layout of a step of decoding: heads as rows, beside tokens as rows."""
    torch.manual_seed(0)
    view = AttentionMask(torch.tensor([[4, 5, 6], [1, 2, 3]]), torch.arange(7)[None], causal=True)
    case = Case(torch.randn(2, 3, 6, 8), torch.randn(2, 7, 2, 8), torch.randn(2, 7, 2, 8), view, 0.3, None)
    assert_as_defined(case, kernel, torch.float32, gradients=kernel != "flex")


@DTYPES
@LAW
@given(case=cases(capped=False))
def test_blocked_is_the_definition(dtype: torch.dtype, case: Case) -> None:
    assert_as_defined(case, "blocked", dtype)


@DTYPES
@settings(LAW, max_examples=20)
@given(case=cases())
def test_flex_is_the_definition(dtype: torch.dtype, case: Case) -> None:
    assert_as_defined(case, "flex", dtype, gradients=False)


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(case=cases())
def test_flex_has_the_gradients_of_the_definition(case: Case) -> None:
    """Its uncompiled form has them on a CPU too, once the refusal is out of the way."""
    asked, exact = case.of(torch.float32), case.of(torch.float32)
    found = flex.attend(asked.call)
    weight = torch.randn(found.shape, generator=torch.Generator().manual_seed(0))
    (found * weight).sum().backward()
    (truth(exact) * weight).sum().backward()
    assert_same_gradients(asked, exact, TOLERANCES[torch.float32][1])


def test_the_cases_hold_every_kind_of_question() -> None:
    """Guards the laws above from passing over nothing."""
    kinds: set[str] = set()

    @settings(max_examples=200, deadline=None, derandomize=True, database=None)
    @given(case=cases())
    def draw(case: Case) -> None:
        view, allowed = case.mask, case.mask.allowed
        kinds.add("causal" if view.causal else "full")
        kinds.update(name for name in vars(view) if getattr(view, name) is not None)
        kinds.update({"blind"} if not allowed.any(-1).all() else set())
        kinds.update({"plain cap"} if view.plain and case.soft_cap else set())
        kinds.update({"global"} if view.window and view.global_tokens and not view.plain else set())
        kinds.update(
            {"cache"} if case.keys.shape[1] > case.queries.shape[1] and view.key_positions.min() < 0 else set()
        )
        kinds.update({"shared"} if case.queries.shape[2] > case.keys.shape[2] > 1 else set())

    draw()
    assert kinds >= {"causal", "full", "window", "bias", "slopes", "key_mask", "query_documents"}
    assert kinds >= {"blind", "plain cap", "global", "cache", "shared"}


@pytest.mark.parametrize("kernel", ["reference", "sdpa", "blocked", "flex"])
@DTYPES
def test_a_query_that_sees_nothing_gives_zeros_and_no_nan(kernel: KernelName, dtype: torch.dtype) -> None:
    positions = torch.arange(6)[None]
    mask = torch.tensor([[False, False, True, True, True, True], [False] * 6])
    view = AttentionMask(positions, positions, causal=True, key_mask=mask, slopes=torch.tensor([0.5, 0.25]))
    inputs = [torch.randn(2, 6, 2, 8).to(dtype).requires_grad_(kernel != "flex") for _ in range(3)]
    mixed = attend(AttentionCall(*inputs, view, scale=0.3), kernel=kernel)
    assert not mixed[0, :2].any() and not mixed[1].any()
    assert mixed[0, 2:].all() and mixed.isfinite().all()
    if kernel == "flex":
        return
    mixed.square().sum().backward()
    for x in inputs:
        assert x.grad is not None and x.grad.isfinite().all() and not x.grad[1].any() and x.grad[0, 3].any()


@pytest.mark.parametrize("kernel", ["reference", "sdpa", "blocked", "flex"])
@pytest.mark.parametrize(
    ("view", "hidden"),
    [
        (AttentionMask.self_attention(11, causal=True), lambda query, key: key > query),
        (AttentionMask.self_attention(11, causal=True, window=3), lambda query, key: not query - 3 < key <= query),
        (AttentionMask.self_attention(11, causal=False, window=3), lambda query, key: abs(query - key) >= 3),
        (packed(torch.tensor([[0] * 5 + [1] * 6]), causal=False), lambda query, key: (query < 5) != (key < 5)),
    ],
)
def test_a_change_of_one_key_moves_those_that_see_it_and_no_other(
    kernel: KernelName, view: AttentionMask, hidden: Callable[[int, int], bool]
) -> None:
    """To the last bit: what is hidden may not leak through rounding either."""
    torch.manual_seed(0)
    queries, keys, values = (torch.randn(1, 11, 2, 8) for _ in range(3))
    before = attend(AttentionCall(queries, keys, values, view, scale=0.3), kernel=kernel)
    for key in (0, 4, 5, 10):
        other_keys, other_values = keys.clone(), values.clone()
        other_keys[:, key], other_values[:, key] = 9.0, -9.0
        after = attend(AttentionCall(queries, other_keys, other_values, view, scale=0.3), kernel=kernel)
        moved = (after != before).flatten(2).any(-1)
        assert moved[0].tolist() == [not hidden(query, key) for query in range(11)]


@pytest.mark.parametrize("kernel", ["reference", "sdpa"])
def test_dropout_drops_probabilities_and_keeps_their_mean(kernel: KernelName) -> None:
    torch.manual_seed(0)
    size = 16
    queries = torch.zeros(1, size, 200, size)
    shares = torch.eye(size)[None, :, None].expand(1, size, 200, size)  # values that lay the probabilities open
    mask = AttentionMask.self_attention(size, causal=False)
    found = attend(AttentionCall(queries, queries, shares, mask, scale=1.0, dropout=0.25), kernel=kernel)
    kept = found != 0
    torch.testing.assert_close(found[kept], torch.full_like(found[kept], 1 / size / 0.75))
    assert abs(float(kept.float().mean()) - 0.75) < 0.01  # 51,200 draws: five standard errors


def test_layers_share_what_is_made_of_a_mask() -> None:
    view = AttentionMask.self_attention(9, causal=True, window=4)
    x = torch.randn(1, 9, 2, 8)
    attend(AttentionCall(x, x, x, view, scale=0.3), kernel="sdpa")
    first = view.allowed_or_first()
    attend(AttentionCall(x, x, x, view, scale=0.3), kernel="sdpa")
    assert view.allowed_or_first() is first


@pytest.mark.parametrize(("kernel", "window"), [("sdpa", None), ("flex", 4)])
def test_no_kernel_breaks_a_compiled_graph(kernel: KernelName, window: int | None) -> None:
    """With a compiler that only traces; what it traces is what a GPU's would be given."""

    def mixed(x: torch.Tensor) -> torch.Tensor:
        mask = AttentionMask.self_attention(9, causal=True, window=window)
        return attend(AttentionCall(x, x, x, mask, scale=0.3), kernel=kernel)

    x = torch.randn(1, 9, 2, 8)
    found = torch.compile(mixed, backend="eager", fullgraph=True)(x)
    torch.testing.assert_close(found, mixed(x), atol=1e-6, rtol=1e-5)
