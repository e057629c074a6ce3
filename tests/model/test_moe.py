"""Mixture of experts: transformers' numbers, exact drops, and a load that the balancing loss keeps even."""

from typing import Any, get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional
from transformers.models.mixtral.configuration_mixtral import MixtralConfig
from transformers.models.mixtral.modeling_mixtral import MixtralSparseMoeBlock, load_balancing_loss_func

from sluice.model.architecture.config import FeedForwardKind, ModelConfig
from sluice.model.architecture.mixture_config import MixtureConfig
from sluice.model.architecture.moe import (
    MoE,
    auxiliary_loss,
    by_expert,
    capacity,
    expert_load,
    groups_well,
    within_capacity,
)

HIDDEN, WIDTH = 16, 24


def shaped(feedforward: FeedForwardKind = "swiglu", bias: bool = False, **mixture: Any) -> ModelConfig:
    chosen = {"experts": 4, "intermediate_size": WIDTH} | mixture
    chosen |= {"normalize": False} if chosen.get("per_token") == 1 else {}
    return ModelConfig(
        hidden_size=HIDDEN,
        layers=1,
        heads=2,
        kv_heads=1,
        feedforward=feedforward,
        feedforward_bias=bias,
        mixture=MixtureConfig(**chosen),
    )


def made(config: ModelConfig, seed: int = 0) -> MoE:
    layer, generator = MoE(config), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.normal_(0, 0.5, generator=generator)
    return layer


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, HIDDEN, generator=torch.Generator().manual_seed(seed))


