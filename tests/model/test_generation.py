"""Sampling and decoding, and linear backends for decoding."""

from collections.abc import Sequence

import pytest
import torch
from cached_architectures import ARCHITECTURES, SOURCE, WITH_KEYS, built, shape, source_of, tokens
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from sluice.model.architecture import linear_backends
from sluice.model.architecture.cache import Cache
from sluice.model.architecture.config import ModelConfig, TransformerConfig
from sluice.model.architecture.generation import GenerationOptions, generate
from sluice.model.architecture.initialization import initialize
from sluice.model.architecture.linear_backends import FUSED_TOKENS, FusedLinear, fusing_pays
from sluice.model.architecture.pointwise import separate
from sluice.model.architecture.sampling import sample
from sluice.model.architecture.transformer import Transformer
from sluice.model.architecture.weight_layout import Product, pack

VOCAB, CONTEXT = 61, 24


@pytest.fixture(scope="module")
def model() -> Transformer:
    shape = ModelConfig(hidden_size=32, layers=2, heads=4, kv_heads=2, context=CONTEXT)
    built = Transformer(TransformerConfig.from_settings(shape, VOCAB))
    initialize(built, 0)
    with torch.no_grad():  # a tied head at 0.02 repeats its input for ever; larger layers make the path wander
        for name, weight in built.named_parameters():
            if weight.ndim == 2 and "embedding" not in name:
                weight.mul_(20)
    return built.eval()


@torch.no_grad()
def uncached(model: Transformer, ids: list[int], max_tokens: int, temperature: float, seed: int) -> list[int]:
    generator, answer = torch.Generator().manual_seed(seed), list(ids)
    for _ in range(max_tokens):
        answer.append(int(sample(model(torch.tensor([answer]))[:, -1], temperature, 0.9, generator)))
    return answer[len(ids) :]


@pytest.mark.parametrize("temperature", [0.0, 0.8])
@pytest.mark.parametrize("prompt", [[3], [5, 1, 60, 2, 2]])
def test_cached_decoding_is_uncached_decoding_token_for_token(
    model: Transformer, prompt: list[int], temperature: float
) -> None:
    cached = generate(model, prompt, 15, GenerationOptions(temperature=temperature, top_p=0.9, seed=7))
    assert cached == uncached(model, prompt, 15, temperature, 7)
    assert len(set(cached)) > 3  # a constant answer would prove little


def source_for(name: str) -> Sequence[int] | None:
    return tokens(SOURCE, seed=100)[0].tolist() if shape(name).kind == "encoder-decoder" else None


@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_generation_with_a_cache_is_that_without_in_every_architecture(name: str, temperature: float) -> None:
    cached, uncached = (
        generate(
            built(name),
            [5, 1, 60],
            20,
            GenerationOptions(
                temperature=temperature,
                top_p=0.9,
                seed=7,
                source=source_for(name),
                cache=cache,
            ),
        )
        for cache in (True, False)
    )
    assert cached == uncached
    assert len(cached) == 20 > FUSED_TOKENS
    assert temperature == 0 or len(set(cached)) > 8


@pytest.mark.parametrize("name", WITH_KEYS)
def test_a_cache_of_8_bits_says_the_same_until_two_tokens_are_near_a_tie(name: str) -> None:
    model, prompt, source = built(name), [5, 1, 60], source_for(name)
    exact, rounded = (
        generate(model, prompt, 15, GenerationOptions(source=source, cache=cache)) for cache in (True, "int8")
    )
    same = next((place for place, pair in enumerate(zip(exact, rounded, strict=True)) if len({*pair}) > 1), None)
    if same is None:
        return
    read = {} if source is None else {"source": torch.tensor([source])}
    logits = model(torch.tensor([prompt + exact[:same]]), **read)[0, -1]
    # Each of the two logits is off by 3 % of the largest at most.
    assert logits[exact[same]] - logits[rounded[same]] < 0.06 * logits.abs().max()


