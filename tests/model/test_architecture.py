"""The transformer: causality, bad input, initialization, loss, and gradients of the hand-written operations."""

from typing import Literal

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from sluice.model.architecture.attention import RotaryEmbedding, rope_frequencies, rotate
from sluice.model.architecture.config import ModelConfig, TransformerConfig
from sluice.model.architecture.initialization import initialize
from sluice.model.architecture.loss import _HeadCrossEntropy, cross_entropy_sum
from sluice.model.architecture.pointwise import RMSNorm
from sluice.model.architecture.rope_scaling_config import RopeScaling
from sluice.model.architecture.transformer import Transformer

VOCAB = 61
CONTEXT = 24


def tiny(seed: int = 0, tied: bool = True) -> Transformer:
    settings_ = ModelConfig(hidden_size=32, layers=2, heads=4, kv_heads=2, context=CONTEXT)
    config = TransformerConfig.from_settings(settings_, VOCAB)
    model = Transformer(config.model_copy(update={"tie_embeddings": tied}))
    initialize(model, seed)
    return model.eval()


def tokens(rows: int, length: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, VOCAB, (rows, length), generator=torch.Generator().manual_seed(seed))


@settings(max_examples=25, deadline=None)
@given(length=st.integers(2, CONTEXT), data=st.data())
def test_a_token_changes_no_logits_before_it(length: int, data: st.DataObject) -> None:
    changed = data.draw(st.integers(0, length - 1))
    model, ids = tiny(), tokens(1, length)
    other = ids.clone()
    other[0, changed] = (other[0, changed] + 1) % VOCAB
    with torch.no_grad():
        before, after = model(ids), model(other)
    assert torch.equal(before[:, :changed], after[:, :changed])
    assert not torch.allclose(before[:, changed], after[:, changed])


def test_attention_sees_relative_positions_only() -> None:
    model, ids = tiny(), tokens(2, 8)
    shifted = (torch.arange(8) + 11).expand(2, 8)
    with torch.no_grad():
        torch.testing.assert_close(model(ids, positions=shifted), model(ids), atol=1e-5, rtol=0)
        stretched = model(ids, positions=torch.arange(8).expand(2, 8) * 2)
        assert not torch.allclose(stretched, model(ids), atol=1e-5)


def test_positions_that_a_model_does_not_read_are_refused() -> None:
    settings_ = ModelConfig(hidden_size=32, layers=1, heads=4, kv_heads=2, context=CONTEXT, positions="alibi")
    model = Transformer(TransformerConfig.from_settings(settings_, VOCAB))
    with pytest.raises(ValueError, match="positions alibi reads none"):
        model(tokens(1, 3), positions=torch.arange(3)[None])


def test_no_tokens_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\[1, 0\] hold no token"):
        tiny()(tokens(1, 0))


@pytest.mark.parametrize(("token", "said"), [(VOCAB, f"token id {VOCAB}"), (-1, "token id -1")])
def test_a_token_outside_the_vocabulary_is_named(token: int, said: str) -> None:
    ids = tokens(2, 5)
    ids[1, 3] = token
    with pytest.raises(ValueError, match=f"{said} .*0 to {VOCAB - 1}"):
        tiny()(ids)


def test_a_sequence_longer_than_the_context_is_named() -> None:
    with pytest.raises(ValueError, match=f"{CONTEXT + 1} tokens .* context {CONTEXT}"):
        tiny()(tokens(1, CONTEXT + 1))


@pytest.mark.parametrize("place", [CONTEXT, -1])
def test_a_position_outside_the_context_is_named(place: int) -> None:
    with pytest.raises(ValueError, match=f"position {place} .* context {CONTEXT}"):
        tiny()(tokens(1, 3), positions=torch.tensor([[0, 1, place]]))


def test_initialization_follows_from_the_seed_alone() -> None:
    torch.manual_seed(1)
    first = tiny(seed=5).state_dict()
    torch.manual_seed(2)
    again, other = tiny(seed=5).state_dict(), tiny(seed=6).state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["embedding.weight"], other["embedding.weight"])


