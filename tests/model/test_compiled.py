"""Decoding with one compiled graph per step: traced for every architecture, compiled for one."""

from collections.abc import Iterator
from typing import Literal

import pytest
import torch
from cached_architectures import ARCHITECTURES, CONTEXT, SOURCE, WITH_KEYS, built, tokens
from torch import nn

from sluice.model.architecture.cache import Cache
from sluice.model.architecture.compiled import SMALLEST, CompiledDecoder
from sluice.model.architecture.config import ModelConfig, TransformerConfig
from sluice.model.architecture.generation import GenerationOptions, generate
from sluice.model.architecture.initialization import initialize
from sluice.model.architecture.linear_backends import row_sum
from sluice.model.architecture.pointwise import separate
from sluice.model.architecture.transformer import Transformer

TRACED = ("llama", "window, global tokens", "alibi", "hybrid", "t5")
"""Architectures that `make test` traces; the matrix has all."""
COMPILED = [
    name if name in TRACED else pytest.param(name, marks=pytest.mark.matrix)
    for name in ARCHITECTURES
    if name != "mixture"
]


@pytest.fixture(autouse=True)
def no_graph_of_another_test() -> Iterator[None]:
    """Graphs of one function are counted over all models, and few are allowed."""
    torch.compiler.reset()
    yield
    torch.compiler.reset()


def said(
    name: str, decoder: CompiledDecoder | None, cache: Literal[True, "int8"], temperature: float = 0.8
) -> list[int]:
    source = tokens(SOURCE, seed=100)[0].tolist() if built(name).config.kind == "encoder-decoder" else None
    return generate(
        built(name),
        [5, 1, 60],
        20,
        GenerationOptions(source=source, cache=cache, decoder=decoder, temperature=temperature, seed=3),
    )


@pytest.mark.parametrize("name", COMPILED)
def test_the_traced_step_says_the_same_in_every_architecture(name: str) -> None:
    # Without a compiler behind it, which would take ten seconds a model; a graph that breaks is an error all the same.
    decoder = CompiledDecoder(built(name), backend="eager")
    caches: list[Literal[True, "int8"]] = [True, "int8"] if name in WITH_KEYS else [True]
    for cache in caches:
        answer = said(name, decoder, cache)
        assert answer == said(name, None, cache)
        assert len(set(answer)) > 8


def compilable(dtype: torch.dtype) -> Transformer:
    config = ModelConfig(hidden_size=48, layers=2, heads=4, kv_heads=2, context=512, tie_embeddings=False)
    model = Transformer(TransformerConfig.from_settings(config, 97))
    initialize(model, 0)
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(10 if weight.ndim == 2 else 1)
    return model.to(dtype).eval()


@pytest.mark.matrix  # Every capacity of the cache and type is compiled for itself, which takes ten seconds and more.
def test_the_compiled_step_writes_the_same_text() -> None:
    model = compilable(torch.float32)
    decoder = CompiledDecoder(model)
    for prompt, length in (([1], 20), ([5] * 70, 200), ([7, 3, 9], 50)):
        found, expected = (
            generate(model, prompt, length, GenerationOptions(temperature=1.0, seed=4, decoder=each))
            for each in (decoder, None)
        )
        assert len(set(found)) > 8
        assert found == expected


@pytest.mark.process
@torch.inference_mode()
def test_the_compiled_step_is_as_near_to_the_truth_in_bfloat16_as_the_step_itself() -> None:
    model, exact = compilable(torch.bfloat16), compilable(torch.float32)
    exact.load_state_dict(model.state_dict())
    caches = [Cache(each.config, 1, 64, dtype=each.embedding.weight.dtype) for each in (exact, model, model)]
    decoder = CompiledDecoder(model)
    errors = torch.zeros(2)
    for place in range(30):
        ids = tokens(1, seed=place)
        truth, eager, compiled = (
            decoder.logits(cache, ids) if number == 2 else each.logits(each.hidden(ids, cache=cache)[:, -1]).float()
            for number, (each, cache) in enumerate(zip((exact, model, model), caches, strict=True))
        )
        errors += torch.stack([(found.float() - truth).norm() / truth.norm() for found in (eager, compiled)])
    # Means over the steps: 2 % or so, of which rounding the sums once instead of by blocks takes a little away.
    assert errors[1] < 1.2 * errors[0]
    assert 0 < errors[0] < 30 * 0.1