def test_most_models_say_the_same_over_8_bits() -> None:
    equal = [
        len(
            {
                tuple(generate(built(name), [7, 7], 6, GenerationOptions(source=source_for(name), cache=cache)))
                for cache in (True, "int8")
            }
        )
        == 1
        for name in WITH_KEYS
    ]
    assert sum(equal) / len(equal) > 0.8


def test_the_source_decides_the_answer() -> None:
    answers = [
        generate(built("t5"), [0], 10, GenerationOptions(temperature=1.0, source=[token] * 4)) for token in (3, 3, 9)
    ]
    assert answers[0] == answers[1] != answers[2]


def test_what_generates_nothing_says_so(model: Transformer) -> None:
    encoder = Transformer(shape("llama").model_copy(update={"kind": "encoder"}))
    with pytest.raises(ValueError, match=r"encoder .* generates none"):
        generate(encoder, [1], 3)
    with pytest.raises(ValueError, match="decoder reads no source"):
        generate(model, [1], 3, GenerationOptions(source=[1]))
    for source in (None, [], [1] * (CONTEXT + 1)):
        with pytest.raises(ValueError, match=f"needs a source of 1 to {CONTEXT} tokens"):
            generate(built("t5"), [1], 3, GenerationOptions(source=source))
    with pytest.raises(ValueError, match="cache 'int4' is not one of"):
        generate(model, [1], 3, GenerationOptions(cache="int4"))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="quantized has no effect"):
        generate(built("state space"), [1], 3, GenerationOptions(cache="int8"))


def test_a_model_in_training_is_refused() -> None:
    with pytest.raises(ValueError, match=r"training mode.* eval\(\)"):
        generate(Transformer(shape("llama").model_copy(update={"dropout": 0.1})), [1], 3)


def test_the_seed_decides_the_draw(model: Transformer) -> None:
    answers = [generate(model, [1, 2], 12, GenerationOptions(temperature=1.0, seed=seed)) for seed in (4, 4, 5)]
    assert answers[0] == answers[1] != answers[2]


def test_generation_ends_before_a_stop_token(model: Transformer) -> None:
    free = generate(model, [1, 2], 12)
    stop = free[4]
    assert generate(model, [1, 2], 12, GenerationOptions(stop_ids=[stop])) == free[: free.index(stop)]


def test_generation_ends_at_the_contexts_end(model: Transformer) -> None:
    assert len(generate(model, [1] * 20, 100)) == CONTEXT - 20
    assert generate(model, [1], 0) == []


@pytest.mark.parametrize("prompt", [[], [1] * CONTEXT])
def test_a_prompt_without_room_is_refused(model: Transformer, prompt: list[int]) -> None:
    with pytest.raises(ValueError, match=f"prompt of {len(prompt)} tokens"):
        generate(model, prompt, 3)


@pytest.mark.parametrize("temperature", [float("nan"), float("inf"), -0.1])
def test_a_temperature_out_of_range_is_refused(model: Transformer, temperature: float) -> None:
    with pytest.raises(ValueError, match=f"temperature {temperature} must be at least 0"):
        generate(model, [1], 3, GenerationOptions(temperature=temperature))


@pytest.mark.parametrize("top_p", [float("nan"), -0.1, 1.1])
def test_a_nucleus_out_of_range_is_refused(model: Transformer, top_p: float) -> None:
    with pytest.raises(ValueError, match=f"top_p {top_p} must be between 0 and 1"):
        generate(model, [1], 3, GenerationOptions(temperature=1.0, top_p=top_p))


def test_draws_follow_the_probabilities() -> None:
    probabilities = torch.tensor([0.5, 0.3, 0.15, 0.05])
    rows = probabilities.log().expand(20_000, 4)
    drawn = sample(rows, 1.0, 1.0, torch.Generator().manual_seed(0)).bincount(minlength=4) / 20_000
    torch.testing.assert_close(drawn, probabilities, atol=0.015, rtol=0)
    sharper = sample(rows, 0.5, 1.0, torch.Generator().manual_seed(0)).bincount(minlength=4) / 20_000
    squared = probabilities.square() / probabilities.square().sum()
    torch.testing.assert_close(sharper, squared, atol=0.015, rtol=0)