def assert_same(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def plain(layer: MoE, x: Tensor, kept: set[tuple[int, int]] | None = None) -> Tensor:
    """The definition, a token at a time; `kept` names the choices (rank, token) that were not dropped."""
    rows = []
    for number, token in enumerate(x.flatten(0, -2)):
        weights, chosen = (layer.router.weight @ token).softmax(-1).topk(layer.settings.per_token)
        if layer.settings.normalize:
            weights = weights / weights.sum()
        row = torch.zeros(HIDDEN) if layer.shared is None else layer.shared(token)
        for rank, expert in enumerate(chosen.tolist()):
            if kept is not None and (rank, number) not in kept:
                continue
            assert layer.gate is not None
            hidden = functional.silu(layer.gate[expert] @ token) * (layer.up[expert] @ token)
            row = row + weights[rank] * (layer.down[expert] @ hidden)
        rows.append(row)
    return torch.stack(rows).view_as(x)


@pytest.mark.parametrize("per_token", [2, 3])
def test_numbers_and_gradients_are_those_of_mixtral(per_token: int) -> None:
    ours = made(shaped(per_token=per_token))
    theirs = MixtralSparseMoeBlock(
        MixtralConfig(
            hidden_size=HIDDEN,
            intermediate_size=WIDTH,
            num_local_experts=4,
            num_experts_per_tok=per_token,
            experts_implementation="eager",
        )
    )
    assert ours.gate is not None
    with torch.no_grad():
        theirs.gate.weight.copy_(ours.router.weight)
        theirs.experts.gate_up_proj.copy_(torch.cat([ours.gate, ours.up], dim=1))
        theirs.experts.down_proj.copy_(ours.down)
    x, weights = drawn(3, 7), drawn(3, 7, seed=1)
    mine, other = x.clone().requires_grad_(), x.clone().requires_grad_()
    output, routing = ours(mine)
    expected = theirs(other.clone())  # a view of its input, which it may write to
    assert_same(output, expected)
    for result in (output, expected):
        (result * weights).sum().backward()
    both = theirs.experts.gate_up_proj.grad.split(WIDTH, dim=1)
    pairs = [(mine.grad, other.grad), (ours.gate.grad, both[0]), (ours.up.grad, both[1])]
    pairs += [(ours.down.grad, theirs.experts.down_proj.grad), (ours.router.weight.grad, theirs.gate.weight.grad)]
    for found, wanted in pairs:
        assert found is not None and float(found.abs().max()) > 0.1
        scale = float(found.abs().max().clamp(min=1))
        torch.testing.assert_close(found / scale, wanted / scale, atol=1e-5, rtol=0)
    logits = functional.linear(x.flatten(0, 1), ours.router.weight)
    their_balance = load_balancing_loss_func((logits,), num_experts=4, top_k=per_token)
    assert_same(routing.balance * per_token, their_balance)
    assert_same(routing.z, logits.exp().sum(-1).log().square().mean())


@pytest.mark.parametrize(
    ("per_token", "normalize", "shared"), [(1, False, 0), (2, False, 2), (2, True, 1), (4, True, 0)]
)
def test_each_token_goes_to_its_own_experts(per_token: int, normalize: bool, shared: int) -> None:
    layer, x = made(shaped(per_token=per_token, normalize=normalize, shared=shared)), drawn(2, 5)
    assert_same(layer(x)[0], plain(layer, x))


@settings(max_examples=20, deadline=None)
@given(tokens=st.integers(1, 12), per_token=st.integers(1, 4), data=st.data())
def test_tokens_in_another_order_give_outputs_in_that_order(tokens: int, per_token: int, data: st.DataObject) -> None:
    layer, x = made(shaped(per_token=per_token)), drawn(1, tokens)
    order = data.draw(st.permutations(range(tokens)))
    (output, routing), (shuffled, other) = layer(x), layer(x[:, order])
    assert_same(shuffled, output[:, order])
    assert torch.equal(other.load, routing.load) and int(routing.dropped) == 0


@settings(max_examples=25, deadline=None)
@given(
    tokens=st.integers(1, 20),
    experts=st.integers(2, 5),
    ranks=st.integers(1, 2),
    most=st.integers(1, 8),
    seed=st.integers(0, 9),
)
def test_experts_fill_up_in_order_first_choices_first(
    tokens: int, experts: int, ranks: int, most: int, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.rand(tokens, experts, generator=generator).topk(ranks, dim=-1).indices
    free, kept = [most] * experts, []
    for rank in range(ranks):
        for token in range(tokens):
            expert = int(chosen[token, rank])
            if free[expert]:
                free[expert] -= 1
                kept.append((expert, rank * tokens + token))
    order, counts = within_capacity(*by_expert(chosen, experts), most)
    assert order.tolist() == [choice for _, choice in sorted(kept)]
    assert counts.tolist() == [most - left for left in free]


@settings(max_examples=20, deadline=None)
@given(tokens=st.integers(1, 16), factor=st.sampled_from([0.3, 0.5, 1.0, 1.25]), shared=st.integers(0, 1))
def test_a_dropped_choice_is_counted_and_adds_nothing(tokens: int, factor: float, shared: int) -> None:
    layer, x = made(shaped(capacity_factor=factor, shared=shared)), drawn(1, tokens)
    chosen = functional.linear(x[0], layer.router.weight).softmax(-1).topk(2).indices
    order, counts = within_capacity(*by_expert(chosen, 4), capacity(factor, chosen.numel(), 4))
    kept = {divmod(choice, tokens) for choice in order.tolist()}
    output, routing = layer.train()(x)
    assert_same(output, plain(layer, x, kept))
    assert int(routing.dropped) == 2 * tokens - len(kept)
    assert_same(routing.load, counts / (2 * tokens))
    # Out of training nothing is dropped: what a token becomes must not hang on its neighbours.
    output, routing = layer.eval()(x)
    assert_same(output, plain(layer, x))
    assert int(routing.dropped) == 0


def test_some_choices_are_dropped_at_an_even_share() -> None:
    _, routing = made(shaped(capacity_factor=1.0)).train()(drawn(1, 64))
    assert 0 < int(routing.dropped) < 64
    assert_same(routing.load.sum(), 1 - routing.dropped / 128)


def test_a_large_capacity_changes_nothing() -> None:
    x = drawn(2, 9)
    (output, routing), (expected, without) = made(shaped(capacity_factor=4.0))(x), made(shaped())(x)
    assert torch.equal(output, expected)
    assert all(torch.equal(value, getattr(without, name)) for name, value in vars(routing).items())


def test_the_share_of_an_expert_is_rounded_up() -> None:
    assert [capacity(factor, 20, 3) for factor in (0.01, 1.0, 1.25)] == [1, 7, 9]


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("kind", get_args(FeedForwardKind))
def test_a_grouped_product_is_the_products_in_turn(kind: FeedForwardKind, bias: bool) -> None:
    layer = made(shaped(kind, bias, experts=3))
    rows, counts = drawn(8), torch.tensor([5, 0, 3])
    results = []
    for through in (layer._in_turn, layer._grouped):
        layer.zero_grad()
        leaf = rows.clone().requires_grad_()
        output = through(leaf, counts)
        (output * output.detach()).sum().backward()
        grads = {name: p.grad for name, p in layer.named_parameters() if not name.startswith("router")}
        results.append({"output": output.detach(), "rows": leaf.grad} | grads)
    for name, found in results[0].items():
        scale = float(found.abs().max().clamp(min=1))
        torch.testing.assert_close(found / scale, results[1][name] / scale, atol=1e-5, rtol=0)


def test_products_are_grouped_off_the_cpu_where_rows_are_aligned() -> None:
    weight = torch.empty(3, 24, 16, device="meta")
    assert groups_well(torch.empty(5, 16, device="meta"), weight)
    assert not groups_well(torch.empty(5, 16), weight)
    assert not groups_well(torch.empty(5, 16, device="meta"), torch.empty(3, 22, 15, device="meta"))


def test_the_router_stays_wide_in_a_narrow_model() -> None:
    layer, x = made(shaped()).bfloat16(), drawn(2, 40).bfloat16()
    output, routing = layer(x)
    logits = functional.linear(x.float(), layer.router.weight.float())
    assert output.dtype == torch.bfloat16 and routing.balance.dtype == routing.z.dtype == torch.float32
    assert torch.equal(routing.z, logits.flatten(0, 1).logsumexp(-1).square().mean())
    with torch.autocast("cpu", torch.bfloat16):
        _, autocast = made(shaped())(drawn(2, 40))
    assert torch.equal(autocast.z, made(shaped())(drawn(2, 40))[1].z)


def test_auxiliary_loss_and_load_go_over_the_layers() -> None:
    config = shaped(balance_weight=0.5, z_weight=0.25)
    routings = [made(config, seed)(drawn(2, 5))[1] for seed in (0, 1)]
    expected = sum(0.5 * routing.balance + 0.25 * routing.z for routing in routings)
    assert_same(auxiliary_loss(routings, config), expected)
    load = expert_load(routings)
    assert load.shape == (2, 4)
    assert_same(load.sum(-1), torch.ones(2))


def trained(balance_weight: float) -> Tensor:
    """Load [experts] on fresh tokens after training a mixture to imitate a fixed network.

    The tokens share a direction, and at the start the router leans towards one expert along it, as a router may by
    chance. An expert that is taken improves, so that the router comes to prefer it more: the lean feeds itself.
    """
    torch.manual_seed(0)
    config = shaped(per_token=1, balance_weight=balance_weight, z_weight=0.0)
    layer, target = MoE(config), torch.randn(HIDDEN, HIDDEN) / HIDDEN**0.5
    common = torch.ones(HIDDEN)
    with torch.no_grad():
        layer.router.weight.mul_(0.5)
        layer.router.weight[0] += 0.25 * common
    optimizer = torch.optim.Adam(layer.parameters(), lr=3e-3)

    def tokens() -> Tensor:
        return torch.randn(1, 256, HIDDEN) + common

    for _ in range(200):
        x = tokens()
        output, routing = layer(x)
        loss = functional.mse_loss(output, torch.tanh(x @ target)) + auxiliary_loss([routing], config)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        return layer(tokens())[1].load


def test_without_the_balancing_loss_one_expert_takes_all_and_with_it_none_does() -> None:
    alone, balanced = trained(balance_weight=0.0), trained(balance_weight=0.05)
    assert float(alone.max()) > 0.9
    assert float(balanced.max()) < 2 / 4
    assert float(balanced.min()) > 0.5 / 4


@settings(max_examples=20, deadline=None)
@given(tokens=st.integers(1, 9), padding=st.integers(1, 9), per_token=st.integers(1, 3))
def test_padding_has_no_part_in_what_is_said_of_the_routing(tokens: int, padding: int, per_token: int) -> None:
    layer, x = made(shaped(per_token=per_token)), drawn(1, tokens)
    padded = torch.cat((x, drawn(1, padding, seed=1) + 3, torch.full((1, 1, HIDDEN), torch.nan)), dim=1)
    real = torch.arange(padded.shape[1])[None] < tokens
    (output, alone), (beside, routing) = layer(x), layer(padded, real)
    assert_same(beside[:, :tokens], output)
    for name, value in vars(alone).items():
        assert_same(getattr(routing, name), value)
    assert not torch.isclose(layer(padded[:, :-1])[1].balance, alone.balance, rtol=1e-6)  # where it counts it shows


@settings(max_examples=40, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 4), st.integers(1, 8), st.integers(1, 8)),
    factor=st.sampled_from([0.3, 0.5, 1.0, 1.25]),
    per_token=st.integers(1, 2),
    seed=st.integers(0, 99),
)
def test_padding_takes_no_place_of_a_real_token(
    shape: tuple[int, int, int], factor: float, per_token: int, seed: int
) -> None:
    rows, length, padding = shape
    layer = made(shaped(capacity_factor=factor, per_token=per_token), seed).train()
    x = drawn(rows, length, seed=seed)
    padded = torch.cat((x, drawn(rows, padding, seed=seed + 100)), dim=1)
    real = (torch.arange(length + padding) < length).expand(rows, -1)
    (alone, expected), (beside, routing) = layer(x), layer(padded, real)
    assert_same(beside[:, :length], alone)
    for name, value in vars(expected).items():
        assert_same(getattr(routing, name), value)


def test_a_mask_without_padding_changes_no_bit_under_a_capacity() -> None:
    layer, x = made(shaped(capacity_factor=0.5)).train(), drawn(4, 8)
    (expected, alone), (output, routing) = layer(x), layer(x, torch.ones(4, 8, dtype=torch.bool))
    assert torch.equal(output, expected)
    assert int(routing.dropped) == int(alone.dropped) > 0
    assert torch.equal(routing.load, alone.load)


@pytest.mark.parametrize("factor", [None, 1.0])
def test_padding_alone_is_no_division_by_zero(factor: float | None) -> None:
    routing = made(shaped(capacity_factor=factor))(drawn(1, 3), torch.zeros(1, 3, dtype=torch.bool))[1]
    assert float(routing.balance) == float(routing.z) == float(routing.load.sum()) == 0