@pytest.mark.parametrize("name", ["llama", "window, global tokens", "alibi", "relative", "hybrid"])
def test_rows_at_different_lengths_go_on_together(name: str) -> None:
    model = built(name)
    caches = [Cache(model.config, 2) for _ in range(2)]
    prompts = tokens(6, seed=1).view(2, 3)
    for cache in caches:
        model.hidden(prompts, cache=cache, counts=torch.tensor([3, 1]))
    decoder = CompiledDecoder(model, backend="eager")
    for place in range(CONTEXT - 4):
        ids = tokens(2, seed=place).view(2, 1)
        found = decoder.logits(caches[0], ids)
        expected = model.logits(model.hidden(ids, cache=caches[1])[:, -1])
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    assert caches[0].lengths.tolist() == caches[1].lengths.tolist() == [CONTEXT - 1, CONTEXT - 3]


def test_a_full_cache_is_refused_and_stays_as_it_is() -> None:
    model = built("llama")
    cache, decoder = Cache(model.config, 1, max_length=4), CompiledDecoder(model, backend="eager")
    model.hidden(tokens(4), cache=cache)
    with pytest.raises(ValueError, match="sequence of 5 tokens is longer than the cache's max_length 4"):
        decoder.logits(cache, tokens(1))
    assert cache.lengths.tolist() == [4]


def test_two_graphs_serve_all_lengths() -> None:
    model, graphs = compilable(torch.float32), []

    def counting(graph: torch.fx.GraphModule, inputs: list[object]) -> torch.fx.GraphModule:
        graphs.append(graph)
        return graph

    decoder = CompiledDecoder(model, backend=counting)
    found = []
    for length in (20, 50, 100, 200, 400, 30):
        assert generate(model, [1], length, GenerationOptions(decoder=decoder)) == generate(model, [1], length)
        found.append(len(graphs))
    assert found == [1, 1, 2, 2, 2, 2]


def test_caches_have_few_lengths() -> None:
    config = ModelConfig(hidden_size=16, layers=1, heads=2, kv_heads=1, context=1000)
    decoder = CompiledDecoder(Transformer(TransformerConfig.from_settings(config, 11)), backend="eager")
    capacities = [decoder.capacity(length) for length in range(1, 1001)]
    assert set(capacities) == {SMALLEST, 128, 256, 512, 1000}
    assert all(length <= capacity for length, capacity in enumerate(capacities, start=1))


def test_what_cannot_be_compiled_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="mixture of experts"):
        CompiledDecoder(built("mixture"))
    with pytest.raises(ValueError, match="compiled for another model"):
        generate(built("llama"), [1], 3, GenerationOptions(decoder=CompiledDecoder(built("gpt2"), backend="eager")))
    from torch._inductor import cpp_builder, exc

    def none() -> str:
        raise exc.InvalidCxxCompiler

    monkeypatch.setattr(cpp_builder, "get_cpp_compiler", none)
    with pytest.raises(ValueError, match=r"C\+\+ compiler, and none was found"):
        CompiledDecoder(built("llama"))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize("bias", [True, False])
def test_maps_written_as_sums_give_what_products_give(dtype: torch.dtype, rows: int, bias: bool) -> None:
    torch.manual_seed(0)
    maps = [nn.Linear(40, size, bias=bias).to(dtype) for size in (7, 3)]
    x = torch.randn(1, rows, 40, dtype=dtype)
    for found, expected in zip(row_sum(x, *maps), separate(x, *maps), strict=True):
        assert found.dtype == dtype
        torch.testing.assert_close(found, expected)


def test_a_map_that_is_more_than_a_product_is_asked_itself() -> None:
    doubled = nn.Linear(4, 2)
    doubled.register_forward_hook(lambda _, __, y: 2 * y)
    x = torch.ones(1, 1, 4)
    torch.testing.assert_close(row_sum(x, doubled)[0], 2 * nn.functional.linear(x, doubled.weight, doubled.bias))