@pytest.mark.parametrize(("top_p", "kept"), [(0.0, {0}), (0.5, {0}), (0.6, {0, 1}), (0.8, {0, 1}), (0.81, {0, 1, 2})])
def test_the_nucleus_is_the_fewest_tokens_that_reach_top_p(top_p: float, kept: set[int]) -> None:
    rows = torch.tensor([0.5, 0.3, 0.15, 0.05]).log().expand(2_000, 4)
    assert set(sample(rows, 1.0, top_p, torch.Generator().manual_seed(0)).tolist()) == kept


def test_every_row_has_its_own_temperature_and_nucleus() -> None:
    rows = torch.tensor([0.4, 0.3, 0.2, 0.1]).log().expand(3_000, 4)
    temperature = torch.tensor([0.0, 1.0, 1.0]).repeat(1_000)
    top_p = torch.tensor([1.0, 0.6, 1.0]).repeat(1_000)
    drawn = sample(rows, temperature, top_p, torch.Generator().manual_seed(0)).view(1_000, 3)
    assert [set(column.tolist()) for column in drawn.T] == [{0}, {0, 1}, {0, 1, 2, 3}]


def test_a_greedy_row_beside_a_sampled_one_stays_exact() -> None:
    rows = torch.tensor([[0.0, 300.0, 299.9], [1.0, 1.0, 1.0]])
    drawn = sample(rows, torch.tensor([0.0, 1.0]), 1.0, torch.Generator().manual_seed(0))
    assert drawn[0] == 1


@settings(max_examples=25, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 9), min_size=1, max_size=3),
    rows=st.integers(1, 4),
    bias=st.booleans(),
    dtype=st.sampled_from([torch.float64, torch.float32, torch.bfloat16]),
)
@torch.no_grad()
def test_fused_maps_give_what_they_give_separately(sizes: list[int], rows: int, bias: bool, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(rows)
    maps = [nn.Linear(6, size, bias=bias).to(dtype) for size in sizes]
    x, fused = torch.randn(1, rows, 6, generator=generator).to(dtype), FusedLinear()
    tolerance = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 3e-2}[dtype]
    for _ in range(2):  # the second time from the copies
        for found, expected in zip(fused(x, *maps), separate(x, *maps), strict=True):
            torch.testing.assert_close(found, expected, atol=tolerance, rtol=tolerance)


@torch.no_grad()
def test_what_is_more_than_a_product_is_left_to_itself() -> None:
    class Doubled(nn.Linear):
        def forward(self, input: torch.Tensor) -> torch.Tensor:
            return 2 * super().forward(input)

    hooked = nn.Linear(4, 3)
    hooked.register_forward_hook(lambda _, inputs, output: output + 1)
    replaced = nn.Linear(4, 3)
    replaced.forward = lambda input: input.sum(-1, keepdim=True)  # type: ignore[method-assign]
    x = torch.ones(1, 1, 4)
    for maps in (
        [Doubled(4, 3)],
        [replaced],
        [nn.Linear(4, 2), hooked],
        [nn.Linear(4, 2), nn.Linear(4, 2, bias=False)],
    ):
        for found, expected in zip(FusedLinear()(x, *maps), separate(x, *maps), strict=True):
            assert torch.equal(found, expected)


@pytest.mark.parametrize("name", ARCHITECTURES)
@torch.no_grad()
def test_a_step_with_fused_maps_gives_the_same_logits(name: str) -> None:
    model, ids, fused = built(name), tokens(CONTEXT), FusedLinear()
    caches = Cache(model.config, 1), Cache(model.config, 1)
    for cache in caches:
        model.hidden(ids[:, :5], cache=cache, **source_of(model, [0]))
    for place in range(5, 9):
        step = ids[:, place : place + 1]
        expected = model.logits(model.hidden(step, cache=caches[0]))
        found = model.logits(model.hidden(step, cache=caches[1], linear=fused), fused)
        torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-5)


