"""Sampling and decoding."""

import pytest
import torch

from model.architecture.config import TransformerConfig
from model.architecture.generation import generate, sample
from model.architecture.transformer import Transformer, initialize
from model.config import ModelConfig

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
    cached = generate(model, prompt, 15, temperature=temperature, top_p=0.9, seed=7)
    assert cached == uncached(model, prompt, 15, temperature, 7)
    assert len(set(cached)) > 3  # a constant answer would prove little


def test_the_seed_decides_the_draw(model: Transformer) -> None:
    answers = [generate(model, [1, 2], 12, temperature=1.0, seed=seed) for seed in (4, 4, 5)]
    assert answers[0] == answers[1] != answers[2]


def test_generation_ends_before_a_stop_token(model: Transformer) -> None:
    free = generate(model, [1, 2], 12)
    stop = free[4]
    assert generate(model, [1, 2], 12, stop_ids=[stop]) == free[: free.index(stop)]


def test_generation_ends_at_the_contexts_end(model: Transformer) -> None:
    assert len(generate(model, [1] * 20, 100)) == CONTEXT - 20
    assert generate(model, [1], 0) == []


@pytest.mark.parametrize("prompt", [[], [1] * CONTEXT])
def test_a_prompt_without_room_is_refused(model: Transformer, prompt: list[int]) -> None:
    with pytest.raises(ValueError, match=f"prompt of {len(prompt)} tokens"):
        generate(model, prompt, 3)


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
