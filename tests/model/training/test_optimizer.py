"""Lion against its paper's algorithm, and which parameter goes into which group."""

import copy
from typing import Any

import architecture_fixtures as shapes
import pytest
import torch
from torch import Tensor, nn

from sluice.model.architecture.loss import cross_entropy_sum
from sluice.model.architecture.transformer import Transformer
from sluice.model.config import PretrainConfig
from sluice.model.training.optimization.optimizer import build_optimizer, set_learning_rate
from sluice.model.training.optimization.optimizers.lion import Lion
from sluice.model.training.optimization.parameter_groups import parameter_groups

LION = PretrainConfig(optimizer="lion", learning_rate=1e-3, weight_decay=0.3, beta1=0.9, beta2=0.99)
SHAPE = shapes.shape({})
EVERY: dict[str, dict[str, Any]] = {**shapes.DECODERS, **shapes.ENCODERS, **shapes.ENCODER_DECODERS}


def gradients(model: Transformer, seed: int) -> None:
    ids = shapes.tokens(3, 12, seed)
    nats, count = cross_entropy_sum(model, ids[:, :-1], ids[:, 1:])
    (nats / count).backward()


def lion_by_hand(model: Transformer, momenta: dict[str, Tensor], scale: float) -> None:
    """Algorithm 2 of arXiv 2302.06675, in float64 but for the weights."""
    for name, weight in model.named_parameters():
        assert weight.grad is not None
        gradient, momentum = weight.grad.double(), momenta[name]
        update = torch.sign(LION.beta1 * momentum + (1 - LION.beta1) * gradient)
        decay = LION.weight_decay if weight.ndim > 1 else 0.0
        rate = LION.learning_rate * scale
        with torch.no_grad():
            weight.copy_(weight.double() - rate * (update + decay * weight.double()))
        momenta[name] = LION.beta2 * momentum + (1 - LION.beta2) * gradient


def test_lion_is_the_papers_algorithm() -> None:
    ours, plain = shapes.lively(SHAPE), shapes.lively(SHAPE)
    optimizer = build_optimizer(ours, LION)
    assert isinstance(optimizer, Lion)
    momenta = {name: torch.zeros_like(weight, dtype=torch.float64) for name, weight in plain.named_parameters()}
    for step in range(6):
        scale = 1 / (step + 1)
        set_learning_rate(optimizer, scale)
        gradients(ours, step)
        gradients(plain, step)
        optimizer.step()
        lion_by_hand(plain, momenta, scale)
        optimizer.zero_grad()
        plain.zero_grad()
    start = dict(shapes.lively(SHAPE).named_parameters())
    for (name, weight), other in zip(ours.named_parameters(), plain.parameters(), strict=True):
        # A sign near zero may fall either way; such an entry is off by twice the rate of its step at most.
        close = torch.isclose(weight, other, atol=1e-6, rtol=0)
        assert close.float().mean() > 0.995, name
        assert not torch.isclose(weight, start[name]).all(), f"{name} was never updated"


def test_lion_goes_on_from_its_state_to_the_last_bit() -> None:
    whole, resumed = shapes.lively(SHAPE), shapes.lively(SHAPE)
    optimizer, other = build_optimizer(whole, LION), build_optimizer(resumed, LION)
    for step in range(3):
        gradients(whole, step)
        optimizer.step()
        optimizer.zero_grad()
    resumed.load_state_dict(whole.state_dict())
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for model, each in ((whole, optimizer), (resumed, other)):
        gradients(model, 9)
        each.step()
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), resumed.parameters(), strict=True))


def test_lion_leaves_a_parameter_without_gradient_alone() -> None:
    weight = nn.Parameter(torch.ones(2, 2))
    Lion([{"params": [weight], "lr": 0.1, "weight_decay": 0.5}], betas=(0.9, 0.99)).step()
    assert torch.equal(weight, torch.ones(2, 2))


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("tied", [True, False])
def test_every_parameter_of_every_architecture_has_its_group(name: str, tied: bool) -> None:
    model = Transformer(shapes.shape({**EVERY[name], "tie_embeddings": tied}))
    names = {id(each): path for path, each in model.named_parameters()}
    groups = {kind: {names[id(each)] for each in members} for kind, members in parameter_groups(model).items()}
    assert sum(map(len, groups.values())) == len(names)
    assert all("embedding" in each or "relative" in each or each == "head.weight" for each in groups["embedding"])
    assert all(each.endswith(("weight", ".gate", ".up", ".down")) for each in groups["matrices"])
    assert not any("norm" in each or "conv1d" in each or "embedding" in each for each in groups["matrices"])
    assert ("head.weight" in groups["embedding"]) is not tied


def test_stacked_experts_are_matrices_and_the_router_too() -> None:
    model = Transformer(shapes.shape(shapes.DECODERS["mixture"]))
    matrices = {id(each) for each in parameter_groups(model)["matrices"]}
    mixture = model.layers[0].feedforward
    assert all(id(each) in matrices for each in (mixture.gate, mixture.up, mixture.down, mixture.router.weight))
    assert mixture.gate.ndim == 3


def test_biases_of_stacked_experts_are_no_matrices() -> None:
    options = {"mixture": {"experts": 4}, "feedforward": "relu", "feedforward_bias": True}
    model = Transformer(shapes.shape(options))
    vectors = {id(each) for each in parameter_groups(model)["vectors"]}
    mixture = model.layers[0].feedforward
    assert mixture.up_bias.ndim == 2
    assert id(mixture.up_bias) in vectors and id(mixture.down_bias) in vectors


def test_a_parameter_that_no_rule_knows_is_refused() -> None:
    model = nn.Module()
    model.kernel = nn.Parameter(torch.zeros(2, 2))
    with pytest.raises(ValueError, match=r"no group for parameter kernel of shape \[2, 2\]"):
        parameter_groups(model)


@pytest.mark.process  # DeepSpeed compiles its iteration, where no earlier run has
def test_muon_orthogonalizes_in_float32_on_every_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    from deepspeed.accelerator import get_accelerator
    from deepspeed.runtime.zero.muon import original_muon

    monkeypatch.setattr(get_accelerator(), "is_fp16_supported", lambda: True)
    build_optimizer(shapes.lively(SHAPE), PretrainConfig(optimizer="muon"))
    gradient = torch.randn(24, 16, generator=torch.Generator().manual_seed(0))
    # What it compiles is the same function, and the compiler would start a process.
    with torch.compiler.set_stance("force_eager"):
        direction = original_muon.zeropower_via_gram_newtonschulz(gradient, steps=5)
    assert direction.dtype == torch.float32
    # float16 has 11 significant bits, so it holds only a few of these values exactly.
    assert not torch.equal(direction, direction.half().float())