def test_fusing_pays_for_a_small_model_on_a_cpu_and_more_than_a_few_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    model = nn.Linear(3, 5, bias=False)
    monkeypatch.setattr(linear_backends, "FUSED_BYTES", 3 * 5 * 4)
    assert fusing_pays(model, FUSED_TOKENS)
    assert not fusing_pays(model, FUSED_TOKENS - 1)
    assert not fusing_pays(model.to("meta"), FUSED_TOKENS)
    assert not fusing_pays(nn.Linear(4, 5, bias=False), FUSED_TOKENS)


@settings(max_examples=40, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    leading=st.lists(st.integers(1, 3), max_size=2),
    threads=st.integers(1, 5),
    bias=st.booleans(),
    dtype=st.sampled_from([torch.float64, torch.float32, torch.bfloat16]),
)
def test_a_packed_product_is_the_linear_map(
    shape: tuple[int, int], leading: list[int], threads: int, bias: bool, dtype: torch.dtype
) -> None:
    random = torch.Generator().manual_seed(threads)
    weight, addend = torch.randn(shape, generator=random).to(dtype), torch.randn(shape[0], generator=random).to(dtype)
    x = torch.randn(*leading, shape[1], generator=random).to(dtype)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        found = pack(weight, x.numel() // shape[1])(x, addend if bias else None)
    finally:
        torch.set_num_threads(before)
    expected = functional.linear(x, weight, addend if bias else None)
    tolerance = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 0.0}[dtype]
    torch.testing.assert_close(found, expected, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("outputs", [50_257, 3, 1])
def test_every_thread_has_its_part_of_outputs_that_do_not_divide(outputs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    random, shapes, matmul = torch.Generator().manual_seed(0), [], torch.matmul
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    monkeypatch.setattr(torch, "matmul", lambda x, y: shapes.append(tuple(y.shape)) or matmul(x, y))
    weight, x = torch.randn(outputs, 4, generator=random), torch.randn(2, 3, 4, generator=random)
    product, bias = pack(weight, 6), torch.randn(outputs, generator=random)
    for each in (x, x[:1, :1]):
        found = product(each, bias)
        torch.testing.assert_close(found, functional.linear(each, weight, bias), atol=1e-5, rtol=1e-5)
        assert found.shape == (*each.shape[:-1], outputs)
    assert shapes == [(2, 4, (outputs + 1) // 2)] * 2


def test_what_was_packed_for_one_text_serves_the_next(model: Transformer, monkeypatch: pytest.MonkeyPatch) -> None:
    alone, shapes = [generate(model, [1, 2, start], 12) for start in range(4)], []

    def counted(weight: torch.Tensor, rows: int) -> Product:
        shapes.append(tuple(weight.shape))
        return pack(weight, rows)

    monkeypatch.setattr(linear_backends, "pack", counted)
    joined = FusedLinear()
    assert [generate(model, [1, 2, start], 12, GenerationOptions(decoder=joined)) for start in range(4)] == alone
    assert len({tuple(text) for text in alone}) > 1
    # Four products a layer and the head, once for all texts.
    assert len(shapes) == 4 * model.config.layers + 1


def test_joined_maps_refuse_to_lose_gradients() -> None:
    with pytest.raises(ValueError, match=r"give the weights no gradients: decode within torch.no_grad\(\)"):
        FusedLinear()(torch.ones(1, 1, 4), nn.Linear(4, 3))


def test_settings_of_generate_without_effect_are_refused(model: Transformer) -> None:
    with pytest.raises(ValueError, match="a decoder has no effect without a cache"):
        generate(model, [1], 3, GenerationOptions(cache=False, decoder=FusedLinear()))
    with pytest.raises(ValueError, match="max_tokens -5 must be at least 0"):
        generate(model, [1], -5)