def test_initialization_has_the_stated_scales() -> None:
    config = TransformerConfig.from_settings(ModelConfig(hidden_size=128, layers=8, heads=4, kv_heads=2), 512)
    model = Transformer(config)
    initialize(model, 0)
    for name, weight in model.named_parameters():
        if weight.ndim == 1:
            assert torch.equal(weight, torch.ones_like(weight)), name
        else:
            expected = 0.005 if name.endswith(("output.weight", "down.weight")) else 0.02
            assert weight.std().item() == pytest.approx(expected, rel=0.03), name


def test_each_stack_is_scaled_by_its_own_sublayers() -> None:
    settings_ = ModelConfig(
        hidden_size=128, layers=3, encoder_layers=8, heads=4, kv_heads=4, kind="encoder-decoder", norm="layer"
    )
    model = Transformer(TransformerConfig.from_settings(settings_, 512))
    initialize(model, 0)
    written = {
        name: weight for name, weight in model.named_parameters() if name.endswith(("output.weight", "down.weight"))
    }
    assert len(written) == 3 * 3 + 2 * 8
    for name, weight in written.items():
        expected = 0.02 / (2 * 8 if name.startswith("encoder.") else 3 * 3) ** 0.5
        assert weight.std().item() == pytest.approx(expected, rel=0.03), name


def test_a_fresh_model_is_as_uncertain_as_chance() -> None:
    ids = tokens(4, CONTEXT)
    total, count = cross_entropy_sum(tiny(), ids[:, :-1], ids[:, 1:])
    assert (total / count).item() == pytest.approx(torch.log(torch.tensor(float(VOCAB))).item(), abs=0.1)


def test_the_state_dict_holds_weights_only_in_any_dtype() -> None:
    model = tiny()
    model(tokens(1, 4))
    assert set(model.state_dict()) == {name for name, _ in model.named_parameters()}
    half = tiny().to(torch.bfloat16)
    logits = half(tokens(1, 8))
    assert logits.dtype == torch.bfloat16
    cosine, _ = half.rotary(torch.arange(4))
    assert cosine.dtype == torch.float32
    torch.testing.assert_close(logits.float(), tiny()(tokens(1, 8)), atol=0.02, rtol=0.05)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("masked", [True, False])
def test_the_chunked_loss_is_torchs_cross_entropy(tied: bool, masked: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sluice.model.architecture.loss._CHUNK_LOGITS", 5 * VOCAB)  # 40 rows in chunks of 5
    model, ids = tiny(tied=tied), tokens(2, 21)
    mask = torch.rand(2, 20, generator=torch.Generator().manual_seed(3)) < 0.5 if masked else None
    total, count = cross_entropy_sum(model, ids[:, :-1], ids[:, 1:], mask)
    (total / count).backward()
    ours = {name: weight.grad for name, weight in model.named_parameters()}
    model.zero_grad()

    wanted = ids[:, 1:] if mask is None else ids[:, 1:].masked_fill(~mask, -100)
    expected = functional.cross_entropy(model(ids[:, :-1]).flatten(0, 1), wanted.flatten(), reduction="sum")
    number = 40 if mask is None else int(mask.sum())
    (expected / number).backward()
    assert int(count) == number
    torch.testing.assert_close(total, expected)
    for name, weight in model.named_parameters():
        torch.testing.assert_close(ours[name], weight.grad, atol=1e-6, rtol=1e-4, msg=lambda m, n=name: f"{n}: {m}")


def test_targets_under_the_mask_are_not_read() -> None:
    ids, mask = tokens(1, 6), torch.tensor([[True, False, True, True, False, True]])
    total, _ = cross_entropy_sum(tiny(), ids, ids.masked_fill(~mask, -100), mask)
    same, _ = cross_entropy_sum(tiny(), ids, ids, mask)
    assert torch.equal(total, same)


IDS, SOME = tokens(1, 5), torch.tensor([[True, False, True, True, False]])


@pytest.mark.parametrize(
    ("targets", "counted", "said"),
    [
        (IDS[:, :1], None, r"targets of shape \[1, 1\] must be that of the ids, \[1, 5\]"),
        (IDS[0], None, r"targets of shape \[5\] must be that of the ids, \[1, 5\]"),
        (IDS.float(), None, "targets of type float32 must be int32 or int64"),
        (torch.full((1, 5), -100), None, f"target -100 is outside the vocabulary of 0 to {VOCAB - 1}"),
        (IDS.masked_fill(SOME, VOCAB), SOME, f"target {VOCAB} is outside the vocabulary of 0 to {VOCAB - 1}"),
        (IDS, SOME[:, :3], r"counted of shape \[1, 3\] must be that of the ids, \[1, 5\]"),
        (IDS, SOME.long(), "counted of type int64 must be bool"),
    ],
)
def test_what_is_wrong_with_targets_is_named(targets: torch.Tensor, counted: torch.Tensor | None, said: str) -> None:
    for model in (tiny(), tiny().train()):
        with pytest.raises(ValueError, match=f"^{said}$"):
            cross_entropy_sum(model, IDS, targets, counted)


def test_targets_may_be_int32() -> None:
    model, gradients = tiny(), []
    for targets in (IDS, IDS.int()):
        model.zero_grad()
        cross_entropy_sum(model, IDS, targets)[0].backward()
        gradients.append(model.embedding.weight.grad)
    assert gradients[0] is not None and torch.equal(*gradients)


def test_a_narrow_heads_gradient_does_not_lose_by_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Against float64, at 120 chunks as at one: what bfloat16 loses in a sum grows with its terms."""
    errors, exact = [], None
    for dtype, rows in ((torch.float64, 480), (torch.bfloat16, 480), (torch.bfloat16, 4)):
        monkeypatch.setattr("sluice.model.architecture.loss._CHUNK_LOGITS", rows * VOCAB)
        random = torch.Generator().manual_seed(0)
        hidden, weight = (torch.randn(size, 32, generator=random).bfloat16().to(dtype) for size in (480, VOCAB))
        targets = torch.randint(0, VOCAB, (480,), generator=random)
        total = _HeadCrossEntropy.apply(hidden, weight.requires_grad_(), targets, 0.0)
        (gradient,) = torch.autograd.grad(total, [weight])
        assert gradient.dtype == dtype
        exact = gradient if exact is None else exact
        errors.append(float((gradient.double() - exact).norm() / exact.norm()))
    _, whole, chunked = errors
    assert 0 < chunked < 1.2 * whole


def test_an_empty_mask_gives_zero_and_no_gradient() -> None:
    model, ids = tiny(), tokens(2, 6)
    total, count = cross_entropy_sum(model, ids, ids, torch.zeros(2, 6, dtype=torch.bool))
    total.backward()
    assert (total.item(), int(count)) == (0.0, 0)
    assert all(not weight.grad.any() for weight in model.parameters() if weight.grad is not None)


def test_rms_norm_is_the_papers_formula() -> None:
    norm, x = RMSNorm(16, 1e-5).double(), torch.randn(3, 5, 16, dtype=torch.float64, requires_grad=True)
    with torch.no_grad():
        norm.weight.uniform_(0.5, 2.0, generator=torch.Generator().manual_seed(0))
    expected = x / (x.square().mean(-1, keepdim=True) + 1e-5).sqrt() * norm.weight
    torch.testing.assert_close(norm(x), expected)
    with torch.no_grad():
        torch.testing.assert_close(norm(x), expected)
    assert torch.autograd.gradcheck(norm, x)
    assert torch.autograd.gradcheck(lambda weight: torch.func.functional_call(norm, {"weight": weight}, x), norm.weight)


def test_rms_norm_in_bfloat16_keeps_its_statistics_in_float32() -> None:
    x = torch.randn(64, 256, generator=torch.Generator().manual_seed(0)).bfloat16().requires_grad_()
    norm, wide = RMSNorm(256, 1e-5).bfloat16(), RMSNorm(256, 1e-5)
    found, expected = norm(x), wide(x.float())
    assert torch.equal(found, expected.bfloat16())
    (gradient,) = torch.autograd.grad(found.float().pow(3).sum(), [x])
    (reference,) = torch.autograd.grad(expected.pow(3).sum(), [x])
    torch.testing.assert_close(gradient, reference.to(gradient.dtype), atol=0.05, rtol=0.02)


def test_a_model_first_used_for_inference_trains_on() -> None:
    model, ids = tiny(), tokens(2, CONTEXT)
    with torch.inference_mode():
        model(ids)
    model(ids).sum().backward()
    assert all(weight.grad is not None for weight in model.parameters())


def test_rotation_turns_each_pair_by_its_angle() -> None:
    table = RotaryEmbedding(4, CONTEXT, 10_000.0)(torch.arange(3) + 5)
    x = torch.randn(2, 3, 5, 4, generator=torch.Generator().manual_seed(0))
    angles = torch.tensor([[position * 1.0, position * 0.01] for position in (5.0, 6.0, 7.0)])
    pairs = torch.complex(x[..., :2], x[..., 2:]) * torch.polar(torch.ones(3, 2), angles)[:, None]
    torch.testing.assert_close(rotate(x, *table), torch.cat((pairs.real, pairs.imag), dim=-1))


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        # (10,000 x 8^(8/6))^-(0, 1/4, 2/4, 3/4), of 160,000, which has a fourth root: the fastest pair turns as it did,
        # the slowest by 1/8 (YaRN, arXiv 2309.00071, section 3.1).
        ("ntk", [1.0, 1 / 20, 1 / 400, 0.001 / 8]),
        # Positions over 8 (arXiv 2306.15595).
        ("linear", [1.0 / 8, 0.1 / 8, 0.01 / 8, 0.001 / 8]),
    ],
)
def test_scaled_frequencies_are_the_papers(kind: Literal["ntk", "linear"], expected: list[float]) -> None:
    plain = rope_frequencies(8, 10_000.0, CONTEXT, None)
    torch.testing.assert_close(plain, torch.tensor([1.0, 0.1, 0.01, 0.001]))
    scaled = rope_frequencies(8, 10_000.0, CONTEXT, RopeScaling(kind=kind, factor=8))
    torch.testing.assert_close(scaled, torch.tensor(expected))
    table = RotaryEmbedding(8, CONTEXT, 10_000.0, RopeScaling(kind=kind, factor=8))(torch.tensor([3]))
    torch.testing.assert_close(table[0][0, 0, :4], (3 * torch.tensor(expected)).cos())


def test_training_and_evaluation_take_different_kernels_to_the_same_logits() -> None:
    model, ids = tiny(), tokens(2, CONTEXT)
    trained = model(ids)
    with torch.no_grad():
        torch.testing.assert_close(trained, model(ids), atol=1e-6, rtol=1e-5)


def test_a_norm_in_float32_learns_in_float32_from_a_narrower_stream() -> None:
    norm, random = RMSNorm(16, 1e-5), torch.Generator().manual_seed(0)
    norm(torch.randn(64, 16, generator=random).bfloat16()).float().square().sum().backward()
    gradient = norm.weight.grad
    assert gradient is not None
    assert gradient.dtype == torch.float32
    assert not torch.equal(gradient, gradient.bfloat16().float())


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.bfloat16, 2e-2)])
def test_a_norm_says_the_same_with_and_without_gradients(dtype: torch.dtype, tolerance: float) -> None:
    norm, x = RMSNorm(48, 1e-5).to(dtype), torch.randn(3, 7, 48, generator=torch.Generator().manual_seed(0)).to(dtype)
    with torch.no_grad():
        norm.weight.copy_(torch.rand(48, generator=torch.Generator().manual_seed(1)))
        alone = norm(x)
        reference = torch.rms_norm(x, (48,), norm.weight, 1e-5)
    torch.testing.assert_close(norm(x), alone, atol=tolerance, rtol=tolerance)
    torch.testing.assert_close(alone, reference, atol=tolerance, rtol=tolerance)


def test_the_scale_of_embeddings_is_rounded_to_their_type() -> None:
    """Gemma was trained with the root of its width in bfloat16: 34, not 33.94, for a width of 1152."""
    config = tiny().config.model_copy(update={"embedding_scale": 1152**0.5})
    model, ids = Transformer(config).bfloat16(), tokens(1, 5)
    assert torch.equal(model.embed(ids, torch.arange(5), None), model.embedding(ids) * 34)
